"""From the engine's events and from periodic lists: the uids of pods to look at.

Both only ask for a look; what is true is read when looking. So an event and a list can never contradict each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence

from minik8s.aio import periodic
from minik8s.kubelet.metrics import RELIST
from minik8s.log import get_logger
from minik8s.runtime.base import ContainerInfo, Runtime, RuntimeEvent, RuntimeFailure

log = get_logger("pleg")
Snapshot = dict[str, frozenset[tuple[str, str]]]


def snapshot(seen: Sequence[ContainerInfo]) -> Snapshot:
    """pod uid -> (container id, state) of all its containers."""
    found: dict[str, set[tuple[str, str]]] = {}
    for info in seen:
        found.setdefault(info.pod_uid, set()).add((info.id, info.state))
    return {uid: frozenset(states) for uid, states in found.items()}


def changed(before: Snapshot, after: Snapshot) -> set[str]:
    return {uid for uid in before.keys() | after.keys() if before.get(uid) != after.get(uid)}


class Pleg:
    """`look(uid)` is called for every pod with news; `run()` is eternal.

    `look_anew(uid, ids)` is called where a list of everything differs from the one before; `ids` are the pod's
    containers in it. `is_news(event)` spares looks at what a worker is doing (it looks when that is done) or has seen.
    """

    def __init__(
        self,
        runtime: Runtime,
        look: Callable[[str], None],
        relist_seconds: float,
        *,
        look_anew: Callable[[str, Collection[str]], None] | None = None,
        is_news: Callable[[RuntimeEvent], bool] = lambda event: True,
    ) -> None:
        self._runtime = runtime
        self._look = look
        self._look_anew = look_anew or (lambda uid, listed: look(uid))
        self._is_news = is_news
        self._interval = relist_seconds
        self._known: Snapshot = {}
        self._relist_now = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="engine events")
            tasks.create_task(self._on_demand(), name="engine relist on demand")
            tasks.create_task(periodic(self._interval, self.relist), name="engine relist")

    async def _follow(self) -> None:
        async with self._runtime.events() as events:
            async for event in events:
                if not event.pod_uid:
                    self._relist_now.set()
                elif self._is_news(event):
                    self._look(event.pod_uid)

    async def _on_demand(self) -> None:
        while True:
            await self._relist_now.wait()
            self._relist_now.clear()
            await self.relist()

    async def relist(self) -> None:
        started = time.perf_counter()
        try:
            fresh = snapshot(await self._runtime.containers())
        except RuntimeFailure as error:
            log.debug("list failed", error=str(error))
            return
        RELIST.observe(time.perf_counter() - started)
        for uid in changed(self._known, fresh):
            self._look_anew(uid, [container_id for container_id, _ in fresh.get(uid, ())])
        self._known = fresh
