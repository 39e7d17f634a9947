"""SPDY's streams as objects that can be read and written, over any link that carries bytes.

Memory is bounded: when one stream's reader is behind, the link is not read until it has caught up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from minik8s.aio import background
from minik8s.kubelet.streaming.spdy import (
    CANCEL,
    Data,
    Ended,
    Event,
    Opened,
    ProtocolError,
    Reset,
    Spdy,
)
from minik8s.takeover import CHUNK, PING_SECONDS

INBOX = 256 * 1024  # bytes that a stream holds for its reader before the link is left unread
UNACCEPTED = 64  # streams that wait to be accepted before the link is left unread


class Link(Protocol):
    async def read(self) -> bytes:
        """Some bytes; b"" at the end, also when the peer broke off."""

    async def write(self, data: bytes) -> None:
        """Send all of it in order, returning when more may come; ConnectionError if nobody is there."""


class StreamLink:
    """A link over a connection's bare bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        with suppress(ConnectionError):
            return await self._reader.read(CHUNK)
        return b""

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


class Inbox:
    """Bytes that have come for one reader."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ended = False
        self._lost = ""
        self._dropping = False
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def feed(self, data: bytes) -> None:
        if self._dropping or self._ended:
            return
        self._data += data
        self._ready.set()
        if len(self._data) >= INBOX:
            self._room.clear()

    def end(self, lost: str = "") -> None:
        """Nothing more comes; with `lost`, because the connection or stream broke."""
        if not self._ended:
            self._ended, self._lost = True, lost
            self._ready.set()

    def drop(self) -> None:
        """Nobody reads any more: what comes from now on is thrown away."""
        self._dropping = True
        self._data.clear()
        self._room.set()

    async def room(self) -> None:
        await self._room.wait()

    async def read(self) -> bytes:
        """What has come, at least a byte; b"" at the end. ConnectionResetError if it broke."""
        await self._ready.wait()
        data = bytes(self._data)
        self._data.clear()
        self._room.set()
        if not self._ended:
            self._ready.clear()
        if not data and self._lost:
            raise ConnectionResetError(self._lost)
        return data


class SpdyStream:
    """A stream that the peer has opened and we have accepted."""

    def __init__(self, connection: SpdyConnection, id: int, headers: dict[str, str]) -> None:
        self.id = id
        self.headers = headers
        self.inbox = Inbox()
        self._connection = connection

    async def read(self) -> bytes:
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        self._connection.machine.send(self.id, data)
        await self._connection.flush()

    async def close_write(self) -> None:
        self._connection.machine.send(self.id, fin=True)
        await self._connection.flush()

    async def reset(self, status: int = CANCEL) -> None:
        """Give the stream up; its reader learns that too."""
        self.inbox.drop()
        self.inbox.end("the stream was given up")
        self._connection.machine.reset(self.id, status)
        with suppress(ConnectionError):
            await self._connection.flush()


class SpdyConnection:
    """The server's end of a connection."""

    def __init__(self, link: Link) -> None:
        self.machine = Spdy()
        self._link = link
        self._streams: dict[int, SpdyStream] = {}
        self._accepted: asyncio.Queue[SpdyStream] = asyncio.Queue(UNACCEPTED)
        self._closed = asyncio.Event()

    async def accept(self) -> SpdyStream:
        """The next stream that the peer opens. It waits for ever when the peer has gone: see `closed`."""
        return await self._accepted.get()

    async def closed(self) -> None:
        """Return when the peer has gone."""
        await self._closed.wait()

    async def flush(self) -> None:
        out = self.machine.take()
        if out:
            await self._link.write(out)

    async def run(self) -> None:
        """Read until the peer goes, then end all streams."""
        why = "the client has gone"
        try:
            while data := await self._link.read():
                for event in self.machine.receive(data):
                    await self._take(event)
                await self.flush()
        except ProtocolError as error:
            why = str(error)
            self.machine.go_away()
            with suppress(ConnectionError):
                await self.flush()
        except ConnectionError:
            pass
        finally:
            self._closed.set()
            for stream in self._streams.values():
                stream.inbox.end(why)

    async def ping(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            self.machine.ping()
            with suppress(ConnectionError):
                await self.flush()

    async def _take(self, event: Event) -> None:
        """Streams are known here until their peer's half has ended: what is read late must still find them."""
        match event:
            case Opened(id, headers):
                # Replied to at once: the peer's library drops data that comes before the reply.
                self.machine.reply(id)
                stream = self._streams[id] = SpdyStream(self, id, headers)
                await self._accepted.put(stream)
            case Data(id, data) if id in self._streams:
                inbox = self._streams[id].inbox
                inbox.feed(data)
                await inbox.room()
            case Ended(id) if id in self._streams:
                self._streams.pop(id).inbox.end()
            case Reset(id) if id in self._streams:
                self._streams.pop(id).inbox.end("the client has reset the stream")
            case _:
                pass  # GoneAway: the client closes the connection itself when its streams are done


@asynccontextmanager
async def spdy_connection(link: Link) -> AsyncIterator[SpdyConnection]:
    """A connection that is served as long as the body runs."""
    connection = SpdyConnection(link)
    async with background(connection.run(), connection.ping()):
        yield connection
