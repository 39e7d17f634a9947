"""What a node and its containers use: samples of counters, and what follows from two of them. Pure.

A rate needs two samples. Those that are kept go back a few seconds beyond `SPAN`, so that a rate says what has been
used lately and is not shaken by each tick of the kernel's clock. What has started since the older sample is measured
from its start, when it had used nothing: so a container's first figures come as soon as it has run for a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from minik8s.api.kinds.pod import Container, ContainerStatus, Pod
from minik8s.api.quantity import cpu_millis
from minik8s.clock import parse_time, rfc3339
from minik8s.runtime.base import LinkStats, ProcessStats

Json = dict[str, Any]
SPAN: Final = 4.0  # seconds that a rate covers at least, where there are samples for it
SHORTEST: Final = 0.9  # seconds below which a rate says nothing
NANO: Final = 10**9
_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")


class NodeFigures(NamedTuple):
    """The machine's own. Counters since boot, bytes of now."""

    cpu_seconds: float = 0.0
    memory_total: int = 0
    memory_available: int = 0
    memory_free: int = 0
    rss: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    links: tuple[LinkStats, ...] = ()
    default_link: str = ""
    disk_total: int = 0
    disk_available: int = 0
    disk_used: int = 0
    inodes: int = 0
    inodes_free: int = 0
    processes: int = 0
    most_processes: int = 0
    booted: float = 0.0  # Unix time

    @property
    def working_set(self) -> int:
        return max(self.memory_total - self.memory_available, 0)


class ContainerFigures(NamedTuple):
    name: str
    id: str
    image: str
    started: float  # Unix time
    attempt: int
    cpu_limit: int  # millicores, 0 = none
    stats: ProcessStats


class PodFigures(NamedTuple):
    namespace: str
    name: str
    uid: str
    qos: str
    started: float
    containers: tuple[ContainerFigures, ...]
    links: tuple[LinkStats, ...] = ()


class Sample(NamedTuple):
    at: float  # Unix time
    tick: float  # seconds on a clock that nobody sets
    node: NodeFigures
    pods: tuple[PodFigures, ...]


class Rate(NamedTuple):
    cores: float
    seconds: float  # that it was measured over


class Wanted(NamedTuple):
    """A container to be measured, as its pod's status tells of it."""

    name: str
    id: str
    image: str
    started: float
    attempt: int
    cpu_limit: int


def running(pod: Pod) -> list[Wanted]:
    """The containers of a pod that run, by its status: nobody else has to be asked."""
    spec, status = pod.spec, pod.status
    limits = {c.name: _cpu_limit(c) for c in (*spec.containers, *spec.initContainers)}
    every = (*status.containerStatuses, *status.initContainerStatuses, *status.ephemeralContainerStatuses)
    found = (_wanted(one, limits.get(one.name, 0)) for one in every)
    return [wanted for wanted in found if wanted is not None]


def _wanted(one: ContainerStatus, cpu_limit: int) -> Wanted | None:
    """None if it does not run, or if somebody has written into its status what no kubelet does."""
    id = one.containerID.partition("://")[2]
    if one.state.running is None or not _ID.fullmatch(id):
        return None
    return Wanted(one.name, id, one.image, moment(one.state.running.startedAt), one.restartCount, cpu_limit)


def moment(text: str) -> float:
    """Unix time; 0 for what is no time."""
    try:
        return parse_time(text)
    except ValueError:
        return 0.0


def _cpu_limit(container: Container) -> int:
    limit = container.resources.limits.get("cpu")
    return cpu_millis(limit) if limit is not None else 0


# -- rates


def earlier(samples: Sequence[Sample], span: float = SPAN) -> Sample | None:
    """What the newest sample is compared with: the latest of those that are `span` older, or else the oldest."""
    *before, newest = samples
    old = [sample for sample in before if newest.tick - sample.tick >= span]
    return old[-1] if old else before[0] if before else None


def rates(samples: Sequence[Sample], *, young: float) -> dict[str, Rate]:
    """Cores in use by container id; the node's own under "". What cannot be said yet is missing.

    What has no earlier sample is measured from its start if it began at most `young` seconds ago.
    """
    if not samples:
        return {}
    newest, old = samples[-1], earlier(samples)
    found: dict[str, Rate] = {}
    before: dict[str, float] = {}
    if old is not None:
        before = {each.id: each.stats.cpu_seconds for pod in old.pods for each in pod.containers}
        _note(found, "", newest.node.cpu_seconds - old.node.cpu_seconds, newest.tick - old.tick)
    elif newest.at - newest.node.booted <= young:
        _note(found, "", newest.node.cpu_seconds, newest.at - newest.node.booted)
    for each in (each for pod in newest.pods for each in pod.containers):
        used = each.stats.cpu_seconds
        if old is not None and each.id in before:
            _note(found, each.id, used - before[each.id], newest.tick - old.tick)
        elif newest.at - each.started <= young:
            _note(found, each.id, used, newest.at - each.started)
    return found


