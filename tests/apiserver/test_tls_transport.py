"""TLS straight on sockets, under asyncio's loop and uvloop: what asyncio promises of a transport, and bad clients."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import ssl
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import uvloop
from tls_harness import Authority

from minik8s.apiserver import tls_listener, tls_transport
from minik8s.apiserver.tls_listener import TlsListener
from minik8s.apiserver.tls_transport import TlsTransport

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture is deprecated")


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return request.param()


class Side(asyncio.Protocol):
    """The server's side of one connection: what it is told."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.came = asyncio.Event()
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()
        self.heard_all = False
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(TlsTransport, transport)

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.came.set()

    def eof_received(self) -> None:
        self.heard_all = True

    def pause_writing(self) -> None:
        self.paused.set()

    def resume_writing(self) -> None:
        self.resumed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


class Place(NamedTuple):
    port: int
    tls: ssl.SSLContext
    sides: asyncio.Queue[Side]

    async def connect(self, *, limit: int = 1024) -> tuple[StreamReader, StreamWriter, Side]:
        """A client that reads no more than it is asked for, and little ahead."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, limit=limit)
        return reader, writer, await asyncio.wait_for(self.sides.get(), 20)

    def bare(self) -> ssl.SSLSocket:
        """A client that blocks."""
        return self.tls.wrap_socket(socket.create_connection(("127.0.0.1", self.port)), server_hostname="localhost")

    async def answers(self) -> None:
        """It serves whoever behaves."""
        reader, writer, side = await self.connect()
        writer.write(b"hello")
        await side.came.wait()
        side.transport.write(side.got.upper())
        assert await reader.readexactly(5) == b"HELLO"
        writer.close()
        assert await side.lost is None
        assert side.heard_all


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place, None]:
    authority = Authority(tmp_path)
    sides: asyncio.Queue[Side] = asyncio.Queue()

    def make() -> Side:
        side = Side()
        sides.put_nowait(side)
        return side

    listener = TlsListener(authority.server_context(), make)
    await listener.listen("127.0.0.1", 0)
    async with asyncio.timeout(60):
        yield Place(listener.sockets[0].getsockname()[1], authority.client_context(), sides)
    listener.close()


async def test_what_it_says_of_itself(place: Place) -> None:
    _, writer, side = await place.connect()
    transport = side.transport
    assert transport.get_extra_info("peername") == writer.get_extra_info("sockname")
    assert transport.get_extra_info("sslcontext") is not None
    assert transport.get_extra_info("nothing of the kind", 1) == 1
    assert not transport.can_write_eof()
    assert (transport.is_closing(), transport.is_reading()) == (False, True)
    transport.abort()
    transport.write(b"nobody hears this")
    transport.close()
    assert (transport.is_closing(), transport.is_reading()) == (True, False)
    assert await side.lost is None
    assert transport.get_extra_info("sslcontext") is None
    writer.transport.abort()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_all_comes_in_order_at_the_readers_speed(place: Place, version: ssl.TLSVersion) -> None:
    place.tls.minimum_version = place.tls.maximum_version = version
    chance = random.Random(1)
    reader, writer, side = await place.connect()
    side.transport.set_write_buffer_limits(high=10_000)
    assert side.transport.get_write_buffer_limits() == (2_500, 10_000)
    sent = bytearray()
    while not side.paused.is_set():
        piece = chance.randbytes(chance.choice((1, 1_000, 16_384, 16_385, 200_000)))
        side.transport.write(memoryview(piece) if len(piece) % 2 else bytearray(piece))
        sent += piece
    assert side.transport.get_write_buffer_size() > 10_000
    assert not side.resumed.is_set()
    assert await reader.readexactly(len(sent)) == sent
    await side.resumed.wait()
    assert side.transport.get_write_buffer_size() == 0
    writer.write(b"still here")
    await side.came.wait()
    writer.transport.abort()
    await side.lost


async def test_nothing_is_read_while_reading_is_paused(place: Place) -> None:
    _, writer, side = await place.connect()
    side.transport.pause_reading()
    side.transport.pause_reading()
    writer.write(b"x" * 100_000)
    await asyncio.sleep(0.05)
    assert not side.got
    side.transport.resume_reading()
    side.transport.resume_reading()
    while len(side.got) < 100_000:
        side.came.clear()
        await side.came.wait()
    writer.transport.abort()
    await side.lost


async def test_who_still_sends_gets_all_that_was_said_before_the_end(place: Place) -> None:
    """Had its words been left lying there, the system would drop ours."""
    with await asyncio.to_thread(place.bare) as client:
        side = await place.sides.get()
        side.transport.pause_reading()
        client.setblocking(False)
        with suppress(ssl.SSLWantWriteError):
            while True:
                client.send(b"x" * 16_384)
        client.setblocking(True)
        side.transport.write(b"y" * 5_000_000)
        side.transport.close()
        assert await asyncio.to_thread(read_all, client) == b"y" * 5_000_000
        assert not side.lost.done()
    assert await side.lost is None


async def test_a_client_of_asyncio_gets_all_too(place: Place) -> None:
    reader, writer, side = await place.connect()
    writer.write(b"x" * 5_000_000)
    await side.came.wait()
    side.transport.pause_reading()
    side.transport.write(b"y" * 5_000_000)
    side.transport.close()
    assert await reader.read(-1) == b"y" * 5_000_000
    assert await side.lost is None
    writer.transport.abort()


async def test_who_does_not_take_the_last_is_given_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_transport, "CLOSE_TIMEOUT", 0.1)
    _, writer, side = await place.connect()
    side.transport.write(b"y" * 20_000_000)
    side.transport.close()
    assert await side.lost is None
    writer.transport.abort()


async def test_a_reset_ends_it(place: Place) -> None:
    for reading in (True, False):
        _, writer, side = await place.connect()
        if not reading:
            side.transport.pause_reading()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        while not side.lost.done():
            side.transport.write(b"x" * 1000)
            await asyncio.sleep(0.001)
        assert isinstance(side.lost.result(), ConnectionError | None)
    await place.answers()


async def test_who_goes_while_told_more_is_no_fault_of_ours(place: Place) -> None:
    for linger in (b"", struct.pack("ii", 1, 0)):
        sock = await asyncio.to_thread(place.bare)
        side = await asyncio.wait_for(place.sides.get(), 20)
        if linger:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        side.transport.write(b"x" * 100_000)
        await asyncio.to_thread(sock.recv, 1000)
        sock.close()
        while not side.lost.done():
            side.transport.write(b"x" * 70_000)
            await asyncio.sleep(0)
        assert isinstance(side.lost.result(), ConnectionError)


async def test_bad_handshakes_harm_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_transport, "HANDSHAKE_TIMEOUT", 0.1)
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, hello, hello + b"\xff" * 600):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(said)
        if said and said[:1] != tls_transport.HANDSHAKE:
            assert await reader.read() == tls_transport.PLAIN
        else:
            with suppress(ConnectionResetError):  # the end came before all was read
                assert len(await reader.read()) < 100  # an alert at most
        writer.close()
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", place.port)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert place.sides.empty()
    monkeypatch.undo()
    await place.answers()


def read_all(sock: ssl.SSLSocket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65_536), b""))


@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(name) for name in os.listdir("/proc/self/fd")) + 8, hard))
    taken: list[int] = []
    try:
        with suppress(OSError):  # there are no more
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in taken:
            os.close(file)


async def test_without_files_it_waits_for_some(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_listener, "PAUSE", 0.01)
    pauses: list[Any] = []
    resume = TlsListener._resume
    monkeypatch.setattr(TlsListener, "_resume", lambda *args: (pauses.append(args), resume(*args)))
    client = socket.socket()
    client.setblocking(False)
    with no_more_files():
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", place.port))
        while not pauses:
            await asyncio.sleep(0.001)
        assert place.sides.empty()
    client.close()
    await place.answers()
