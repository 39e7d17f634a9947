"""A transport to a real API server in memory, whose connections can be cut, refused and told lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

from minik8s.api.errors import ServiceUnavailable, StatusError
from minik8s.api.kinds.namespace import Namespace
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import User
from minik8s.apiserver.handler import AllowAll, Handler
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.client.base import Client
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache

ADMIN = User("admin", ("system:masters", "system:authenticated"))


class Wire:
    """`cut()` breaks all open watches; what is in `refusals` is raised, one by one, instead of opening a watch."""

    def __init__(self, inner: LoopbackTransport) -> None:
        self._inner = inner
        self._cut = asyncio.Event()
        self.refusals: list[StatusError] = []
        self.lists = 0
        self.watched_from: list[str] = []
        self.opened = asyncio.Event()
        self.lies: list[bytes] = []  # frames that the next watch begins with

    def cut(self) -> None:
        self._cut.set()
        self._cut = asyncio.Event()
        self.opened.clear()

    async def request(self, method: str, path: str, **more: Any) -> bytes:
        self.lists += method == "GET"
        return await self._inner.request(method, path, **more)

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[Sequence[bytes]]]:
        self.watched_from.append((query or {})["resourceVersion"])
        if self.refusals:
            raise self.refusals.pop(0)
        async with self._inner.stream(path, query=query) as batches, aclosing(self._until_cut(batches)) as cuttable:
            self.opened.set()
            yield cuttable

    async def _until_cut(self, batches: AsyncIterator[Sequence[bytes]]) -> AsyncIterator[Sequence[bytes]]:
        if self.lies:
            lies, self.lies = self.lies, []
            yield lies
        cut = asyncio.ensure_future(self._cut.wait())
        batch: asyncio.Future[Sequence[bytes]] | None = None
        try:
            while True:
                batch = asyncio.ensure_future(anext(batches))
                await asyncio.wait((batch, cut), return_when=asyncio.FIRST_COMPLETED)
                if cut.done():
                    raise ServiceUnavailable("the connection was cut")
                yield batch.result()
        finally:
            cut.cancel()
            if batch is not None and not batch.done():
                batch.cancel()
                await asyncio.wait([batch])


class Wired(NamedTuple):
    client: Client  # by the wire
    direct: Client  # past it
    wire: Wire
    handler: Handler

    def acting_as(self, user: User) -> Client:
        return Client(LoopbackTransport(self.handler, user))


@asynccontextmanager
async def wired() -> AsyncIterator[Wired]:
    """An API server in memory, with the namespace `default`."""
    async with MemoryStore() as store, WatchCache(store) as cache:
        handler = build_handler(cache, authenticator=None, authorizer=AllowAll())
        wire = Wire(LoopbackTransport(handler, ADMIN))
        direct = Client(LoopbackTransport(handler, ADMIN))
        await direct.create(Namespace, {"metadata": {"name": "default"}})
        yield Wired(Client(wire), direct, wire, handler)
