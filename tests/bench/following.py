"""Copies of what is in the API, kept fresh by watches, on which a measure waits without polling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import Object, is_true
from minik8s.client.informer import Informer, Informers
from tests.bench.agent import Agent, BenchError

T = TypeVar("T", bound=Object)
PATIENCE = 120.0  # seconds
LOOK = 1.0  # seconds between looks whether the agents still live


class Followed:
    """Use it as `async with follow(agent, Pod, Node) as seen`."""

    def __init__(self, informers: Informers, kinds: tuple[type[Any], ...], agents: Sequence[Agent]) -> None:
        self.client = informers.client
        self._agents = agents
        self._copies: dict[type[Any], Informer[Any]] = {kind: informers.of(kind) for kind in kinds}
        self._changed = asyncio.Event()
        for copy in self._copies.values():
            copy.on_change(lambda old, new: self._changed.set())

    def list(self, kind: type[T]) -> list[T]:
        return self._copies[kind].list()

    def get(self, kind: type[T], namespace: str | None, name: str) -> T | None:
        found: T | None = self._copies[kind].get(namespace, name)
        return found

    async def until(self, holds: Callable[[], bool], what: str) -> float:
        """Wait until `holds()`; when that was seen. Raises BenchError after a while, or if an agent ends."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._changed.wait()
            if time.monotonic() > deadline:
                raise BenchError(f"waited {PATIENCE:.0f} s for {what}")
            for running in self._agents:
                if running.process.poll() is not None:
                    raise BenchError(f"an agent ended while {what} was waited for:\n{running.log[-2000:]}")
        return time.perf_counter()


@asynccontextmanager
async def follow(master: Agent, *kinds: type[Any], others: Sequence[Agent] = ()) -> AsyncIterator[Followed]:
    """`others` are agents that must live as well."""
    async with master.client() as client:
        informers = Informers(client)
        seen = Followed(informers, kinds, (master, *others))
        task = asyncio.create_task(informers.run())
        try:
            await informers.synced()
            yield seen
        finally:
            task.cancel()
            await asyncio.wait([task])


def is_ready(obj: Pod | Node | None) -> bool:
    return obj is not None and is_true(obj.status.conditions, "Ready")
