"""Docker's raw streams: an upgraded connection for exec and attach, and the frames that carry stdout beside stderr.

An upgraded connection needs what HTTP clients hide: to close stdin alone while output still flows (that is how
`kubectl cp` ends). So it is opened here by hand on the engine's own socket. A frame is eight bytes of header, stream
number first and length last, then data; with a terminal there are no frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from minik8s.runtime.base import LogLine

_CHUNK = 64 << 10
_HEADER = 8
_LINGER = 1.0  # seconds


class Address(NamedTuple):
    """Where the engine listens: a path, or host and port."""

    path: str
    host: str = ""
    port: int = 0

    @property
    def url(self) -> str:
        """The base for HTTP requests."""
        return "http://localhost" if self.path else f"http://{self.host}:{self.port}"


def parse_address(docker_host: str) -> Address:
    """`unix:///var/run/docker.sock` or `tcp://127.0.0.1:2375`; ValueError for others."""
    url = urlsplit(docker_host)
    if url.scheme == "unix" and url.path:
        return Address(url.path)
    if url.scheme == "tcp" and url.hostname:
        return Address("", url.hostname, url.port or 2375)
    raise ValueError(f"--docker-host {docker_host!r}: write unix:///path/of/docker.sock or tcp://host:port")


class Refused(Exception):
    """The engine answered an upgrade with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class RawStreams:
    """An upgraded connection; see `base.Streams`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        framed: bool,
        resize: Callable[[int, int], Awaitable[None]],
        exit_code: Callable[[], Awaitable[int | None]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._framed = framed
        self._resize = resize
        self._exit_code = exit_code
        self._stream = 1
        self._left = 0  # bytes of the current frame still to come

    async def read(self) -> tuple[int, bytes] | None:
        try:
            if not self._framed:
                data = await self._reader.read(_CHUNK)
                return (1, data) if data else None
            while not self._left:
                header = await self._reader.readexactly(_HEADER)
                self._stream, self._left = header[0] or 1, int.from_bytes(header[4:], "big")
            data = await self._reader.read(min(self._left, _CHUNK))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self._left -= len(data)
        return (self._stream, data) if data else None

    async def write(self, data: bytes) -> None:
        # The process may have ended while its input was still on the way: that is no error, read() tells the end.
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def resize(self, width: int, height: int) -> None:
        await self._resize(width, height)

    async def exit_code(self) -> int | None:
        return await self._exit_code()


async def upgrade(address: Address, path: str, body: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """POST `path` and take over the connection. Refused for an error answer, OSError if there is no engine."""
    if address.path:
        reader, writer = await asyncio.open_unix_connection(address.path, limit=_CHUNK)
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=_CHUNK)
    content = json.dumps(body).encode()
    try:
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        status, length = await _answer(reader)
        if status not in (101, 200):
            raise Refused(status, _message(await reader.readexactly(length) if length else await reader.read(_CHUNK)))
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def _answer(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Status and Content-Length (0 if there is none) of an answer whose body comes next."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the engine closed the connection") from error
    status, *headers = head.decode("latin-1").split("\r\n")
    sizes = [line.split(":", 1)[1] for line in headers if line.lower().startswith("content-length:")]
    return int(status.split(" ", 2)[1]), int(sizes[0]) if sizes else 0


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


async def close(writer: asyncio.StreamWriter) -> None:
    """Close, giving what was written a moment to be taken: a process that reads nothing must not hold us."""
    writer.close()
    with contextlib.suppress(OSError):  # TimeoutError is one
        async with asyncio.timeout(_LINGER):
            await writer.wait_closed()
    writer.transport.abort()


async def json_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """Objects of a stream that has one a line; what a broken end leaves is dropped."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)


async def log_lines(chunks: AsyncIterator[bytes], *, framed: bool, timestamps: bool) -> AsyncIterator[LogLine]:
    """Lines of a container's log as it arrives.

    The engine cuts lines after 16 KiB and stamps every piece: only a line's first piece keeps its time.
    """
    pieces = _frames(chunks) if framed else _lines(chunks)
    open_line: dict[int, bool] = {}
    async for stream, data in pieces:
        piece = data.split(b" ", 1)[-1] if timestamps and open_line.get(stream) else data
        open_line[stream] = not data.endswith(b"\n")
        yield LogLine(stream, piece)


async def _frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        at = 0
        while len(buffer) - at >= _HEADER:
            end = at + _HEADER + int.from_bytes(buffer[at + 4 : at + _HEADER], "big")
            if len(buffer) < end:
                break
            yield buffer[at] or 1, bytes(buffer[at + _HEADER : end])
            at = end
        del buffer[:at]


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield 1, line + b"\n"
    if rest:
        yield 1, rest
