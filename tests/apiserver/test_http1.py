"""HTTP/1.1 as bytes on real sockets: framing, order, limits, patience; on asyncio's loop and uvloop, plain and TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvloop
from tls_harness import Authority

from minik8s.apiserver import http1, http_writer
from minik8s.apiserver.http_request import Request
from minik8s.apiserver.http_server import Server, listening
from minik8s.apiserver.request import ApiResponse, Frames

GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture is deprecated")
PART = b"GET / HTTP/1.1\r\nHo"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return request.param()


class Echo:
    """Answers with what it was asked; `/wait` when it is let, `/big` with much, `/stream` with what is `sent`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.served: list[str] = []

    async def serve(self, request: Request) -> ApiResponse | None:
        self.served.append(request.path)
        self.begun.set()
        if request.path == "/wait":
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if request.path == "/taken":
            async with request.connection.taken_over() as (reader, writer):
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + (await reader.readexactly(5)).upper())
                await writer.drain()
            return None
        if request.path == "/stream":
            return ApiResponse(200, stream=self._stream())
        if request.path == "/big":
            return ApiResponse(200, b"x" * 3_000_000)
        asked = {"method": request.method, "path": request.path, "query": request.query, "body": request.body.decode()}
        return ApiResponse(200, json.dumps({**asked, "headers": request.headers}).encode())

    async def _stream(self) -> Frames:
        try:
            while data := await self.sent.get():
                yield [data]
        finally:
            self.cancelled.set()


class Peer(NamedTuple):
    port: int
    context: ssl.SSLContext | None
    echo: Echo
    server: Server

    @asynccontextmanager
    async def connected(self, *data: bytes) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)
        try:
            for piece in data:
                writer.write(piece)
            async with asyncio.timeout(20):
                yield reader, writer
        finally:
            writer.transport.abort()

    async def say(self, *data: bytes) -> Answer:
        async with self.connected(*data) as (reader, _):
            return await answer(reader)


class Answer(NamedTuple):
    code: int
    headers: dict[str, str]
    body: Any

    @property
    def message(self) -> str:
        """Of a Status, which an error must be."""
        assert (self.body["kind"], self.body["status"], self.body["code"]) == ("Status", "Failure", self.code)
        return str(self.body["message"])


async def answer(reader: StreamReader, *, bodiless: bool = False) -> Answer:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    data = b"" if bodiless else await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(int(first.split()[1]), headers, json.loads(data) if data[:1] == b"{" else data)


@pytest.fixture(params=["plain", "tls"])
async def peer(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Peer, None]:
    monkeypatch.setattr(http1, "LINGER", 0.05)
    authority = Authority(tmp_path) if request.param == "tls" else None
    echo = Echo()
    server = Server(echo.serve)
    context = authority.server_context() if authority else None
    async with listening(server, "127.0.0.1", 0, context) as (_, port):
        yield Peer(port, authority.client_context() if authority else None, echo, server)


async def test_requests_are_answered_in_order_however_they_are_cut(peer: Peer) -> None:
    body = b'{"a": "\xc3\xa9"}'
    data = (
        GET % b"/1?a=b" + POST + b"X-A: 1 \r\nx-a:\t2\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body) + GET % b"/3"
    )
    for size in (len(data), 7, 1):
        async with peer.connected() as (reader, writer):
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                await asyncio.sleep(0)
            first, second, third = [await answer(reader) for _ in range(3)]
        assert (first.body["path"], first.body["query"], third.body["path"]) == ("/1", "a=b", "/3")
        assert second.body["body"] == body.decode()
        assert second.body["headers"]["x-a"] == "1, 2"


async def test_what_is_pipelined_waits_for_its_turn_and_is_read_no_further(peer: Peer) -> None:
    many = 100
    async with peer.connected(GET % b"/wait") as (reader, writer):
        await peer.echo.begun.wait()
        for number in range(many):
            writer.write(GET % b"/%d" % number)
            await asyncio.sleep(0)
        writer.write(b"JUNK\r\n\r\n")
        assert peer.echo.served == ["/wait"]
        peer.echo.go.set()
        paths = [(await answer(reader)).body["path"] for _ in range(many + 1)]
        assert paths == ["/wait", *(f"/{number}" for number in range(many))]
        assert "no HTTP request" in (await answer(reader)).message
        assert await reader.read() == b""


async def test_chunked_bodies(peer: Peer) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    one = await peer.say(head, b"3\r\nabc\r\n", b"2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n")
    assert one.body["body"] == "abcde"
    assert "trailer" not in one.body["headers"]
    drops = b"".join(b"1\r\n%c\r\n" % (97 + n % 26) for n in range(10_000))
    assert len((await peer.say(head + drops + b"0\r\n\r\n")).body["body"]) == 10_000


