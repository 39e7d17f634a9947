"""HTTP/1.1 on sockets: requests in, answers out, in order, however they come and whoever sends them.

A connection costs little while it is idle: no task, one timer. What arrives is parsed at once; a task answers what is
complete, one request after the other, and ends when none is left. It is cancelled when the client goes. Whatever is
wrong with what a client sends is answered with a Status, in its turn, and ends the connection, as nobody knows where
the next request would begin.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from minik8s.api.errors import BadRequest, RequestEntityTooLarge, StatusError
from minik8s.apiserver import http_answer
from minik8s.apiserver.body import MAX_BODY
from minik8s.apiserver.http_request import Request, check_line, read_head
from minik8s.apiserver.request import ApiResponse, Frames, error_response
from minik8s.takeover import taken_over

KEEPALIVE = 180.0  # seconds a connection may be idle
HEAD_TIMEOUT = 30.0  # seconds a client may take to send the head of a request; the first time from its connecting on
BODY_TIMEOUT = 60.0  # seconds a client may take to send a body
WRITE_TIMEOUT = 60.0  # seconds a client may take to accept what is sent
LINGER = 1.0  # seconds for a client that is still sending to notice a refusal, or, silent, to get what it asked for
SHUTDOWN = 1.0  # seconds that requests have to be finished when the server stops
MAX_CONNECTIONS = 4096
MAX_DRY = 64 * 1024  # bytes that are neither a whole head nor part of a body
PIPELINE = 8  # requests that wait on one connection before it is read no further
READ = 64 * 1024  # bytes read at once
BUFFERED = 64 * 1024  # bytes that wait to be sent before their writer waits too
SMALL = 32 * 1024  # bytes of an answer that is sent in one piece
SLICE = 256 * 1024  # bytes of any other that are written at once
LONGEST = 200  # characters of the parser's complaint, which quotes what it has read

_BETWEEN, _HEAD, _BODY = range(3)  # what the next byte belongs to
_NEVER = math.inf
Serve = Callable[["Request"], Awaitable[ApiResponse | None]]  # None: the connection has been taken over


class Server:
    """The connections of one listener; call it to make one. They share a buffer, as each is read in one go."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.connections: dict[Connection, None] = {}  # from the oldest on
        self.buffer = memoryview(bytearray(READ))  # asyncio's TLS takes slices of it to write to

    def __call__(self) -> Connection:
        return Connection(self)

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more; the oldest that does nothing makes some."""
        if len(self.connections) >= MAX_CONNECTIONS:
            idle = next((one for one in self.connections if not one.busy), None)
            if idle is None:
                return False
            self.connections.pop(idle)
            idle.transport.abort()
        self.connections[connection] = None
        return True

    async def close(self) -> None:
        """End all connections: idle ones at once, others after their answer, streams and slow ones in the midst."""
        tasks = [task for one in list(self.connections) if (task := one.retire()) is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=SHUTDOWN)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for one in list(self.connections):
            one.transport.abort()


class Connection(asyncio.BufferedProtocol):
    """One client."""

    __slots__ = (
        "_body", "_deadline", "_deaf", "_dry", "_due", "_early", "_fault", "_lines", "_loop", "_parser", "_paused",
        "_queue", "_reading", "_request", "_resumed", "_server", "_stage", "_streaming", "_subject", "_target", "_task",
        "_timed", "_timer", "taken", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.taken = False
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self)
        self._queue: deque[Request | StatusError] = deque()
        self._task: asyncio.Task[None] | None = None
        self._stage = _BETWEEN
        self._target = b""
        self._lines: list[tuple[bytes, bytes]] = []
        self._request: Request | None = None  # whose body is being read
        self._body: bytes | bytearray = b""
        self._dry = 0
        self._fault: StatusError | None = None  # why we have stopped the parser
        self._deaf = False  # what still comes is no request
        self._early: bytearray | None = None  # it, after a request for an upgrade
        self._reading = True  # the transport has not been told to stop
        self._timed = True  # the deadline is that of the head or the body that is being read
        self._deadline = self._due = _NEVER  # `_due`: when the timer looks whether the deadline has passed
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False  # the client does not take what is sent
        self._resumed: asyncio.Future[None] | None = None
        self._streaming = False
        self._subject: tuple[str, tuple[str, ...]] | None = None

    # -- for those who answer

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._task is not None

    @property
    def subject(self) -> tuple[str, tuple[str, ...]]:
        """Common name and organizations of the client's certificate, which TLS has verified."""
        if self._subject is None:
            certificate = self.transport.get_extra_info("peercert") or {}
            pairs = [pair for name in certificate.get("subject", ()) for pair in name]
            names = [value for key, value in pairs if key == "commonName"]
            organizations = tuple(value for key, value in pairs if key == "organizationName")
            self._subject = (names[0] if names else "", organizations)
        return self._subject

    def push(self, chunk: bytes) -> bool:
        """Send a chunk of the stream that is under way, now; False if the client does not keep up, or is gone."""
        if self._paused or not self._streaming:
            return False
        self.transport.write(chunk)
        return True

    @asynccontextmanager
    async def taken_over(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """The bare connection, beginning with what came after the request if that asked for an upgrade. It is closed
        when the request has been served. ConnectionResetError if it is gone."""
        self._deaf = self.taken = True
        async with taken_over(self.transport, self, bytes(self._early or b"")) as streams:
            if not self._reading:
                self.transport.resume_reading()
            yield streams

    def retire(self) -> asyncio.Task[None] | None:
        """Begin nothing new; the task that is still to be waited for."""
        self._queue.clear()
        if self._task is None:
            self._end()
        elif self._streaming:
            self._task.cancel()
        self._deaf = True
        return self._task

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are none by inheritance
        if not self._server.admit(self):
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(BUFFERED)
        self._expect(HEAD_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.pop(self, None)
        self._deaf = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        del self._parser  # it knows our methods: a circle that only the collector would find

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._server.buffer[:nbytes]
        if self._deaf:
            self._overhear(data)
            return
        self._dry += nbytes
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._overhear(data[upgrade.args[0] :])
        except HttpParserError as error:
            said = " ".join(str(error).split())[:LONGEST]
            self._refuse(self._fault or BadRequest(f"this is no HTTP request: {said}"))
        if self._dry > MAX_DRY:
            self._refuse(BadRequest(f"the head of the request is larger than {MAX_DRY} bytes"))
        elif self._stage and not self._timed:
            self._timed = True
            if self._task is None:
                self._expect_more()
        if len(self._queue) >= PIPELINE:
            self._stop_reading()

    def eof_received(self) -> bool:
        """A client that has said all, or has gone: which of them TCP does not tell. It may have its answers, if they
        come soon, but no stream; TLS knows no half of a connection."""
        self._deaf = True
        if self._task is None or self._streaming or self._early is not None:
            return False
        self._expect(LINGER)
        return self.transport.get_extra_info("sslcontext") is None

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    # -- called by the parser; it stops when one of these raises

    def on_message_begin(self) -> None:
        self._stage, self._timed, self._dry = _HEAD, False, 0
        self._target, self._lines = b"", []

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._check_line(len(self._target))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage == _HEAD:  # else it is a trailer, which nobody needs
            self._check_line(len(name) + len(value))
            self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        try:
            request = read_head(self, parser.get_method(), self._target, parser.get_http_version(), self._lines)
        except StatusError as error:
            self._fault = error
            raise
        request.keep_alive, request.upgrade = parser.should_keep_alive(), parser.should_upgrade()
        self._stage, self._timed, self._dry = _BODY, False, 0
        self._request, self._body = request, b""
        if request.expects and self._task is None:
            self._continue(request)

    def on_body(self, data: bytes) -> None:
        self._dry = 0
        if not self._body:
            self._body = data
        elif len(self._body) + len(data) <= MAX_BODY:
            if not isinstance(self._body, bytearray):
                self._body = bytearray(self._body)
            self._body += data
        else:
            self._fault = RequestEntityTooLarge(f"the body is larger than {MAX_BODY} bytes")
            raise self._fault

    def on_message_complete(self) -> None:
        request, self._request = self._request, None
        assert request is not None
        request.body, self._body = bytes(self._body), b""
        self._stage, self._dry = _BETWEEN, 0
        if request.upgrade:
            request.keep_alive = False
            self._early = bytearray()
        if not request.keep_alive:
            self._deaf = True
        self._enqueue(request)

    def _check_line(self, size: int) -> None:
        try:
            check_line(size, len(self._lines))
        except StatusError as error:
            self._fault = error
            raise

    # -- reading

    def _overhear(self, data: memoryview) -> None:
        """Drop what is no request, unless it belongs to an upgrade that is not decided yet."""
        if self._early is not None:
            self._early += data
            if len(self._early) > READ:
                self._stop_reading()

    def _refuse(self, error: StatusError) -> None:
        if not self._deaf:
            self._deaf, self._stage = True, _BETWEEN
            self._enqueue(error)

    def _enqueue(self, asked: Request | StatusError) -> None:
        self._queue.append(asked)
        if self._task is None:
            self._deadline = _NEVER
            self._task = self._loop.create_task(self._answer())

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.transport.pause_reading()

    def _continue(self, request: Request) -> None:
        if request.expects:
            request.expects = False
            self.transport.write(http_answer.CONTINUE)

    # -- answering

    async def _answer(self) -> None:
        """Answer what is in the queue."""
        try:
            while self._queue:
                asked = self._queue.popleft()
                if isinstance(asked, StatusError):
                    self.transport.write(http_answer.refusal(error_response(asked)))
                    self._expect(LINGER)
                    return
                response = await self._server.serve(asked)
                if response is not None:
                    await self._send(response, asked)
                if response is None or not asked.keep_alive:
                    self._end()
                    return
            self._rest()
        except (ConnectionError, TimeoutError):  # the client has gone, or does not read
            self.transport.abort()
        finally:
            self._task = None

    async def _send(self, response: ApiResponse, request: Request) -> None:
        if response.stream is not None:
            await self._send_stream(response, request, response.stream)
        elif len(response.body) < SMALL:
            self.transport.write(http_answer.whole(response, request))
        else:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._send_large(http_answer.packed(response, request), request)
        if self._paused:
            await self._drained()

    async def _send_large(self, response: ApiResponse, request: Request) -> None:
        """Slice by slice, so that the client reads one while the next is encrypted."""
        self.transport.write(http_answer.head_of(response, request, len(response.body)))
        slices = memoryview(response.body if request.method != "HEAD" else b"")
        for start in range(0, len(slices), SLICE):
            self.transport.write(slices[start : start + SLICE])
            if self._paused:
                await self._drained()

    async def _send_stream(self, response: ApiResponse, request: Request, stream: Frames) -> None:
        """Frames as they come: as chunks, or until the connection is closed for a client that does not know those."""
        request.keep_alive = request.keep_alive and request.modern
        async with aclosing(stream) as batches:
            self.transport.write(http_answer.head_of(response, request, None))
            if request.method == "HEAD":
                return
            self._streaming = True
            try:
                async for batch in batches:
                    data = b"".join(batch)
                    self.transport.write(http_answer.chunk(data) if request.modern else data)
                    if self._paused:
                        await self._drained()
            finally:
                self._streaming = False
        if request.modern:
            self.transport.write(http_answer.LAST_CHUNK)

    async def _drained(self) -> None:
        """Wait until the client has taken most of what was sent; TimeoutError if that lasts."""
        async with asyncio.timeout(WRITE_TIMEOUT):
            while self._paused:
                self._resumed = self._loop.create_future()
                await self._resumed

    # -- time

    def _rest(self) -> None:
        """All is answered: wait for the next request, of which a part may be there."""
        if self._deaf:
            self._end()
            return
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()
        if self._request is not None:
            self._continue(self._request)
        self._expect_more()

    def _end(self) -> None:
        """Close when all is sent, or when that takes too long."""
        self._deaf = True
        self.transport.close()
        self._expect(WRITE_TIMEOUT)

    def _expect_more(self) -> None:
        self._expect((KEEPALIVE, HEAD_TIMEOUT, BODY_TIMEOUT)[self._stage])

    def _expect(self, seconds: float) -> None:
        """Something must happen within `seconds`. The timer only moves when it would look too late, which is rare."""
        self._deadline = self._loop.time() + seconds
        if self._deadline < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._look_at(self._deadline)

    def _look_at(self, when: float) -> None:
        self._due = when
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer, self._due = None, _NEVER
        if self._deadline > self._loop.time():
            if self._deadline < _NEVER:
                self._look_at(self._deadline)
        elif self.transport.is_closing():
            self.transport.abort()
        elif self._stage == _BODY and not self._deaf:
            self._refuse(BadRequest(f"the body did not come within {BODY_TIMEOUT:g} seconds"))
        else:
            self._end()
