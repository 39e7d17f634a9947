"""Looks at a node's containers every few seconds, and when somebody asks; and the pages on which it tells of them.

What runs is known from the pods' own status, so a look asks the engine for nothing: it reads files of the kernel, one
container at a time, so that nothing else waits for more than one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from minik8s import KUBERNETES_VERSION, metrics
from minik8s.aio import periodic
from minik8s.api.errors import ServiceUnavailable
from minik8s.api.kinds.pod import Pod
from minik8s.clock import Clock, system_clock
from minik8s.kubelet import accelerators
from minik8s.kubelet.accelerators import Accelerator
from minik8s.kubelet.figures import (
    SPAN,
    ContainerFigures,
    Json,
    NodeFigures,
    PodFigures,
    Rate,
    Sample,
    moment,
    rates,
    running,
    summary,
)
from minik8s.kubelet.figures_pages import cadvisor, resource
from minik8s.kubelet.lookup import Pods
from minik8s.kubelet.server import Page
from minik8s.log import get_logger
from minik8s.metrics import family, labels
from minik8s.runtime.base import Runtime, RuntimeFailure

INTERVAL = 10.0  # seconds between looks that nobody asked for; kubelet's housekeeping interval
FRESH = 1.0  # seconds for which a look is good enough for whoever asks
YOUNG = 60.0  # seconds for which a container without an earlier sample is measured from its start
PATIENCE = 5.0  # seconds for what is run to measure accelerators

log = get_logger("figures")


class Sampler:
    """`node` reads the machine's figures, given its pods'. `run` is eternal; without it rates come with a second look.

    `young`: see YOUNG; simulated containers are steady, and are measured from their start however old they are.
    """

    def __init__(
        self,
        pods: Pods,
        runtime: Runtime,
        node: Callable[[Sequence[PodFigures]], NodeFigures],
        *,
        clock: Clock = system_clock,
        tick: Callable[[], float] = time.monotonic,
        young: float = YOUNG,
    ) -> None:
        self._pods = pods
        self._runtime = runtime
        self._node = node
        self._clock = clock
        self._tick = tick
        self._young = young
        self._samples: deque[Sample] = deque()
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        await periodic(INTERVAL, self._look_again)

    async def _look_again(self) -> None:
        try:
            await self.sample(at_most=INTERVAL / 2)
        except ServiceUnavailable as error:
            log.warning(
                "not measured: will look again",
                error=str(error),
                remedy="see that /proc and the control groups can be read ('minik8s doctor')",
            )

    async def sample(self, *, at_most: float = FRESH) -> Sample:
        """One that is no older than `at_most` seconds. ServiceUnavailable if the machine's own cannot be read."""
        async with self._looking:
            if not self._samples or self._tick() - self._samples[-1].tick > at_most:
                try:
                    self._keep(await self._look())
                except OSError as error:
                    raise ServiceUnavailable(f"this node's figures cannot be read: {error}") from None
            return self._samples[-1]

    def rates(self) -> dict[str, Rate]:
        """By container id, "" for the node, as of the latest sample."""
        return rates(self._samples, young=self._young)

    def _keep(self, sample: Sample) -> None:
        self._samples.append(sample)
        while len(self._samples) > 2 and sample.tick - self._samples[1].tick >= SPAN:
            self._samples.popleft()

    async def _look(self) -> Sample:
        pods = [figures for pod in self._pods.list() if (figures := await self._pod(pod)) is not None]
        return Sample(self._clock(), self._tick(), self._node(pods), tuple(pods))

    async def _pod(self, pod: Pod) -> PodFigures | None:
        found = []
        for wanted in running(pod):
            try:
                stats = await self._runtime.stats(wanted.id)
            except RuntimeFailure:  # it has ended since, or the engine is away and its place not known yet
                continue
            if stats is not None:
                found.append(ContainerFigures(*wanted, stats))
            await asyncio.sleep(0)
        if not found:
            return None
        meta, status = pod.metadata, pod.status
        links = () if pod.spec.hostNetwork else self._runtime.links(found[0].stats)
        started = moment(status.startTime)
        return PodFigures(meta.namespace, meta.name, meta.uid, status.qosClass, started, tuple(found), links)


class Pages:
    """What a kubelet's server shows under `/stats` and `/metrics`."""

    def __init__(self, node_name: str, sampler: Sampler, cores: int, *, has_accelerators: bool = False) -> None:
        self._name = node_name
        self._sampler = sampler
        self._cores = cores
        self._accelerators = has_accelerators

    def pages(self) -> Mapping[str, Page]:
        return {
            "/stats/summary": self._summary,
            "/metrics": self._own,
            "/metrics/cadvisor": self._cadvisor,
            "/metrics/resource": self._resource,
        }

    async def summary(self) -> Json:
        sample = await self._sampler.sample()
        return summary(self._name, sample, self._sampler.rates())

    async def _summary(self) -> tuple[str, bytes]:
        return "application/json", msgspec.json.encode(await self.summary())

    async def _cadvisor(self) -> tuple[str, bytes]:
        sample = await self._sampler.sample()
        devices = await accelerators.ask(PATIENCE) if self._accelerators else []
        # For a hundred containers this takes tens of milliseconds, in which everybody else would wait.
        return metrics.CONTENT_TYPE, await asyncio.to_thread(self._lines, sample, devices)

    def _lines(self, sample: Sample, devices: Sequence[Accelerator]) -> bytes:
        return metrics.page([*cadvisor(sample, self._cores), *accelerators.lines(devices, self._name)])

    async def _resource(self) -> tuple[str, bytes]:
        return metrics.CONTENT_TYPE, metrics.page(resource(await self._sampler.sample()))

    async def _own(self) -> tuple[str, bytes]:
        lines = [*_kubelet(self._name, await self._sampler.sample()), *metrics.REGISTRY.lines()]
        return metrics.CONTENT_TYPE, metrics.page(lines)


def steady(pods: Pods, runtime: Runtime, node: Callable[[Sequence[PodFigures]], NodeFigures]) -> Sampler:
    """For a simulated node: nobody looks until somebody asks."""
    return Sampler(pods, runtime, node, young=math.inf)


def _kubelet(name: str, sample: Sample) -> Iterator[str]:
    containers = sum(len(pod.containers) for pod in sample.pods)
    for metric, text, labelled, value in (
        ("kubernetes_build_info", "Whose behaviour is followed.", labels(git_version=KUBERNETES_VERSION), 1),
        ("kubelet_node_name", "The node's name; the value is always 1.", labels(node=name), 1),
        ("kubelet_running_pods", "Pods that have a container running.", "", len(sample.pods)),
        ("kubelet_running_containers", "Containers by state.", labels(container_state="running"), containers),
    ):
        yield from family(metric, "gauge", text, [("", labelled, value)])