def _note(found: dict[str, Rate], key: str, used: float, seconds: float) -> None:
    if seconds >= SHORTEST and used >= 0:
        found[key] = Rate(used / seconds, seconds)


# -- /stats/summary


def summary(node_name: str, sample: Sample, measured: Mapping[str, Rate]) -> Json:
    """The kubelet's statsapi Summary. `usageWindowSeconds` is ours: how long the rate before it was measured."""
    node, at = sample.node, rfc3339(sample.at)
    machine: Json = {
        "nodeName": node_name,
        "startTime": rfc3339(node.booted),
        "cpu": _cpu(at, node.cpu_seconds, measured.get("")),
        "memory": {
            "time": at,
            "availableBytes": node.memory_available,
            "usageBytes": max(node.memory_total - node.memory_free, 0),
            "workingSetBytes": node.working_set,
            "rssBytes": node.rss,
            "pageFaults": node.page_faults,
            "majorPageFaults": node.major_page_faults,
        },
        "network": _network(at, node.links, node.default_link),
        "fs": _disk(at, node),
        "runtime": {"imageFs": _disk(at, node)},
        "rlimit": {"time": at, "maxpid": node.most_processes, "curproc": node.processes},
    }
    return {"node": machine, "pods": [_pod(at, pod, measured) for pod in sample.pods]}


def _pod(at: str, pod: PodFigures, measured: Mapping[str, Rate]) -> Json:
    stats = [each.stats for each in pod.containers]
    found = [measured[each.id] for each in pod.containers if each.id in measured]
    together = None
    if found and len(found) == len(pod.containers):
        together = Rate(sum(rate.cores for rate in found), min(rate.seconds for rate in found))
    network = {"network": _network(at, pod.links, "eth0")} if pod.links else {}
    return {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": rfc3339(pod.started),
        "containers": [
            {
                "name": each.name,
                "startTime": rfc3339(each.started),
                "cpu": _cpu(at, each.stats.cpu_seconds, measured.get(each.id)),
                "memory": _memory(at, [each.stats]),
            }
            for each in pod.containers
        ],
        "cpu": _cpu(at, sum(one.cpu_seconds for one in stats), together),
        "memory": _memory(at, stats),
        **network,
        "process_stats": {"process_count": sum(one.processes for one in stats)},
    }


def _cpu(at: str, seconds: float, rate: Rate | None) -> Json:
    found: Json = {"time": at, "usageCoreNanoSeconds": round(seconds * NANO)}
    if rate is not None:
        found |= {"usageNanoCores": round(rate.cores * NANO), "usageWindowSeconds": round(rate.seconds, 3)}
    return found


def _memory(at: str, stats: Iterable[ProcessStats]) -> Json:
    one = list(stats)
    found = {
        "time": at,
        "usageBytes": sum(each.memory_usage for each in one),
        "workingSetBytes": sum(each.memory_bytes for each in one),
        "rssBytes": sum(each.rss for each in one),
        "pageFaults": sum(each.page_faults for each in one),
        "majorPageFaults": sum(each.major_page_faults for each in one),
    }
    limits = [each.memory_limit for each in one]
    if limits and all(limits):
        found["availableBytes"] = max(sum(limits) - sum(each.memory_bytes for each in one), 0)
    return found


def _network(at: str, links: Sequence[LinkStats], default: str) -> Json:
    every = [
        {
            "name": link.name,
            "rxBytes": link.received_bytes,
            "rxErrors": link.receive_errors,
            "txBytes": link.sent_bytes,
            "txErrors": link.send_errors,
        }
        for link in links
    ]
    main = next((one for one in every if one["name"] == default), {})
    return {"time": at, **main, "interfaces": every}


def _disk(at: str, node: NodeFigures) -> Json:
    return {
        "time": at,
        "availableBytes": node.disk_available,
        "capacityBytes": node.disk_total,
        "usedBytes": node.disk_used,
        "inodesFree": node.inodes_free,
        "inodes": node.inodes,
        "inodesUsed": max(node.inodes - node.inodes_free, 0),
    }
