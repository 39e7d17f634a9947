"""The sending half of a connection: answers whole, in slices, or as streams, no faster than the client takes them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from minik8s.apiserver import http_answer
from minik8s.apiserver.http_request import Request
from minik8s.apiserver.http_valve import Valve
from minik8s.apiserver.request import ApiResponse, Frames

WRITE_TIMEOUT = 60.0  # seconds a client may take to accept what is sent
BUFFERED = 64 * 1024  # bytes that wait to be sent before their writer waits too
SMALL = 32 * 1024  # bytes of an answer that is sent in one piece
SLICE = 256 * 1024  # bytes of any other that are written at once


class Writer:
    """`pause` and `resume` come from the transport. `streaming`: a stream is under way, into which `push` may write."""

    __slots__ = ("_transport", "_valve", "streaming")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._valve = Valve()
        self.streaming = False
        transport.set_write_buffer_limits(BUFFERED)

    def pause(self) -> None:
        self._valve.shut()

    def resume(self) -> None:
        self._valve.open()

    def push(self, chunk: bytes) -> bool:
        """Send a chunk of the stream that is under way, now; False if the client does not keep up, or is gone."""
        if self._valve.is_shut or not self.streaming:
            return False
        self._transport.write(chunk)
        return True

    async def send(self, response: ApiResponse, request: Request) -> None:
        """Send an answer; a stream until its end. TimeoutError when the client does not take it."""
        if response.stream is not None:
            await self._stream(response, request, response.stream)
        elif len(response.body) < SMALL:
            self._transport.write(http_answer.whole(response, request))
        else:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._large(http_answer.packed(response, request), request)
        if self._valve.is_shut:
            await self._drained()

    async def _large(self, response: ApiResponse, request: Request) -> None:
        """Slice by slice, so that the client reads one while the next is encrypted."""
        self._transport.write(http_answer.head_of(response, request, len(response.body)))
        slices = memoryview(response.body if request.method != "HEAD" else b"")
        for start in range(0, len(slices), SLICE):
            self._transport.write(slices[start : start + SLICE])
            if self._valve.is_shut:
                await self._drained()

    async def _stream(self, response: ApiResponse, request: Request, stream: Frames) -> None:
        """Frames as they come: as chunks, or until the connection is closed for a client that does not know those."""
        request.keep_alive = request.keep_alive and request.modern
        async with aclosing(stream) as batches:
            self._transport.write(http_answer.head_of(response, request, None))
            if request.method == "HEAD":
                return
            self.streaming = True
            try:
                async for batch in batches:
                    data = b"".join(batch)
                    self._transport.write(http_answer.chunk(data) if request.modern else data)
                    if self._valve.is_shut:
                        await self._drained()
            finally:
                self.streaming = False
        if request.modern:
            self._transport.write(http_answer.LAST_CHUNK)

    async def _drained(self) -> None:
        """Wait until the client has taken most of what was sent."""
        async with asyncio.timeout(WRITE_TIMEOUT):
            await self._valve.wait()
