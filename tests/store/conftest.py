"""Stores to test: a factory opens the same data again and again; etcd is Debian's server, started once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from minik8s.store.base import Store
from minik8s.store.memory import MemoryStore
from minik8s.store.sqlite import SqliteStore
from tests.etcd import EtcdServer

Factory = Callable[..., Store]


@pytest.fixture(scope="session")
def etcd_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def etcd(etcd_process: EtcdServer) -> EtcdServer:
    """The session's etcd, running, with nothing under /minik8s/."""
    if etcd_process.process is None:
        etcd_process.start()
    asyncio.run(_wipe(etcd_process.port))
    return etcd_process


async def _wipe(port: int) -> None:
    import aetcd

    async with aetcd.Client("127.0.0.1", port, timeout=20) as client:
        await client.delete_prefix(b"/minik8s/")


@pytest.fixture(params=["memory", "sqlite", pytest.param("etcd", marks=pytest.mark.etcd)])
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Factory:
    """`factory(**options)` makes a store, not yet entered, on this test's data."""
    if request.param == "memory":
        memory: list[MemoryStore] = []

        def make_memory(**options: int) -> Store:
            if not memory:
                memory.append(MemoryStore(**options))
            return memory[0]

        return make_memory
    if request.param == "sqlite":
        return lambda **options: SqliteStore(tmp_path / "state.db", **options)
    from minik8s.store.etcd import EtcdStore

    port = request.getfixturevalue("etcd").port
    return lambda **options: EtcdStore([("127.0.0.1", port)], **options)


@pytest.fixture
async def store(factory: Factory) -> AsyncIterator[Store]:
    async with factory() as store:
        await store.load()
        yield store
