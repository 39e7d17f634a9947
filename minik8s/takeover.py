"""Take a connection over from an HTTP server: after `101 Switching Protocols` its bytes are no longer HTTP.

What Kubernetes upgrades to (SPDY), and what a proxy hands on without looking, needs the bare connection, with
backpressure both ways: asyncio's own streams on the same transport.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

CHUNK = 64 * 1024  # bytes read at once; a paused connection holds at most twice as much
# While a connection is not read, because its reader is behind, only what we send shows that the other side has died.
PING_SECONDS = 10.0

T = TypeVar("T")


class _Protocol(asyncio.StreamReaderProtocol):
    """Streams whose loss the HTTP server learns too: it cancels the handler then, and forgets the connection."""

    def __init__(self, reader: asyncio.StreamReader, former: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._former = former

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._former.connection_lost(exc)


@asynccontextmanager
async def taken_over(
    transport: asyncio.Transport | None, former: asyncio.BaseProtocol, early: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The connection of a request, as streams; `former` is the server's protocol on it, `early` what it has read beyond
    the request. Let the server do nothing but close it afterwards. ConnectionResetError if it is gone."""
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    reader = asyncio.StreamReader(CHUNK)
    protocol = _Protocol(reader, former)
    protocol.connection_made(transport)
    if early:
        reader.feed_data(early)
    transport.set_protocol(protocol)
    try:
        yield reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    finally:
        if not transport.is_closing():
            transport.set_protocol(former)


def switching(headers: Mapping[str, str]) -> bytes:
    """The head of an answer that accepts an upgrade."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def wants_upgrade(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for another protocol; names in `headers` are found in lower case."""
    return "upgrade" in headers.get("connection", "").lower() and "upgrade" in headers


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, length: int | None = None) -> None:
    """Copy until the end, or `length` bytes, no faster than the receiver takes it."""
    left = CHUNK if length is None else length
    while left and (data := await reader.read(min(left, CHUNK))):
        writer.write(data)
        await writer.drain()
        left -= 0 if length is None else len(data)


def cause(error: OSError) -> str:
    """Why a connection could not be made, in the system's few words; asyncio's own name the call."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror or str(error)).lower()


async def first_of(*activities: Coroutine[Any, Any, T]) -> T | None:
    """What the first activity to end returns; the others are cancelled. Losing the connection counts as None."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_or_lost(activity)) for activity in activities]
        ended, others = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
    return next(task for task in running if task in ended).result()


async def _or_lost(activity: Coroutine[Any, Any, T]) -> T | None:
    with suppress(ConnectionError):
        return await activity
    return None
