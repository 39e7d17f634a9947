"""A real API server in memory with a scheduler at work on it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from scheduler_world import World

from minik8s.aio import background
from minik8s.api.errors import ServiceUnavailable
from minik8s.api.kinds.namespace import Namespace
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import User
from minik8s.apiserver.handler import AllowAll
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.scheduler.scheduler import Scheduler
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache

ADMIN = User("admin", ("system:masters", "system:authenticated"))


class FaultyTransport:
    """Passes requests on, but for those whose path ends with a key of `faults`, as often as it says."""

    def __init__(self, inner: LoopbackTransport) -> None:
        self._inner = inner
        self.faults: dict[str, int] = {}
        self.requests: list[tuple[str, str]] = []

    async def request(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes = b"",
                      content_type: str = "application/json") -> bytes:  # fmt: skip
        self.requests.append((method, path))
        for end, left in self.faults.items():
            if path.endswith(end) and left:
                self.faults[end] = left - 1
                raise ServiceUnavailable("the test says no")
        return await self._inner.request(method, path, query=query, body=body, content_type=content_type)

    def stream(
        self, path: str, *, query: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[bytes]]]:
        return self._inner.stream(path, query=query)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with MemoryStore() as store, WatchCache(store) as cache:
        handler = build_handler(cache, authenticator=None, authorizer=AllowAll())
        people, transport = (
            Client(LoopbackTransport(handler, ADMIN)),
            FaultyTransport(LoopbackTransport(handler, ADMIN)),
        )
        for name in ("default", "kube-system"):
            await people.create(Namespace, {"metadata": {"name": name}})
        client = Client(transport)
        informers: Any = Informers(client)
        scheduler = Scheduler(client, informers, chance=random.Random(1))
        world = World(people, informers, scheduler, transport)
        async with background(informers.run(), scheduler.run()):
            yield world
