"""A sample as Prometheus reads it: `/metrics/cadvisor` and `/metrics/resource`, with cAdvisor's and kubelet's names.

Pure. Labels are made once per container and used by all its metrics. A pod's network is told under the container `POD`,
as with every engine whose pods have a sandbox.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from minik8s.kubelet.figures import ContainerFigures, NodeFigures, PodFigures, Sample
from minik8s.metrics import Number, Samples, family, labels
from minik8s.runtime.base import LinkStats, ProcessStats

CFS_PERIOD: Final = 100_000  # microseconds; what Docker sets where NanoCpus is asked for


class _Of(NamedTuple):
    """A container, or the machine itself, with its labels as text."""

    labels: str
    figures: ContainerFigures


Read = Callable[[ProcessStats], Number]
# cAdvisor's names (its docs/storage/prometheus.md): further labels, type, what it tells, where it is from.
_OF_PROCESSES: Final[tuple[tuple[str, str, str, str, Read], ...]] = (
    ("cpu_usage_seconds_total", 'cpu="total"', "counter", "CPU time consumed.", lambda s: s.cpu_seconds),
    ("cpu_user_seconds_total", "", "counter", "User CPU time consumed.", lambda s: s.user_seconds),
    ("cpu_system_seconds_total", "", "counter", "System CPU time consumed.", lambda s: s.system_seconds),
    ("memory_usage_bytes", "", "gauge", "Memory in use, caches included.", lambda s: s.memory_usage),
    ("memory_working_set_bytes", "", "gauge", "Memory in use that cannot be dropped.", lambda s: s.memory_bytes),
    ("memory_rss", "", "gauge", "Anonymous memory, in bytes.", lambda s: s.rss),
    ("memory_cache", "", "gauge", "Page cache, in bytes.", lambda s: s.cache),
    ("memory_swap", "", "gauge", "Swap in use, in bytes.", lambda s: s.swap),
    ("memory_mapped_file", "", "gauge", "Memory-mapped files, in bytes.", lambda s: s.mapped_file),
    ("memory_failcnt", "", "counter", "How often the memory limit was hit.", lambda s: s.memory_failures),
    ("processes", "", "gauge", "Processes.", lambda s: s.processes),
    ("threads", "", "gauge", "Threads.", lambda s: s.threads),
    ("fs_reads_total", 'device=""', "counter", "Reads from disks.", lambda s: s.reads),
    ("fs_writes_total", 'device=""', "counter", "Writes to disks.", lambda s: s.writes),
    ("fs_reads_bytes_total", 'device=""', "counter", "Bytes read from disks.", lambda s: s.read_bytes),
    ("fs_writes_bytes_total", 'device=""', "counter", "Bytes written to disks.", lambda s: s.written_bytes),
    ("spec_memory_limit_bytes", "", "gauge", "Memory limit, 0 if there is none.", lambda s: s.memory_limit),
)  # fmt: skip
_OF_LIMITS: Final[tuple[tuple[str, str, Read], ...]] = (
    ("cpu_cfs_periods_total", "Periods of the CPU limit that have gone by.", lambda s: s.periods),
    ("cpu_cfs_throttled_periods_total", "Periods in which the limit was hit.", lambda s: s.throttled_periods),
    ("cpu_cfs_throttled_seconds_total", "Time spent throttled.", lambda s: s.throttled_seconds),
)
_OF_LINKS: Final[tuple[tuple[str, str, Callable[[LinkStats], Number]], ...]] = (
    ("receive_bytes_total", "Bytes received.", lambda s: s.received_bytes),
    ("receive_packets_total", "Packets received.", lambda s: s.received_packets),
    ("receive_errors_total", "Errors while receiving.", lambda s: s.receive_errors),
    ("receive_packets_dropped_total", "Packets dropped while receiving.", lambda s: s.receive_dropped),
    ("transmit_bytes_total", "Bytes sent.", lambda s: s.sent_bytes),
    ("transmit_packets_total", "Packets sent.", lambda s: s.sent_packets),
    ("transmit_errors_total", "Errors while sending.", lambda s: s.send_errors),
    ("transmit_packets_dropped_total", "Packets dropped while sending.", lambda s: s.send_dropped),
)


def cadvisor(sample: Sample, cores: int) -> Iterator[str]:
    """The lines of `/metrics/cadvisor`; `cores` is how many the machine has."""
    every = [_Of(_container_labels(pod, each), each) for pod in sample.pods for each in pod.containers]
    machine = [_Of(_labels("/"), ContainerFigures("", "", "", sample.node.booted, 0, 0, _whole(sample.node)))]
    for name, more, kind, text, read in _OF_PROCESSES:
        yield from family(f"container_{name}", kind, text, _each([*machine, *every], more, read))
    for name, text, read in _OF_LIMITS:
        yield from family(f"container_{name}", "counter", text, _each(_limited(every), "", read))
    yield from family("container_memory_failures_total", "counter", "Page faults.", _faults(every))
    yield from _of_specs([*machine, *every], sample.at)
    networks = [(_labels("/"), sample.node.links), *((_sandbox_labels(pod), pod.links) for pod in sample.pods)]
    for name, text, count in _OF_LINKS:
        yield from family(f"container_network_{name}", "counter", text, _per_link(networks, count))
    yield from _of_machine(sample.node, cores)


def resource(sample: Sample) -> Iterator[str]:
    """The lines of `/metrics/resource`."""
    node, pods = sample.node, sample.pods
    every = [
        _Of(labels(container=each.name, namespace=pod.namespace, pod=pod.name), each)
        for pod in pods
        for each in pod.containers
    ]
    sums = [(labels(namespace=pod.namespace, pod=pod.name), [each.stats for each in pod.containers]) for pod in pods]
    cpu, memory, start = "cpu_usage_seconds_total", "memory_working_set_bytes", "start_time_seconds"
    seconds, bytes_ = "CPU time consumed, in core-seconds.", "Memory in use that cannot be dropped."
    yield from family(f"node_{cpu}", "counter", seconds, [("", "", node.cpu_seconds)])
    yield from family(f"node_{memory}", "gauge", bytes_, [("", "", node.working_set)])
    yield from family(f"container_{cpu}", "counter", seconds, _each(every, "", lambda s: s.cpu_seconds))
    yield from family(f"container_{memory}", "gauge", bytes_, _each(every, "", lambda s: s.memory_bytes))
    begun = (("", of.labels, of.figures.started) for of in every)
    yield from family(f"container_{start}", "gauge", "Unix time of the start.", begun)
    used = (("", labelled, sum(s.cpu_seconds for s in stats)) for labelled, stats in sums)
    yield from family(f"pod_{cpu}", "counter", seconds, used)
    held = (("", labelled, sum(s.memory_bytes for s in stats)) for labelled, stats in sums)
    yield from family(f"pod_{memory}", "gauge", bytes_, held)
    yield from family("resource_scrape_error", "gauge", "1 if something could not be read.", [("", "", 0)])


# -- labels


def _labels(id: str, name: str = "", image: str = "", namespace: str = "", pod: str = "", container: str = "") -> str:
    return labels(container=container, id=id, image=image, name=name, namespace=namespace, pod=pod)


def _group(pod: PodFigures) -> str:
    tier = "" if pod.qos in ("", "Guaranteed") else f"{pod.qos.lower()}/"
    return f"/kubepods/{tier}pod{pod.uid}"


def _container_labels(pod: PodFigures, each: ContainerFigures) -> str:
    name = f"k8s_{each.name}_{pod.name}_{pod.namespace}_{pod.uid}_{each.attempt}"
    return _labels(f"{_group(pod)}/{each.id}", name, each.image, pod.namespace, pod.name, each.name)


def _sandbox_labels(pod: PodFigures) -> str:
    name = f"k8s_POD_{pod.name}_{pod.namespace}_{pod.uid}"
    return _labels(_group(pod), name, "pause", pod.namespace, pod.name, "POD")


# -- samples


def _each(every: Sequence[_Of], more: str, read: Read) -> Samples:
    prefix = f"{more}," if more else ""
    for of in every:
        yield "", prefix + of.labels, read(of.figures.stats)


def _limited(every: Sequence[_Of]) -> list[_Of]:
    return [of for of in every if of.figures.stats.periods]


def _faults(every: Sequence[_Of]) -> Samples:
    for of in every:
        stats = of.figures.stats
        for kind, value in (("pgfault", stats.page_faults), ("pgmajfault", stats.major_page_faults)):
            yield "", f'failure_type="{kind}",scope="hierarchy",{of.labels}', value


def _of_specs(every: Sequence[_Of], at: float) -> Iterator[str]:
    begun = (("", of.labels, of.figures.started) for of in every)
    yield from family("container_start_time_seconds", "gauge", "Unix time of the start.", begun)
    seen = (("", of.labels, round(at)) for of in every)
    yield from family("container_last_seen", "gauge", "Unix time of the last look.", seen)
    limited = [of for of in every if of.figures.cpu_limit]
    period = (("", of.labels, CFS_PERIOD) for of in limited)
    yield from family("container_spec_cpu_period", "gauge", "Period of the CPU limit, in microseconds.", period)
    quota = (("", of.labels, of.figures.cpu_limit * CFS_PERIOD // 1000) for of in limited)
    yield from family("container_spec_cpu_quota", "gauge", "CPU time in each period, in microseconds.", quota)


def _per_link(networks: Sequence[tuple[str, Sequence[LinkStats]]], count: Callable[[LinkStats], Number]) -> Samples:
    for labelled, links in networks:
        for link in links:
            yield "", f"{labels(interface=link.name)},{labelled}", count(link)


def _whole(node: NodeFigures) -> ProcessStats:
    """The machine as if it were a container: the root of all groups."""
    return ProcessStats(
        cpu_seconds=node.cpu_seconds,
        memory_bytes=node.working_set,
        memory_usage=max(node.memory_total - node.memory_free, 0),
        rss=node.rss,
        processes=node.processes,
    )


def _of_machine(node: NodeFigures, cores: int) -> Iterator[str]:
    yield from family("machine_cpu_cores", "gauge", "Logical CPU cores.", [("", "", cores)])
    yield from family("machine_memory_bytes", "gauge", "Memory of the machine.", [("", "", node.memory_total)])
    if node.disk_total:
        disk = 'device="data",' + _labels("/")
        for name, text, value in (
            ("limit_bytes", "Size of the file system.", node.disk_total),
            ("usage_bytes", "Bytes in use on the file system.", node.disk_used),
            ("inodes_total", "Inodes.", node.inodes),
            ("inodes_free", "Free inodes.", node.inodes_free),
        ):
            yield from family(f"container_fs_{name}", "gauge", text, [("", disk, value)])
