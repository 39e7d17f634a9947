"""HTTP/1.1 on sockets: requests in, answers out, in order, however they come and whoever sends them.

A connection costs little while it is idle: no task, one timer. What arrives is parsed at once; a task answers what is
complete, one request after the other, and ends when none is left. It is cancelled when the client goes. Whatever is
wrong with what a client sends is answered with a Status, in its turn, and ends the connection, as nobody knows where
the next request would begin.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from minik8s.api.errors import BadRequest, RequestEntityTooLarge, StatusError
from minik8s.apiserver import http_answer
from minik8s.apiserver.body import MAX_BODY
from minik8s.apiserver.http_deadline import Deadline
from minik8s.apiserver.http_request import MAX_HEADERS, Request, read_head
from minik8s.apiserver.http_writer import Writer
from minik8s.apiserver.request import Push, error_response
from minik8s.takeover import taken_over

if TYPE_CHECKING:
    from minik8s.apiserver.http_server import Server

KEEPALIVE = 180.0  # seconds a connection may be idle
HEAD_TIMEOUT = 30.0  # seconds a client may take to send the head of a request; the first time from its connecting on
BODY_TIMEOUT = 60.0  # seconds a client may take to send a body
CLOSE_TIMEOUT = 60.0  # seconds a client may take to accept the last that is sent
LINGER = 1.0  # seconds for a client that is still sending to notice a refusal, or, silent, to get what it asked for
MAX_DRY = 64 * 1024  # bytes that are neither a whole head nor part of a body
MAX_EARLY = 64 * 1024  # bytes after a request for an upgrade that are read before it is decided
PIPELINE = 8  # requests that wait on one connection before it is read no further
LONGEST = 200  # characters of the parser's complaint, which quotes what it has read

_BETWEEN, _HEAD, _BODY = range(3)  # what the next byte belongs to


class Connection(asyncio.BufferedProtocol):
    """One client."""

    __slots__ = (
        "_body", "_deadline", "_deaf", "_dry", "_early", "_fault", "_lines", "_parser", "_queue", "_reading",
        "_request", "_server", "_stage", "_subject", "_target", "_task", "_timed", "_writer", "taken", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.taken = False  # what it carries is no HTTP any more
        self._server = server
        self._deadline = Deadline(self._late)
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

    @property
    def push(self) -> Push:
        """See `Writer.push`."""
        return self._writer.push

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
        elif self._writer.streaming:
            self._task.cancel()
        self._deaf = True
        return self._task

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are none by inheritance
        self._writer = Writer(self.transport)
        if not self._server.admit(self):
            self.transport.abort()
            return
        self._deadline.within(HEAD_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.pop(self, None)
        self._deaf = True
        self._deadline.cancel()
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
        if self._task is None or self._writer.streaming or self._early is not None:
            return False
        self._deadline.within(LINGER)
        return self.transport.get_extra_info("sslcontext") is None

    def pause_writing(self) -> None:
        self._writer.pause()

    def resume_writing(self) -> None:
        self._writer.resume()

    # -- called by the parser; it stops when one of these raises

    def on_message_begin(self) -> None:
        self._stage, self._timed, self._dry = _HEAD, False, 0
        self._target, self._lines = b"", []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append((name, value))
        if len(self._lines) > MAX_HEADERS:
            self._fault = BadRequest(f"the request has more than {MAX_HEADERS} headers")
            raise self._fault

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
        self._lines = []  # of trailers, which nobody needs
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

    # -- reading

    def _overhear(self, data: memoryview) -> None:
        """Drop what is no request, unless it belongs to an upgrade that is not decided yet."""
        if self._early is not None:
            self._early += data
            if len(self._early) > MAX_EARLY:
                self._stop_reading()

    def _refuse(self, error: StatusError) -> None:
        if not self._deaf:
            self._deaf, self._stage = True, _BETWEEN
            self._enqueue(error)

    def _enqueue(self, asked: Request | StatusError) -> None:
        self._queue.append(asked)
        if self._task is None:
            self._deadline.never()
            self._task = asyncio.get_running_loop().create_task(self._answer())

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
                    self._deadline.within(LINGER)
                    return
                response = await self._server.serve(asked)
                if response is not None:
                    await self._writer.send(response, asked)
                if response is None or not asked.keep_alive:
                    self._end()
                    return
            self._rest()
        except (ConnectionError, TimeoutError):  # the client has gone, or does not read
            self.transport.abort()
        finally:
            self._task = None

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
        self._deadline.within(CLOSE_TIMEOUT)

    def _expect_more(self) -> None:
        self._deadline.within((KEEPALIVE, HEAD_TIMEOUT, BODY_TIMEOUT)[self._stage])

    def _late(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()
        elif self._stage == _BODY and not self._deaf:
            self._refuse(BadRequest(f"the body did not come within {BODY_TIMEOUT:g} seconds"))
        else:
            self._end()
