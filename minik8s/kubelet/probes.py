"""Probes: is a container started, ready, alive? Verdicts change memory at once and ask for a look at the pod.

One task per probed container. The startup probe comes first and gates the others; the first readiness probe is made as
soon as its delay allows. Counting is pure (`count`), so are the rules of thresholds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from minik8s.api.kinds.pod import Container, Probe
from minik8s.clock import Clock
from minik8s.kubelet.handlers import HandlerFailed, Handlers
from minik8s.kubelet.view import Unhealthy

Kind = Literal["startup", "liveness", "readiness"]
Report = Callable[[Container, str], None]  # a probe of this container failed; the words say which and how


class Count(NamedTuple):
    """Consecutive results of one probe, and what they mean so far (None: nothing yet)."""

    successes: int = 0
    failures: int = 0
    verdict: bool | None = None


def count(probe: Probe, before: Count, succeeded: bool) -> Count:
    """Take in one result; the verdict turns when its threshold is reached."""
    successes, failures = (before.successes + 1, 0) if succeeded else (0, before.failures + 1)
    verdict = before.verdict
    if successes >= max(probe.successThreshold, 1):
        verdict = True
    elif failures >= max(probe.failureThreshold, 1):
        verdict = False
    return Count(successes, failures, verdict)


class Verdicts(NamedTuple):
    """What probes have found, by container id; shared with the pod's memory, which reads it."""

    started: set[str]
    ready: set[str]
    unhealthy: dict[str, Unhealthy]


class Target(NamedTuple):
    container: Container
    container_id: str
    ip: str
    started_at: float


class PodProbes:
    """The probes of one pod's containers. `watch` makes the running tasks be those that are wanted."""

    def __init__(self, handlers: Handlers, clock: Clock, changed: Callable[[], None], report: Report) -> None:
        self._handlers = handlers
        self._clock = clock
        self._changed = changed
        self._report = report
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.verdicts = Verdicts(set(), set(), {})

    def watch(self, targets: Mapping[str, Target]) -> None:
        """Probe exactly these containers (by id) from now on. A probing task's fault is raised from here."""
        for container_id in [known for known in self._tasks if known not in targets]:
            self._tasks.pop(container_id).cancel()
            self.verdicts.started.discard(container_id)
            self.verdicts.ready.discard(container_id)
            self.verdicts.unhealthy.pop(container_id, None)
        for container_id, target in targets.items():
            task = self._tasks.get(container_id)
            if task is not None and task.done() and not task.cancelled():
                del self._tasks[container_id]
                task.result()
            elif task is None:
                self._tasks[container_id] = asyncio.create_task(self._probe(target), name=f"probe {container_id[:12]}")

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe(self, target: Target) -> None:
        container = target.container
        if container.startupProbe is not None and target.container_id not in self.verdicts.started:
            await self._loop("startup", container.startupProbe, target)
        async with asyncio.TaskGroup() as tasks:
            if container.readinessProbe is not None:
                tasks.create_task(self._loop("readiness", container.readinessProbe, target))
            if container.livenessProbe is not None:
                tasks.create_task(self._loop("liveness", container.livenessProbe, target))
            tasks.create_task(asyncio.Event().wait())  # the task lives as long as its container

    async def _loop(self, kind: Kind, probe: Probe, target: Target) -> None:
        """Probe until cancelled; a startup probe only until it succeeds or fails for good."""
        tally = Count()
        period = max(probe.periodSeconds, 1)
        delay = target.started_at + probe.initialDelaySeconds - self._clock()
        if delay <= 0 and kind == "liveness":
            delay = period * random.random()  # after an agent's restart not all at once
        while True:
            await asyncio.sleep(max(delay, 0))
            tally = await self._once(kind, probe, target, tally)
            if kind == "startup" and tally.verdict is not None:
                if not tally.verdict:
                    await asyncio.Event().wait()
                return
            delay = period

    async def _once(self, kind: Kind, probe: Probe, target: Target, before: Count) -> Count:
        timeout = max(probe.timeoutSeconds, 1)
        try:
            await self._handlers.run(probe, target.container, target.container_id, target.ip, timeout=timeout)
        except HandlerFailed as error:
            self._report(target.container, f"{kind.capitalize()} probe failed: {error}")
            after = count(probe, before, False)
        else:
            after = count(probe, before, True)
        if after.verdict != before.verdict:
            self._apply(kind, probe, target.container_id, after.verdict)
        return after

    def _apply(self, kind: Kind, probe: Probe, container_id: str, verdict: bool | None) -> None:
        match kind, verdict:
            case "startup", True:
                self.verdicts.started.add(container_id)
            case "readiness", True:
                self.verdicts.ready.add(container_id)
            case "readiness", _:
                self.verdicts.ready.discard(container_id)
            case _, False:
                grace = probe.terminationGracePeriodSeconds
                self.verdicts.unhealthy[container_id] = Unhealthy(f"failed {kind} probe", grace)
        self._changed()