SMUGGLED = {
    "length and chunks": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": b"Content-Length: +3\r\n\r\nabc",
    "a negative length": b"Content-Length: -3\r\n\r\nabc",
    "an empty length": b"Content-Length:\r\n\r\nabc",
    "a length beyond all": b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "a space before the colon": b"Content-Length : 3\r\n\r\nabc",
    "a folded line": b"Content-Length:\r\n 3\r\n\r\nabc",
    "no CR": b"Content-Length: 3\n\r\nabc",
    "a CR alone": b"X: a\rContent-Length: 3\r\n\r\nabc",
    "a NUL": b"X: a\x00b\r\n\r\n",
    "chunked last but one": b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "packed chunks": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "nearly chunked": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "no size": b"Transfer-Encoding: chunked\r\n\r\n\r\na\r\n0\r\n\r\n",
    "a negative size": b"Transfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n",
    "a size with 0x": b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "a size with a space": b"Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
    "a size beyond all": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na\r\n0\r\n\r\n",
    "a chunk longer than its size": b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "two hosts": b"Host: y\r\n\r\n",
    "an unknown expectation": b"Expect: money\r\nContent-Length: 1\r\n\r\n1",
}


async def test_what_could_be_read_in_two_ways_is_refused_and_ends_the_connection(peer: Peer) -> None:
    for what, data in SMUGGLED.items():
        async with peer.connected(POST + data + GET % b"/smuggled") as (reader, _):
            refused = await answer(reader)
            assert (refused.code, refused.headers["connection"]) == (400, "close"), what
            assert refused.message
            assert await reader.read() == b""
    assert peer.echo.served == []


NO_HTTP = (
    b"\x16\x03\x01\x02\x00\x01\x00\r\n",
    b"\x00\xff\x00\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\n",
    b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
)


async def test_what_is_no_http_is_answered_with_a_status(peer: Peer) -> None:
    for data in NO_HTTP:
        assert (await peer.say(data)).message


