"""The side of the pods: connections to runtimes, each with one call under way at most, kept for the next.

A connection belongs to a revision: the runtime hands it to a worker of that revision when it sees the first request.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from httptools import HttpParserError, HttpResponseParser

from minik8s.api.errors import RequestEntityTooLarge
from minik8s.apiserver.http_deadline import Deadline
from minik8s.apiserver.http_valve import Valve
from minik8s.faas.gateway import wire
from minik8s.faas.gateway.body import NOTHING, Body
from minik8s.faas.gateway.heads import SMALL, Heads
from minik8s.faas.gateway.wire import Answer, Sent

CONNECT_TIMEOUT = 2.0  # seconds
READ = 64 * 1024
MAX_HEADERS = 256
BUFFERED = 128 * 1024
# A pod that went with its node says nothing: what is sent has to be acknowledged within this many milliseconds.
UNACKNOWLEDGED = 10_000


class Lost(Exception):
    """The connection ended before the answer did. Whether the call ran nobody knows."""


class Overdue(Exception):
    """The answer, or the rest of it, did not come in the time that the function has."""


_buffer = memoryview(bytearray(READ))  # shared: each connection is read, and what was read parsed, in one go
_heads: Heads[Answer] = Heads()  # shared, too


class Link(asyncio.BufferedProtocol):
    """One connection to a pod."""

    __slots__ = (
        "_alone", "_answer", "_answered", "_begun", "_body", "_deadline", "_lines", "_midway", "_parser", "_reading",
        "_seconds", "_sending", "_valve", "closed", "idle_since", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.closed = False
        self.idle_since = 0.0
        self._parser = HttpResponseParser(self)
        self._lines: list[wire.Line] = []
        self._answered: asyncio.Future[Answer] | None = None
        self._answer: Answer | None = None  # whose body is being read
        self._body: Body | None = None
        self._midway = False  # a part of an answer is in the parser
        self._begun = b""  # what begins with the answer whose head is being parsed; empty where that is not known
        self._alone = False  # the answer is a head alone, whatever it says of a length
        self._reading = True
        self._valve = Valve()
        self._seconds = 0.0
        self._deadline = Deadline(self._late)
        self._sending: asyncio.Task[None] | None = None

    # -- for the caller

    @property
    def free(self) -> bool:
        """Whether it may carry another call."""
        return not self.closed and self._answered is None and self._body is None

    async def call(self, sent: Sent, marks: bytes, seconds: float, limit: int = 0) -> Answer:
        """Send, and wait for the head of the answer; `limit`: bytes of a body that comes bit by bit.

        Raises Lost, Overdue and what the body failed with; the body of the answer raises the first two as well.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        self._answered = answered
        self._alone = sent.method == b"HEAD"
        self._seconds = seconds
        self._deadline.within(seconds)
        self.transport.write(wire.request_bytes(sent, marks))
        if isinstance(sent.body, bytes):
            return await answered
        sending = self._sending = loop.create_task(self._send(sent.body, limit, chunked=sent.length is None))
        await asyncio.wait((sending, answered), return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            await sending
        else:  # the rest may be of interest all the same: both sides may stream at once
            sending.add_done_callback(self._sent)
        return await answered

    def _sent(self, sending: asyncio.Task[None]) -> None:
        if not sending.cancelled() and (error := sending.exception()) is not None:
            self.lose(str(error))

    async def stop_sending(self) -> None:
        """To be called before `finish` by whoever has given a body that comes bit by bit."""
        sending, self._sending = self._sending, None
        if sending is not None:
            if not sending.done():
                self.closed = True
                sending.cancel()
                await asyncio.wait([sending])
            elif not sending.cancelled() and sending.exception() is not None:
                self.closed = True
        answered = self._answered
        if answered is not None and answered.done() and not answered.cancelled():
            answered.exception()  # nobody will ask

    async def _send(self, body: Body, limit: int, *, chunked: bool) -> None:
        while data := await body.read():
            if body.received > limit:
                raise RequestEntityTooLarge(f"the body is larger than the {limit} bytes that the function takes")
            self.transport.write(wire.chunk(data) if chunked else data)
            if self._valve.is_shut:
                await self._valve.wait()
            if self.closed:
                raise Lost("the connection to the pod has ended")
        if chunked:
            self.transport.write(wire.LAST_CHUNK)

    def finish(self) -> bool:
        """The call is over, however it ended; False if the connection cannot carry another one, and is closed."""
        self._deadline.never()
        if self.free:
            return True
        self.abort()
        return False

    def lose(self, why: str) -> None:
        """The pod is known to be no more."""
        self._fail(Lost(why))
        self.abort()

    def abort(self) -> None:
        """The runtime sees that nobody waits any more."""
        self.closed = True
        self._answered = None
        self.transport.abort()

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(BUFFERED)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._deadline.cancel()
        answer = self._answer
        if exc is None and answer is not None and answer.length is None and not answer.chunked:
            self._complete()
        self._fail(Lost(str(exc) if exc is not None else "the connection to the pod has ended"))
        self.resume_writing()
        del self._parser

    def get_buffer(self, sizehint: int) -> memoryview:
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._answered is None and self._body is None:  # nothing was asked: the runtime says farewell, or errs
            self.abort()
            return
        data: bytes | memoryview = _buffer[:nbytes]
        if not self._midway and not self._alone and nbytes <= SMALL:
            self._begun = data = bytes(data)
            known = _heads.whole(data)
            if known is not None:
                self._answers_again(*known)
                return
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(Lost(f"the pod's answer is no HTTP: {' '.join(str(error).split())[:200]}"))
            self.abort()

    def _answers_again(self, answer: Answer, body: bytes) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(answer.again(Body(self._full, body)))
        self._answered = None

    def pause_writing(self) -> None:
        self._valve.shut()

    def resume_writing(self) -> None:
        self._valve.open()

    # -- called by the parser

    def on_message_begin(self) -> None:
        self._midway = True
        self._lines = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue and its like: the answer is still to come
            return
        if len(self._lines) > MAX_HEADERS:
            raise ValueError(f"the answer has more than {MAX_HEADERS} headers")
        self._body = Body(self._full)
        answer = self._answer = Answer(status, self._lines, self._body)
        answer.keep_alive = self._parser.should_keep_alive()
        self._lines = []
        if self._begun and answer.usual:
            _heads.learn(self._begun, answer.again(NOTHING))
        self._begun = b""
        if self._alone:  # the parser would wait for the body whose length the head tells
            answer.keep_alive = False
            self._complete()
            self.closed = True
        if self._answered is not None:
            if not self._answered.done():
                self._answered.set_result(answer)
            self._answered = None

    def on_body(self, data: bytes) -> None:
        if self._body is not None:
            self._body.feed(data)

    def on_message_complete(self) -> None:
        self._midway, self._begun = False, b""
        if self._answer is not None:
            self._complete()

    # -- inside

    def _complete(self) -> None:
        """The answer is here to its end."""
        body, answer = self._body, self._answer
        self._body = self._answer = None
        if answer is not None and not answer.keep_alive:
            self.closed = True
        if body is not None:
            body.end()

    def _full(self, stopped: bool) -> None:
        if not self.transport.is_closing():
            if stopped:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
        elif self._body is not None:
            self._body.fail(error)

    def _late(self) -> None:
        self._fail(Overdue(f"the function did not answer within {self._seconds:g} seconds"))


async def connect(address: str, port: int) -> Link:
    """A connection to a runtime. Raises OSError, also for one that does not answer in time."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, link = await loop.create_connection(Link, address, port)
            return link
    except TimeoutError:
        raise OSError(f"{address}:{port} does not answer") from None
