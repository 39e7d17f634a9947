"""Exec and attach over SPDY: one stream each for stdin, stdout, stderr, terminal sizes, and how it ended.

That is `v4.channel.k8s.io` over `Upgrade: SPDY/3.1`, the way of kubectl up to 1.30 and of Go programs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
from aiohttp import web

from minik8s.aio import background
from minik8s.api.errors import Forbidden
from minik8s.api.resource import Json
from minik8s.kubelet.streaming.multiplex import SpdyConnection, SpdyStream, StreamLink, spdy_connection
from minik8s.kubelet.streaming.session import STDOUT, Streaming, resize
from minik8s.runtime.base import Streams
from minik8s.takeover import switching, taken_over

SPDY = "SPDY/3.1"
PROTOCOL = "v4.channel.k8s.io"
CREATION_SECONDS = 30.0  # for a client to open its streams
LEAVE_SECONDS = 10.0  # for a client to close the connection after the end
MAX_LINE = 1024  # bytes of a terminal size


@asynccontextmanager
async def upgraded(request: web.BaseRequest, protocol: str) -> AsyncIterator[SpdyConnection]:
    """Accept an upgrade to SPDY with the subprotocol that we have. Forbidden if the client does not speak it."""
    offered = [
        name.strip() for line in request.headers.getall("X-Stream-Protocol-Version", []) for name in line.split(",")
    ]
    if protocol not in offered:
        raise Forbidden(f"unable to upgrade: the client speaks {offered}, this server {protocol!r}")
    async with taken_over(request.transport, request.protocol) as (reader, writer):
        writer.write(switching({"Upgrade": SPDY, "X-Stream-Protocol-Version": protocol}))
        async with spdy_connection(StreamLink(reader, writer)) as connection:
            yield connection


class Taken(web.StreamResponse):
    """What a handler returns that has answered by itself: nothing is left but to close the connection."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing: the head was sent by hand."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing: aiohttp closes the connection, as this response does not keep it alive."""


class SpdyChannels:
    """The client's streams, all open."""

    def __init__(self, connection: SpdyConnection, streams: dict[str, SpdyStream]) -> None:
        self._connection = connection
        self._streams = streams

    @classmethod
    async def accept(cls, connection: SpdyConnection, asked: Streaming) -> SpdyChannels | None:
        """Wait for the client to open all that it asked for; None if it does not."""
        wanted = {"error"}
        on = {"stdin": asked.stdin, "stdout": asked.stdout, "stderr": asked.stderr, "resize": asked.tty}
        wanted |= {name for name, is_on in on.items() if is_on}
        streams: dict[str, SpdyStream] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(CREATION_SECONDS):
                while streams.keys() < wanted:
                    stream = await connection.accept()
                    kind = stream.headers.get("streamtype", "")
                    if kind in wanted and kind not in streams:
                        streams[kind] = stream
                    else:
                        await stream.reset()
                return cls(connection, streams)
        return None

    async def feed(self, process: Streams) -> bool:
        async with background(self._stdin(process), self._sizes(process)):
            await self._connection.closed()
        return False

    async def _stdin(self, process: Streams) -> None:
        stream = self._streams.get("stdin")
        if stream is not None:
            with suppress(ConnectionError):
                while data := await stream.read():
                    await process.write(data)
                await process.close_stdin()

    async def _sizes(self, process: Streams) -> None:
        stream = self._streams.get("resize")
        rest = b""
        with suppress(ConnectionError):
            while stream is not None and (data := await stream.read()):
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[:MAX_LINE]
                for line in lines[-1:]:  # of several that have queued up, only the last is still true
                    with suppress(msgspec.DecodeError):
                        await resize(process, msgspec.json.decode(line))

    async def send(self, stream: int, data: bytes) -> None:
        target = self._streams.get("stdout" if stream == STDOUT else "stderr")
        if target is not None:
            await target.write(data)

    async def ping(self) -> bool:
        return await asyncio.Future()  # the connection has pings of its own

    async def finish(self, status: Json) -> None:
        """The client closes the connection: its library drops output that it has not read when we are first."""
        for stream in self._streams.values():
            stream.inbox.drop()
        await self._streams["error"].write(msgspec.json.encode(status))
        for stream in self._streams.values():
            await stream.close_write()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._connection.closed()
