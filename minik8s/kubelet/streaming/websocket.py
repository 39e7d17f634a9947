"""Channels over a WebSocket: each message begins with its channel's number.

The base64 variants are text messages for browsers: a digit, then base64. Since v4 the error channel carries a Status,
since v5 a message of two bytes, 255 and a channel's number, ends that channel.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import msgspec
from aiohttp import WSMsgType, web

from minik8s.api.resource import Json
from minik8s.kubelet.streaming.session import CLOSE, ERROR, RESIZE, STDIN, STDOUT, resize
from minik8s.runtime.base import Streams
from minik8s.takeover import PING_SECONDS

V5 = "v5.channel.k8s.io"
PROTOCOLS = (V5, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io")
MAX_MESSAGE = 16 * 1024 * 1024  # bytes; clients choose how much they put into one


def offered(request: web.BaseRequest) -> set[str]:
    """The subprotocols that a client speaks."""
    lines = request.headers.getall("Sec-WebSocket-Protocol", [])
    return {name.strip() for line in lines for name in line.split(",")}


async def accepted(request: web.BaseRequest, protocols: Sequence[str]) -> web.WebSocketResponse:
    """Accept an upgrade with the first of the client's subprotocols that is among ours; a client may name none."""
    socket = web.WebSocketResponse(protocols=protocols, compress=False, max_msg_size=MAX_MESSAGE, timeout=5.0)
    await socket.prepare(request)
    return socket


async def ping_forever(socket: web.WebSocketResponse) -> bool:
    """Without waiting for answers: a client may be busy, but what is sent to a dead one fails."""
    while True:
        await asyncio.sleep(PING_SECONDS)
        await socket.ping()


class Frames:
    """Messages as (channel, bytes)."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.protocol = socket.ws_protocol or ""
        self._text = "base64" in self.protocol

    async def send(self, channel: int, data: bytes) -> None:
        if self._text:
            await self.socket.send_str(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self.socket.send_bytes(bytes((channel,)) + data)

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        """Until the client closes; messages that make no sense are skipped."""
        async for message in self.socket:
            if message.type is WSMsgType.BINARY and not self._text and message.data:
                yield message.data[0], message.data[1:]
            elif message.type is WSMsgType.TEXT and message.data[:1].isdigit():
                with suppress(binascii.Error, ValueError):
                    yield int(message.data[0]), base64.b64decode(message.data[1:])


class WebSocketChannels:
    """See `session.Channels`."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._frames = Frames(socket)

    async def greet(self) -> None:
        """An empty message tells clients that wait for one that the process is there."""
        await self._frames.send(STDOUT, b"")

    async def feed(self, process: Streams) -> bool:
        async for channel, data in self._frames:
            if channel == STDIN and data:
                await process.write(data)
            elif channel == RESIZE:
                with suppress(msgspec.DecodeError):
                    await resize(process, msgspec.json.decode(data))
            elif channel == CLOSE and data == bytes((STDIN,)) and self._frames.protocol == V5:
                await process.close_stdin()
        return False

    async def send(self, stream: int, data: bytes) -> None:
        await self._frames.send(stream, data)

    async def ping(self) -> bool:
        return await ping_forever(self._frames.socket)

    async def finish(self, status: Json) -> None:
        """Before v4 there is no Status: success is silence, failure is words."""
        if self._frames.protocol[:2] in ("v4", "v5"):
            await self._frames.send(ERROR, msgspec.json.encode(status))
        elif status["status"] != "Success":
            await self._frames.send(ERROR, str(status["message"]).encode())
        await self._frames.socket.close()


class SocketLink:
    """SPDY's bytes inside binary messages; see `multiplex.Link`."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.BINARY:
                return b""
            if message.data:
                return bytes(message.data)

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(data)
