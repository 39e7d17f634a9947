"""One pod's worker: looks, plans, performs, reports. The pure planner decides; this is its hands.

`sync` is called by one task at a time. What takes long (pulls, starts, stops) runs in tasks that the worker owns and
that it cancels when the plan changes; each ends by asking for another look, so nothing waits for a timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from minik8s.api.errors import Conflict, NotFound, StatusError
from minik8s.api.kinds.pod import Container, Pod
from minik8s.client.base import STRATEGIC_MERGE_PATCH
from minik8s.kubelet import metrics
from minik8s.kubelet.actions import EXPECTED, Actions
from minik8s.kubelet.kit import Kit
from minik8s.kubelet.plan import Action, CreateSandbox, Finish, Plan, StartContainer, StopContainer, outcome, plan_pod
from minik8s.kubelet.pod_containers import PodContainers
from minik8s.kubelet.probes import PodProbes, Target
from minik8s.kubelet.status import Json, known_status, pod_status, status_patch, termination_message
from minik8s.kubelet.view import PodMemory, PodView, view
from minik8s.log import get_logger
from minik8s.runtime.base import ContainerInfo, RuntimeEvent, RuntimeFailure

REPORT_RETRY = 2.0  # seconds after a status that could not be written
QUIET = 1.0  # seconds in which a pod that is being started tells nothing: most are up by then, and one write tells all
log = get_logger("kubelet")


class PodWorker:
    """`fresh`: the pod was made while this agent was there to see it, so the engine has nothing of it yet."""

    def __init__(self, kit: Kit, pod: Pod, wake: Callable[[], None], *, fresh: bool = False) -> None:
        self.kit = kit
        self.pod = pod  # the newest from the API
        self.finished = False  # nothing of it is left here, and the API knows
        self._wake = wake
        self.containers = PodContainers(kit.runtime, pod.metadata.uid, fresh=fresh)
        self._starting_since = time.perf_counter() if fresh else 0.0  # 0 = it runs, or its start was not seen
        self._told: Json | None = None  # the status that the API has from us
        self._flight: dict[str, asyncio.Task[None]] = {}
        self._deadlines: dict[str, float] = {}
        self._patient = True  # the pod is new: it may be told of a moment later
        self._patience: asyncio.TimerHandle | None = None
        self.memory = PodMemory(start_time=kit.clock(), stop_deadlines=self._deadlines)
        self._probes = PodProbes(kit.handlers, kit.clock, wake, self._unhealthy)
        self._messages: dict[str, str] = {}
        self._recall()
        self.actions = Actions(kit, self, self.memory)

    def _recall(self) -> None:
        """Take from the pod's status what a worker before us had found out by probing."""
        verdicts = self._probes.verdicts
        self.memory.started, self.memory.ready = verdicts.started, verdicts.ready
        self.memory.unhealthy, self.memory.messages = verdicts.unhealthy, self._messages
        for status in (*self.pod.status.initContainerStatuses, *self.pod.status.containerStatuses):
            container_id = status.containerID.partition("://")[2]
            if container_id and status.started:
                verdicts.started.add(container_id)
            if container_id and status.ready:
                verdicts.ready.add(container_id)

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid

    @property
    def starting(self) -> bool:
        """Something is being made for it, after which it will be looked at."""
        return any(key == "sandbox" or key.startswith("start:") for key in self._busy())

    def is_news(self, event: RuntimeEvent) -> bool:
        """Whether an event of the engine asks for a look: not if one comes anyhow when what we do is done."""
        news = self.containers.is_news(event)
        ours = event.action in ("create", "start") and self.starting
        return news and not ours and f"remove:{event.container_id}" not in self._busy()

    def retry_now(self) -> None:
        """Something that failed for lack of an object may succeed now."""
        self.memory.failures = {}
        self._wake()

    # -- one look

    async def sync(self) -> float | None:
        """Look, plan, act, report; returns seconds after which to look again. EngineUnavailable."""
        self._reap()
        if self.finished:
            return None
        self.memory.busy = frozenset(self._flight)
        seen = await self._look()
        now = self.kit.clock()
        # What was being done when the list was asked for may be missing in it, though it is done now.
        self.memory.busy |= frozenset(self._flight)
        self.memory.hashes = self.kit.specs.hashes(self.pod)
        pod = self._pod_as_told()
        sight = view(pod, seen)
        await self._read_messages(sight)
        self.memory.ended = outcome(pod, sight, now, self.memory)
        over = pod.deleting or self.memory.gone or self.memory.ended is not None
        if over and not self.memory.stopping_since:
            self.memory.stopping_since = now
        plan = plan_pod(pod, seen, now, self.memory)
        await self._carry_out(plan)
        self._watch(pod, sight)
        again = await self._report(pod, seen, now)
        waits = [wait for wait in (plan.requeue_after, again) if wait is not None]
        return min(waits) if waits else None

    async def _look(self) -> list[ContainerInfo]:
        seen = await self.containers.look()
        if not (seen or self._flight) and (self.pod.deleting or self.memory.gone):
            seen = await self.containers.look(thorough=True)  # before the pod is called gone
        news = [event for event in self.containers.meanwhile() if self.is_news(event)]
        if news:
            self._wake()
        return seen

    def _pod_as_told(self) -> Pod:
        return msgspec.structs.replace(self.pod, status=known_status(self.pod.status, self._told))

    def _reap(self) -> None:
        for key in [key for key, task in self._flight.items() if task.done()]:
            task = self._flight.pop(key)
            self._deadlines.pop(key.removeprefix("stop:"), None)
            if not task.cancelled():
                task.result()  # a fault of the program is told by the queue's worker, which catches it

    async def _carry_out(self, plan: Plan) -> None:
        if plan.abandon:
            await self._cancel([key for key in self._flight if key == "sandbox" or key.startswith("start:")])
        for action in plan.actions:
            if action.key in self._flight:  # only a stop that becomes shorter
                await self._cancel([action.key])
            if isinstance(action, StopContainer):
                self._deadlines[action.id] = action.deadline
            self._flight[action.key] = asyncio.create_task(self._perform(action), name=f"{self.uid} {action.key}")

    async def _cancel(self, keys: list[str]) -> None:
        tasks = [self._flight.pop(key) for key in keys]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _perform(self, action: Action) -> None:
        """Do it; what may go wrong becomes a failure that is tried again later and shown in the status."""
        name = action.name if isinstance(action, StartContainer) else ""
        started = time.perf_counter()
        try:
            await self.actions.perform(action)
            metrics.OPERATIONS.labels(type(action).__name__).observe(time.perf_counter() - started)
        except asyncio.CancelledError:
            self.containers.unsure()  # the engine may go on with it
            raise
        except EXPECTED as error:
            self.containers.unsure()
            metrics.ERRORS.labels(type(action).__name__).inc()
            if isinstance(action, CreateSandbox | StartContainer):
                self.actions.failed(name, error)
            else:
                log.warning(
                    "will try again",
                    pod=self.pod.key,
                    action=action.key,
                    error=str(error),
                    remedy="'minik8s describe pod' tells more; see that the Docker Engine answers ('minik8s doctor')",
                )
                await asyncio.sleep(REPORT_RETRY)  # still busy with it, so not planned again at once
        else:
            if isinstance(action, CreateSandbox | StartContainer):
                self.memory.failures = {key: f for key, f in self.memory.failures.items() if key != name}
            if isinstance(action, Finish):
                self.finished = True
        finally:
            # After this task is done: then it is no longer in the way of the next look.
            asyncio.get_running_loop().call_soon(self._wake_after, action.key)

    def _wake_after(self, key: str) -> None:
        """A sandbox whose containers are being started is no news, nor is the first of several to be removed."""
        followed_by = "start:" if key == "sandbox" else "remove:" if key.startswith("remove:") else ""
        if not followed_by or not any(key.startswith(followed_by) for key in self._busy()):
            self._wake()

    def _busy(self) -> frozenset[str]:
        return frozenset(key for key, task in self._flight.items() if not task.done())

    # -- probes and messages

    def _watch(self, pod: Pod, sight: PodView) -> None:
        targets = {}
        stopping = pod.deleting or self.memory.gone
        for record in sight.records:
            info, spec = record.current, record.spec
            probed = spec.livenessProbe or spec.readinessProbe or spec.startupProbe
            if info is None or not record.running or not probed or stopping or f"start:{spec.name}" in self._flight:
                continue
            ip = self.kit.settings.node_ip if pod.spec.hostNetwork else self.memory.ip
            if ip or pod.spec.hostNetwork:
                targets[info.id] = Target(spec, info.id, ip, info.started_at)
        self._probes.watch(targets)

    def _unhealthy(self, container: Container, message: str) -> None:
        self.actions.event("Warning", "Unhealthy", message, container)

    async def _read_messages(self, sight: PodView) -> None:
        """Fetch termination messages once each, while their files are there."""
        for record in sight.records:
            for info in (record.current, record.previous):
                if info is not None and info.state == "exited" and info.id not in self._messages:
                    remembered = info is record.current and record.remembered
                    self._messages[info.id] = "" if remembered else await self._message(record.spec, info)

    async def _message(self, spec: Container, info: ContainerInfo) -> str:
        volumes = self.kit.volumes
        if volumes is None:
            return ""
        file = await volumes.read_termination_log(self.uid, spec.name, info.attempt)
        failed = info.exit_code != 0
        lines = b""
        if failed and not file and spec.terminationMessagePolicy == "FallbackToLogsOnError":
            try:
                async with self.kit.runtime.logs(info.id, tail=80) as stream:
                    lines = b"".join([line.data async for line in stream])
            except RuntimeFailure:
                lines = b""
        return termination_message(spec.terminationMessagePolicy, file, lines, failed=failed)

    # -- status

    async def _report(self, pod: Pod, seen: list[ContainerInfo], now: float) -> float | None:
        if self.memory.gone or self.finished:
            return None
        kit = self.kit
        self.memory.busy = frozenset(self._flight)
        status = pod_status(
            pod, seen, now, self.memory, host_ip=kit.settings.node_ip, qos=kit.specs.qos(pod), engine=kit.engine
        )
        if self._told is None and msgspec.convert(status, type(pod.status)) == pod.status:
            self._told = status
        before = self._told if self._told is not None else msgspec.to_builtins(pod.status)
        patch = status_patch(before, status)
        if not patch or self._is_early(status):
            return None
        self._end_patience()
        if self._starting_since and status["phase"] == "Running":
            metrics.POD_START.observe(time.perf_counter() - self._starting_since)
            self._starting_since = 0.0
        self.actions.tell_crash_loops(before, status)
        document = {"metadata": {"uid": self.uid}, "status": patch}
        meta = pod.metadata
        try:
            await kit.client.patch(
                Pod, meta.name, meta.namespace, document, subresource="status", content_type=STRATEGIC_MERGE_PATCH
            )
        except (NotFound, Conflict):
            return None  # this pod is no more, or another has its name: its own event tells us soon
        except StatusError as error:
            log.debug("status not written", pod=pod.key, error=str(error))
            return REPORT_RETRY
        self._told = status
        return None

    def _is_early(self, status: Json) -> bool:
        """Whether all there is to tell is that a pod is being started, and has been for a moment only."""
        if not (self._patient and self.starting and status["phase"] == "Pending") or self.memory.failures:
            return False
        if self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(QUIET, self._lose_patience)
        return not self.pod.deleting

    def _lose_patience(self) -> None:
        self._end_patience()
        self._wake()

    def _end_patience(self) -> None:
        self._patient = False
        if self._patience is not None:
            self._patience.cancel()

    async def close(self) -> None:
        """Let go of everything that runs here on behalf of the pod; the pod itself goes on."""
        self._end_patience()
        await self._cancel(list(self._flight))
        await self._probes.close()
