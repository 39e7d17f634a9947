"""The side of the clients: HTTP/1.1 on sockets, one request after the other on each, bodies as they come.

A small body is waited for, so that a slow client keeps no pod busy; a larger one is handed on while it comes. A client
that goes, or only says that it will send nothing more, has given up its call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from minik8s.api.errors import BadRequest, StatusError
from minik8s.apiserver.http_connections import Connections
from minik8s.apiserver.http_deadline import Deadline
from minik8s.apiserver.http_valve import Valve
from minik8s.faas.gateway import wire
from minik8s.faas.gateway.body import NOTHING, Body
from minik8s.faas.gateway.heads import SMALL, Heads
from minik8s.faas.gateway.wire import Asked

WHOLE = 64 * 1024  # bytes of a body that is waited for
MAX_HEAD = 64 * 1024  # bytes that are neither a whole head nor part of a body
MAX_HEADERS = 128
PIPELINE = 8  # requests that wait on one connection before it is read no further
KEEPALIVE = 120.0  # seconds a connection may be idle
HEAD_TIMEOUT = 30.0  # seconds a client may take for a head, or a small body
WRITE_TIMEOUT = 60.0  # seconds a client may take to accept what is sent
LINGER = 1.0  # seconds for a client that is still sending to notice that it was refused
BUFFERED = 128 * 1024  # bytes that wait to be sent before their writer waits too

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
Serve = Callable[[Asked, "Inbound"], Awaitable[None]]


class Gone(Exception):
    """The client does not take what it asked for."""


class Clients(Connections["Inbound"]):
    """All connections of a listener; call it to make one. `serve` answers a request with the methods of Inbound."""

    most = 8192

    def __init__(self, serve: Serve, refused: Callable[[StatusError], bytes]) -> None:
        super().__init__()
        self.serve = serve
        self.refused = refused  # an error as an answer, after which the connection ends
        self.heads: Heads[Asked] = Heads()
        self.closing = False
        self._empty: asyncio.Future[None] | None = None

    def __call__(self) -> Inbound:
        return Inbound(self)

    def leave(self, connection: Inbound) -> None:
        self.connections.pop(connection, None)
        if not self.connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def drain(self, idle: float, busy: float) -> None:
        """End all connections: each answer from now on is the last of its connection. A client that is silent has
        `idle` seconds to send what it may be about to send, calls have `busy` seconds to end."""
        self.closing = True
        for one in self.connections:
            one.last()
        for seconds in (idle, max(busy - idle, 0.0)):
            if self.connections:
                self._empty = asyncio.get_running_loop().create_future()
                await asyncio.wait([self._empty], timeout=seconds)
            for one in list(self.connections):
                if not one.busy:
                    one.transport.close()
        tasks = [task for one in list(self.connections) if (task := one.cancel()) is not None]
        await asyncio.gather(*tasks, return_exceptions=True)


class Inbound(asyncio.BufferedProtocol):
    """One client."""

    __slots__ = (
        "_asked", "_begun", "_body", "_clients", "_deadline", "_deaf", "_dry", "_fault", "_idle", "_lines", "_midway",
        "_parser", "_peer", "_pending", "_queue", "_reading", "_secure", "_stopped", "_target", "_task", "_valve",
        "began", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, clients: Clients) -> None:
        self.began = False  # a part of the answer is sent
        self._clients = clients
        self._deadline = Deadline(self._late)
        self._parser = HttpRequestParser(self)
        self._queue: deque[Asked | StatusError] = deque()
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None  # what the task waits on while there is nothing to answer
        self._target = b""
        self._lines: list[wire.Line] = []
        self._asked: Asked | None = None  # that is being answered
        self._pending: Asked | None = None  # its head is here; it is not in the queue yet
        self._body: Body | None = None  # that is being read
        self._dry = 0
        self._midway = False  # a part of a request is in the parser
        self._begun = b""  # what begins with the request whose head is being parsed; empty where that is not known
        self._fault: StatusError | None = None  # why we have stopped the parser
        self._deaf = False  # what still comes is no request
        self._stopped = False  # a body has to wait for its reader
        self._reading = True  # the transport has not been told to stop
        self._valve = Valve()
        self._peer = b""
        self._secure = False

    @property
    def busy(self) -> bool:
        return self._task is not None and (self._idle is None or self._idle.done())

    def last(self) -> None:
        """The answer that is being given is the last."""
        if self._asked is not None:
            self._asked.keep_alive = False

    def cancel(self) -> asyncio.Task[None] | None:
        """End in the midst of whatever it is."""
        self.abort()
        if self._task is not None:
            self._task.cancel()
        return self._task

    # -- for those who answer

    def write(self, data: bytes) -> None:
        self.began = True
        self.transport.write(data)

    async def drained(self) -> None:
        """Return when the client has taken most of what was sent. Raises Gone for one that does not."""
        if self._valve.is_shut:
            try:
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await self._valve.wait()
            except TimeoutError:
                raise Gone("the client takes nothing") from None

    def abort(self) -> None:
        """What was sent is not all, and the client is to see that."""
        self._deaf = True
        self.transport.abort()

    def go_on(self, asked: Asked) -> None:
        """The body is wanted."""
        if asked.expects and not asked.body.received:
            asked.expects = False
            self.transport.write(CONTINUE)

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are none by inheritance
        if not self._clients.admit(self):
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(BUFFERED)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]).encode() if isinstance(peer, tuple) else b"unknown"
        self._secure = transport.get_extra_info("sslcontext") is not None
        self._deadline.within(HEAD_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.leave(self)
        self._deaf = True
        self._deadline.cancel()
        if self._task is not None:
            self._task.cancel()
        del self._parser  # it knows our methods: a circle that only the collector would find

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._clients.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._deaf:
            return
        data: bytes | memoryview = self._clients.buffer[:nbytes]
        if not self._midway and nbytes <= SMALL:
            self._begun = data = bytes(data)
            known = self._clients.heads.whole(data)
            if known is not None:
                self._asks_again(*known)
                return
        self._dry += nbytes
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:  # to what we do not speak: it was a request like any other, and the last
            self._deaf = True
        except HttpParserError as error:
            said = " ".join(str(error).split())[:200]
            self._refuse(self._fault or BadRequest(f"this is no HTTP request: {said}"))
        if self._dry > MAX_HEAD:
            self._refuse(BadRequest(f"the head of the request is larger than {MAX_HEAD} bytes"))
        if self._pending is not None and (self._pending.length is None or self._pending.length > WHOLE):
            self._enqueue(self._pending)
        self._begun = b""
        self._regulate()

    def _asks_again(self, asked: Asked, body: bytes) -> None:
        again = asked.again(Body(self._full, body))
        again.peer, again.secure = self._peer, self._secure
        self._enqueue(again)
        self._regulate()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._valve.shut()

    def resume_writing(self) -> None:
        self._valve.open()

    # -- called by the parser; it stops when one of these raises

    def on_message_begin(self) -> None:
        self._dry = 0
        self._midway = True
        self._target, self._lines = b"", []
        if not self.busy:
            self._deadline.within(HEAD_TIMEOUT)

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        try:
            if len(self._lines) > MAX_HEADERS:
                raise BadRequest(f"the request has more than {MAX_HEADERS} headers")
            asked = wire.read_head(parser.get_method(), self._target, parser.get_http_version(), self._lines)
            asked.keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
            if parser.should_upgrade() and asked.length != 0:
                raise BadRequest("only HTTP/1.1 is spoken here: a request with a body must not ask for an upgrade")
        except StatusError as error:
            self._fault = error
            raise
        asked.peer, asked.secure = self._peer, self._secure
        self._body = asked.body = Body(self._full)
        if self._begun and asked.usual:
            asked.onward = wire.onward(asked, known=False)
            self._clients.heads.learn(self._begun, asked.again(NOTHING))
            self._begun = b""  # what else is in there begins elsewhere
        self._pending, self._dry = asked, 0
        self._lines = []  # of trailers, which nobody needs
        if asked.expects and asked.length is not None and asked.length <= WHOLE and not self.busy:
            self.go_on(asked)

    def on_body(self, data: bytes) -> None:
        self._dry = 0
        if self._body is not None:
            self._body.feed(data)

    def on_message_complete(self) -> None:
        body, self._body = self._body, None
        self._dry = 0
        self._midway, self._begun = False, b""
        if body is not None:
            body.end()
        if self._pending is not None:
            self._enqueue(self._pending)

    # -- reading

    def _full(self, stopped: bool) -> None:
        self._stopped = stopped
        self._regulate()

    def _regulate(self) -> None:
        reading = not self._stopped and len(self._queue) < PIPELINE
        if reading is not self._reading and not self.transport.is_closing():
            self._reading = reading
            if reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _refuse(self, error: StatusError) -> None:
        if not self._deaf:
            self._deaf, self._pending = True, None
            if self._body is not None:
                self._body.fail(error)
            self._enqueue(error)

    def _enqueue(self, asked: Asked | StatusError) -> None:
        self._pending = None
        self._queue.append(asked)
        if self._task is None:
            self._deadline.never()
            self._task = asyncio.get_running_loop().create_task(self._answer())
        elif self._idle is not None and not self._idle.done():
            self._deadline.never()
            self._idle.set_result(None)

    # -- answering

    async def _answer(self) -> None:
        """Answer what is in the queue, and wait for more: a task for each request would cost more than all of HTTP."""
        clients, queue, loop = self._clients, self._queue, asyncio.get_running_loop()
        try:
            while True:
                while queue:
                    asked = queue.popleft()
                    if isinstance(asked, StatusError):
                        self.transport.write(clients.refused(asked))
                        self._deadline.within(LINGER)
                        return
                    self._asked, self.began = asked, False
                    if clients.closing:
                        asked.keep_alive = False
                    await clients.serve(asked, self)
                    if not asked.keep_alive or not asked.body.ended:
                        self._end(asked)
                        return
                self._asked = None
                self._idle = loop.create_future()
                self._rest()
                await self._idle
                self._idle = None
        except Gone:
            self.abort()
        finally:
            self._task = self._asked = self._idle = None

    def _rest(self) -> None:
        """All is answered: wait for the next request, of which a part may be there."""
        if self._deaf:
            self.transport.close()
            return
        if not self._reading:
            self._regulate()
        pending = self._pending
        if pending is not None:
            self.go_on(pending)
        self._deadline.within(KEEPALIVE if pending is None and not self._lines else HEAD_TIMEOUT)

    def _end(self, asked: Asked) -> None:
        """The last answer is given. A client that is still sending would not see it if we closed at once."""
        self._deaf = True
        if asked.body.ended:
            self.transport.close()
            self._deadline.within(WRITE_TIMEOUT)
        else:
            self._stopped = False
            self._regulate()
            self._deadline.within(LINGER)

    def _late(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()
        elif self._pending is not None and not self._deaf:
            self._refuse(BadRequest(f"the body did not come within {HEAD_TIMEOUT:g} seconds"))
        else:
            self.transport.close()