async def test_limits(peer: Peer) -> None:
    head = GET[:-2] % b"/"
    assert (await peer.say(head + b"X: %s\r\n\r\n" % (b"a" * 16_000))).code == 200
    for data in (
        head + b"X: %s\r\n\r\n" % (b"a" * 17_000),
        head + b"".join(b"X-%d: a\r\n" % n for n in range(200)) + b"\r\n",
        GET % (b"/" + b"a" * 17_000),
        head + b"X: " + b"a" * 1_000_000,
        b"\r\n" * 100_000,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 1_000_000,
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: " + b"a" * 1_000_000,
    ):
        refused = await peer.say(data)
        assert refused.code == 400
        assert "bytes" in refused.message or "headers" in refused.message
    for data in (b"Content-Length: 9000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n800000\r\n" + b"a" * 0x800000):
        assert "larger than" in (await peer.say(POST + data)).message
    assert (await peer.say(POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab")).code == 415


async def test_continue_is_said_when_it_is_its_turn(peer: Peer) -> None:
    expecting = POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    async with peer.connected(expecting) as (reader, writer):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc" + GET % b"/wait" + expecting)
        assert (await answer(reader)).body["body"] == "abc"
        peer.echo.go.set()
        assert (await answer(reader)).body["path"] == "/wait"
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"def")
        assert (await answer(reader)).body["body"] == "def"
    refused = await peer.say(POST + b"Expect: 100-continue\r\nContent-Length: 30000000\r\n\r\n")
    assert refused.code == 413


async def test_head_and_old_clients(peer: Peer) -> None:
    async with peer.connected(b"HEAD /big HTTP/1.1\r\nHost: x\r\n\r\n" + GET % b"/") as (reader, _):
        assert (await answer(reader, bodiless=True)).headers["content-length"] == "3000000"
        assert (await answer(reader)).code == 200
    async with peer.connected(b"GET / HTTP/1.0\r\n\r\n") as (reader, _):
        assert (await answer(reader)).headers["connection"] == "close"
        assert await reader.read() == b""
    async with peer.connected(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2) as (reader, _):
        assert (await answer(reader)).headers["connection"] == "keep-alive"
        assert (await answer(reader)).code == 200
    async with peer.connected(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n") as (reader, _):
        for data in (b"one\n", b"two\n", b""):
            peer.echo.sent.put_nowait(data)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"chunked" not in head
        assert await reader.read() == b"one\ntwo\n"
    assert (await peer.say(b"GET http://x:80/a?b HTTP/1.1\r\nHost: x\r\n\r\n")).body["path"] == "/a"


async def test_the_connection_ends_when_the_client_wants_it(peer: Peer) -> None:
    wanted = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with peer.connected(wanted + GET % b"/later") as (reader, _):
        assert (await answer(reader)).headers["connection"] == "close"
        assert await reader.read() == b""
    assert peer.echo.served == ["/"]


async def test_large_answers_come_whole_to_a_slow_reader(peer: Peer) -> None:
    async with peer.connected(GET % b"/big" * 3 + GET % b"/") as (reader, _):
        for _ in range(3):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"Content-Length: 3000000\r\n" in head
            assert await reader.readexactly(3_000_000) == b"x" * 3_000_000
        assert (await answer(reader)).code == 200


async def test_streams(peer: Peer) -> None:
    async with peer.connected(GET % b"/stream" + GET % b"/after") as (reader, _):
        peer.echo.sent.put_nowait(b"first\n")
        assert b"Transfer-Encoding: chunked\r\n" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"first\n\r\n") == b"6\r\nfirst\n\r\n"
        peer.echo.sent.put_nowait(b"")
        assert await reader.readexactly(5) == b"0\r\n\r\n"
        assert (await answer(reader)).body["path"] == "/after"


@pytest.mark.parametrize("path", [b"/stream", b"/wait"])
async def test_a_client_that_breaks_off_ends_what_is_done_for_it(peer: Peer, path: bytes) -> None:
    async with peer.connected(GET % path) as (_, writer):
        await peer.echo.begun.wait()
        if path == b"/stream":
            peer.echo.sent.put_nowait(b"first\n")
        writer.transport.abort()
        await peer.echo.cancelled.wait()
    while peer.server.connections:
        await asyncio.sleep(0.001)


async def test_a_client_that_has_said_all_is_answered_unless_it_wanted_a_stream(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if peer.context is not None:
        return  # TLS knows no half of a connection
    monkeypatch.setattr(http1, "LINGER", 20.0)
    async with peer.connected(GET % b"/wait" + GET % b"/2") as (reader, writer):
        await peer.echo.begun.wait()
        writer.write_eof()
        await asyncio.sleep(0.05)
        peer.echo.go.set()
        assert (await answer(reader)).body["path"] == "/wait"
        assert (await answer(reader)).body["path"] == "/2"
        assert await reader.read() == b""
    async with peer.connected(GET % b"/stream") as (reader, writer):
        peer.echo.sent.put_nowait(b"first\n")
        await reader.readuntil(b"first")
        writer.write_eof()
        await peer.echo.cancelled.wait()


async def test_upgrades_hand_the_connection_over_with_all_that_has_come(peer: Peer) -> None:
    asked = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    for pieces in ((b"hello",), (b"he", b"llo")):
        async with peer.connected(asked % b"/taken" + pieces[0]) as (reader, writer):
            for piece in pieces[1:]:
                await peer.echo.begun.wait()
                writer.write(piece)
            assert await reader.read() == b"HTTP/1.1 101 Switching Protocols\r\n\r\nHELLO"
    async with peer.connected(asked % b"/" + b"ignored") as (reader, _):
        assert (await answer(reader)).headers["connection"] == "close"
        assert await reader.read() == b""


async def test_patience_has_an_end(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_TIMEOUT", "BODY_TIMEOUT", "KEEPALIVE"):
        monkeypatch.setattr(http1, name, 0.1)
    for data in (b"", PART):
        async with peer.connected(data) as (reader, _):
            assert await reader.read() == b""
    slow = await peer.say(POST + b"Content-Length: 3\r\n\r\na")
    assert "the body did not come within 0.1 seconds" in slow.message
    async with peer.connected(GET % b"/" + PART) as (reader, _):
        assert (await answer(reader)).code == 200
        assert await reader.read() == b""
    async with peer.connected(GET % b"/wait" + PART) as (reader, _):
        await asyncio.sleep(0.3)  # while a request is answered, nobody is impatient
        peer.echo.go.set()
        assert (await answer(reader)).body["path"] == "/wait"


async def test_who_does_not_read_is_cut_off(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_writer, "WRITE_TIMEOUT", 0.2)
    for path, times in ((b"/big", 10), (b"/stream", 1), (b"/" + b"a" * 10_000, 2000)):
        _, writer = await asyncio.open_connection("127.0.0.1", peer.port, ssl=peer.context, limit=1024)
        peer.echo.begun.clear()
        writer.write((GET % path) * times)
        await peer.echo.begun.wait()
        for _ in range(200):
            peer.echo.sent.put_nowait(b"x" * 100_000)
        async with asyncio.timeout(20):
            while peer.server.connections:
                await asyncio.sleep(0.01)
        writer.transport.abort()


async def test_there_is_room_for_so_many(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "most", 2)
    async with peer.connected(GET % b"/wait") as (busy, _):
        await peer.echo.begun.wait()
        async with peer.connected(GET % b"/") as (idle, _):
            assert (await answer(idle)).code == 200
            async with peer.connected(GET % b"/wait") as (second, _):
                assert await idle.read() == b""  # it made room
                while len(peer.echo.served) < 3:
                    await asyncio.sleep(0.001)
                with pytest.raises((OSError, asyncio.IncompleteReadError)):
                    await peer.say(GET % b"/")  # nobody is idle
                peer.echo.go.set()
                assert (await answer(second)).code == (await answer(busy)).code == 200


async def test_the_server_ends_with_what_is_done(peer: Peer) -> None:
    async with peer.connected(GET % b"/wait") as (waiting, _), peer.connected(GET % b"/stream") as (streaming, _):
        while len(peer.echo.served) < 2:
            await asyncio.sleep(0.001)
        closing = asyncio.create_task(peer.server.close())
        await peer.echo.cancelled.wait()
        peer.echo.go.set()
        await closing
        assert (await answer(waiting)).body["path"] == "/wait"
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await streaming.readexactly(1_000_000)
    assert not peer.server.connections
