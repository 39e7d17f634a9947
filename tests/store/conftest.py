"""Stores to test: a factory opens the same data again and again; etcd is Debian's server, started once."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from minik8s.store.base import Store
from minik8s.store.memory import MemoryStore
from minik8s.store.sqlite import SqliteStore

Factory = Callable[..., Store]


class EtcdServer:
    """An etcd on loopback that can be killed and started again on the same data and port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.peer_port = _free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.peer_port}"
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [
                "etcd", "--name=test", f"--data-dir={self.folder / 'data'}",
                f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=test={peer}",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        pytest.fail("etcd does not start:\n" + (self.folder / "log").read_text()[-2000:])

    @staticmethod
    def spare_port() -> int:
        return _free_ports(1)[0]

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="session")
def etcd_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    if shutil.which("etcd") is None:
        pytest.skip("no etcd server binary (Debian: etcd-server)")
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
