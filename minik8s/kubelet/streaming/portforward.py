"""Port-forward: connections from a client's machine to ports inside a pod.

Over SPDY (bare, or tunnelled in a WebSocket) a client opens two streams per connection, paired by their request id:
one for data, one for what went wrong. Over plain WebSocket channels each port has one connection and two channels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

from minik8s.aio import background
from minik8s.api.errors import BadRequest, StatusError
from minik8s.kubelet.streaming.multiplex import Inbox, SpdyConnection, SpdyStream
from minik8s.kubelet.streaming.websocket import Frames, ping_forever
from minik8s.runtime.base import PortStream, RuntimeFailure
from minik8s.takeover import cause, first_of

PROTOCOL = "portforward.k8s.io"
TUNNELS = ("SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io")  # the first is what kubectl says
CHANNELS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", PROTOCOL)
MAX_PORTS = 32  # of one WebSocket
MAX_WAITING = 256  # streams whose partner has not come yet

Dial = Callable[[int], AbstractAsyncContextManager[PortStream]]


class End(Protocol):
    """The client's end of one connection, or of its words about errors."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def close_write(self) -> None: ...

    async def reset(self) -> None: ...


async def forward(data: End, error: End, port: int, dial: Dial, pod: str) -> None:
    """One connection, until both directions have ended. What goes wrong is told on the error stream."""
    with suppress(ConnectionError):  # of the client, who has gone
        try:
            async with dial(port) as inside:
                await _duplex(data, inside)
        except (OSError, RuntimeFailure, StatusError) as failure:
            await error.write(f"error forwarding port {port} to {pod}: {_words(failure, port)}".encode())
            await error.close_write()
            await data.reset()
            return
        await error.close_write()


def _words(failure: Exception, port: int) -> str:
    if isinstance(failure, OSError):
        return f"connect to localhost:{port} in the pod: {cause(failure)}"
    return str(failure)


async def _duplex(data: End, inside: PortStream) -> None:
    """Each direction ends by itself: a client that has said all may still be listening."""
    async with asyncio.TaskGroup() as tasks:
        down = tasks.create_task(_down(data, inside))
        try:
            while piece := await data.read():
                await inside.write(piece)
            await inside.close_write()
        except OSError:
            down.cancel()


async def _down(data: End, inside: PortStream) -> None:
    try:
        while piece := await inside.read():
            await data.write(piece)
        await data.close_write()
    except OSError:
        await data.reset()


async def forward_streams(connection: SpdyConnection, dial: Dial, pod: str) -> None:
    """Serve a client's pairs of streams until it goes; its connections into the pod go with it."""
    async with background(_accept_pairs(connection, dial, pod)):
        await connection.closed()


async def _accept_pairs(connection: SpdyConnection, dial: Dial, pod: str) -> None:
    waiting: dict[str, SpdyStream] = {}
    async with asyncio.TaskGroup() as tasks:
        while True:
            stream = await connection.accept()
            request, kind = stream.headers.get("requestid", ""), stream.headers.get("streamtype")
            port = _port(stream.headers.get("port", ""))
            if not port or kind not in ("data", "error"):
                await stream.reset()
                continue
            partner = waiting.pop(request, None)
            if partner is None:
                waiting[request] = stream
                if len(waiting) > MAX_WAITING:
                    await waiting.pop(next(iter(waiting))).reset()
            elif partner.headers.get("streamtype") == kind:
                await stream.reset()
                await partner.reset()
            else:
                data, error = (stream, partner) if kind == "data" else (partner, stream)
                error.inbox.drop()
                tasks.create_task(forward(data, error, port, dial, pod))


def _port(text: str) -> int:
    """0 for what is no port."""
    number = int(text) if text.isdecimal() and len(text) <= 5 else 0
    return number if number <= 65535 else 0


def parse_ports(texts: Sequence[str]) -> list[int]:
    """Ports of a query, `?port=80&port=443` or `?ports=80,443`. BadRequest for what is none."""
    ports = [_port(text) for many in texts for text in many.split(",")]
    if not ports or not all(ports):
        raise BadRequest('query parameter "port" is required: numbers from 1 to 65535')
    if len(ports) > MAX_PORTS:
        raise BadRequest(f"at most {MAX_PORTS} ports can be forwarded by one connection")
    return ports


class _Channel:
    """One numbered channel of a WebSocket, as an end. There is no message that closes it, nor one half of it."""

    def __init__(self, frames: Frames, number: int) -> None:
        self.inbox = Inbox()
        self._frames = frames
        self._number = number

    async def read(self) -> bytes:
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        await self._frames.send(self._number, data)

    async def close_write(self) -> None:
        await self.reset()

    async def reset(self) -> None:
        self.inbox.drop()
        self.inbox.end()


async def forward_channels(frames: Frames, ports: Sequence[int], dial: Dial, pod: str) -> None:
    """Channels 2i and 2i+1 are the i-th port's data and errors; each begins with the port, two bytes little-endian."""
    channels = [_Channel(frames, number) for number in range(2 * len(ports))]
    with suppress(ConnectionError):
        for number, channel in enumerate(channels):
            await channel.write(ports[number // 2].to_bytes(2, "little"))
        await first_of(
            _distribute(frames, channels), ping_forever(frames.socket), _forward_all(channels, ports, dial, pod)
        )
        await frames.socket.close()


async def _forward_all(channels: Sequence[_Channel], ports: Sequence[int], dial: Dial, pod: str) -> bool:
    async with asyncio.TaskGroup() as tasks:
        for index, port in enumerate(ports):
            data, error = channels[2 * index : 2 * index + 2]
            tasks.create_task(forward(data, error, port, dial, pod))
    return True


async def _distribute(frames: Frames, channels: Sequence[_Channel]) -> bool:
    async for number, data in frames:
        if number < len(channels) and number % 2 == 0:
            channels[number].inbox.feed(data)
            await channels[number].inbox.room()
    return False
