"""The shell of the scheduler: take the next pod, decide, assume, and let the writing happen beside the deciding.

Deciding takes microseconds, writing milliseconds, so decisions run ahead of up to `WRITERS` writes on their way; each
decision counts with all that came before it. A write that fails takes its assumption back and the pod is tried again.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Awaitable, Callable

from minik8s.aio import wait_any
from minik8s.api.errors import Conflict, NotFound, StatusError
from minik8s.api.kinds.pod import Pod
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, system_clock
from minik8s.log import get_logger
from minik8s.scheduler import metrics, preemption
from minik8s.scheduler.cache import Cache
from minik8s.scheduler.cycle import Decision, Refusals, fit_message, node_details
from minik8s.scheduler.model import PodInfo
from minik8s.scheduler.preemption import Preemption
from minik8s.scheduler.queue import SchedulingQueue
from minik8s.scheduler.ranking import Rankings
from minik8s.scheduler.settings import Settings
from minik8s.scheduler.telling import GATED, Telling, victims_of
from minik8s.scheduler.usage import ReadUsage, from_api
from minik8s.scheduler.watching import Watching

NAME = "default-scheduler"
WRITERS = 64  # writes on their way at once
EVENT_WRITERS = 16  # each binding makes an event; few at a time they would fall behind and be dropped
LONGEST_TURN = 0.005  # seconds of deciding before others get the loop
USAGE_PERIOD = 3.0  # seconds between looks at live utilisation, while a strategy goes by it
EVENT_AGAIN = 300.0  # seconds after which an unchanged FailedScheduling is told again
log = get_logger("scheduler")


class Scheduler:
    """`run()` is eternal. `chance` breaks ties and drives the random strategy; `usage` feeds min-cpu and min-mem."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        *,
        usage: ReadUsage | None = None,
        chance: random.Random | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self.cache = Cache()
        self.queue = SchedulingQueue()
        metrics.show_queue(self.queue)
        self._recorder = Recorder(client, NAME, clock=clock)
        self._tell = Telling(client, self._recorder, clock, name=NAME)
        self._settings = Settings(informers, self._recorder)
        self._rankings = Rankings(self.cache.snapshot, chance or random.Random())
        self._usage = usage or from_api(client.transport)
        self._writes: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(WRITERS)
        self._gated: dict[str, Pod] = {}
        self._told: dict[str, tuple[str, float]] = {}  # uid -> the last event's message and when
        self._wake = asyncio.Event()
        self._watching = Watching(
            informers, self.cache, self.queue,
            scheduler_name=NAME, wake=self._wake.set, gated=self._note_gated,
        )  # fmt: skip

    async def run(self) -> None:
        await self._watching.synced()
        await self._settings.informer.synced()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._recorder.run(writers=EVENT_WRITERS), name="scheduler events")
            tasks.create_task(self._follow_usage(), name="scheduler usage")
            for number in range(WRITERS):
                tasks.create_task(self._write(), name=f"scheduler writer {number}")
            await self._decide()

    # -- deciding

    async def _decide(self) -> None:
        now = asyncio.get_running_loop().time
        turn = now()
        while True:
            for pod in self._take_gated():
                await self._writes.put(functools.partial(self._tell.not_scheduled, pod, "SchedulingGated", GATED))
            key = self.queue.pop(now())
            if key is None:
                await self._something_to_do()
                turn = now()
                continue
            await self._attempt(key)
            if now() - turn > LONGEST_TURN:
                await asyncio.sleep(0)
                turn = now()

    async def _something_to_do(self) -> None:
        due = self.queue.next_due()
        try:
            async with asyncio.timeout_at(due):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _attempt(self, key: str) -> None:
        pod = self._watching.pods.by_key(key)
        if pod is None or not self._watching.wants(pod):
            self.queue.remove(key)
            return
        info = self.cache.info(pod)
        started = time.perf_counter()
        decision = self._rankings.schedule(info, self._settings.strategy)
        result = "scheduled" if decision.node else "unschedulable"
        metrics.attempted(result, time.perf_counter() - started)
        if decision.node:
            self.cache.assume(info, decision.node)
            await self._writes.put(functools.partial(self._bind, pod, info))
        else:
            await self._cannot(pod, info, decision)

    async def _cannot(self, pod: Pod, info: PodInfo, decision: Decision) -> None:
        """No node fits: make room if that helps, tell why, and set the pod aside."""
        snapshot = self.cache.snapshot
        plan = preemption.plan(info, snapshot, decision.refused, nominated=pod.status.nominatedNodeName)
        if plan.node:
            snapshot.nominate(info, plan.node)
        else:
            snapshot.forget_nomination(info.key)
        self.queue.failed(info.key, decision.plugins, asyncio.get_running_loop().time())
        message = fit_message(decision.refused, len(snapshot.nodes))
        if plan.message and snapshot.nodes:
            message += f" preemption: {plan.message}"
        await self._writes.put(functools.partial(self._unschedulable, pod, message, decision.refused, plan))

    # -- writing

    async def _write(self) -> None:
        while True:
            write = await self._writes.get()
            try:
                await write()
            except StatusError as error:
                # The pod's own write has already seen to its pod; what is left is a condition that says less.
                log.warning(
                    "write failed", error=str(error), remedy="nothing: the pod is looked at again when anything changes"
                )

    async def _bind(self, pod: Pod, info: PodInfo) -> None:
        try:
            await self._tell.bind(pod, info.node)
        except StatusError as error:
            metrics.attempted("error", 0.0)
            self.cache.forget(info)
            if self._is_current(pod):
                self.queue.retry(info.key, asyncio.get_running_loop().time())
                self._wake.set()
            if isinstance(error, NotFound | Conflict):
                log.debug("binding refused", pod=info.key, node=info.node, error=str(error))
            else:
                log.warning(
                    "binding failed",
                    pod=info.key,
                    node=info.node,
                    error=str(error),
                    remedy="nothing, if the API server answers again: the pod is tried again",
                )
                self._tell.failed(pod, f"binding to {info.node} failed: {error}")
            return
        if self._is_current(pod):
            self.queue.remove(info.key)
        self._told.pop(info.uid, None)

    async def _unschedulable(self, pod: Pod, message: str, refused: Refusals, plan: Preemption) -> None:
        latest = self._watching.pods.by_key(pod.key)
        if latest is None or not self._is_current(pod):
            self._told.pop(pod.metadata.uid, None)
            return
        if self._is_news(pod, message):
            self._tell.failed(pod, f"{message} [{node_details(refused)}]" if refused else message)
        try:
            await self._tell.not_scheduled(latest, "Unschedulable", message, nominated=plan.node)
            known = (self._watching.pods.by_key(victim.key) for victim in victims_of(plan))
            await self._tell.preempt(pod, plan, [victim for victim in known if victim is not None])
        except StatusError:
            self.queue.retry(pod.key, asyncio.get_running_loop().time())
            self._wake.set()
            raise

    def _is_current(self, pod: Pod) -> bool:
        """Whether the pod is still there, and no other has taken its name while we were writing."""
        latest = self._watching.pods.by_key(pod.key)
        return latest is not None and latest.metadata.uid == pod.metadata.uid

    def _is_news(self, pod: Pod, message: str) -> bool:
        """The same again and again helps nobody; told every few minutes it outlives the event's own life."""
        now = asyncio.get_running_loop().time()
        last, at = self._told.get(pod.metadata.uid, ("", 0.0))
        if last == message and now - at < EVENT_AGAIN:
            return False
        self._told[pod.metadata.uid] = (message, now)
        return True

    def _note_gated(self, pod: Pod) -> None:
        self._gated[pod.key] = pod
        self._wake.set()

    def _take_gated(self) -> list[Pod]:
        gated, self._gated = list(self._gated.values()), {}
        return gated

    async def _follow_usage(self) -> None:
        """Measured utilisation while it matters, none otherwise: what nobody refreshes would mislead."""
        changed = self._settings.changed
        while True:
            changed.clear()
            live = self._settings.strategy.live
            usage = await self._usage() if live else {}
            for node in self._watching.nodes.list():
                self.cache.snapshot.set_usage(node.metadata.name, usage.get(node.metadata.name))
            await wait_any(changed, timeout=USAGE_PERIOD if live else None)
