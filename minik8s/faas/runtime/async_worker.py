"""Code on an event loop: many calls at a time. A call is cancelled when its client goes, or when its time is over."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

from minik8s.faas.runtime import http1, output
from minik8s.faas.runtime.answers import Answer, call, piece, render
from minik8s.faas.runtime.asgi import Exchange, Lifespan, scope_of
from minik8s.faas.runtime.board import ANSWERING, IDLE, READING, Board
from minik8s.faas.runtime.calls import Caller, failed
from minik8s.faas.runtime.channel import receive, tell
from minik8s.faas.runtime.contracts import Contract
from minik8s.faas.runtime.http1 import Gone, Incoming, Reader, Refused
from minik8s.faas.runtime.settings import Settings

READ = 64 * 2**10  # bytes read at once
AHEAD = 256 * 2**10  # bytes of a body that are read before the application asks for them


def serve(
    contract: Contract, lifespan: Lifespan | None, settings: Settings, channel: socket.socket, board: Board
) -> None:
    """Returns when the supervisor says that it is enough, or is gone."""
    loop = lifespan.loop if lifespan else asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(_Worker(contract, lifespan, settings, channel, board).run())


class _Worker:
    def __init__(
        self, contract: Contract, lifespan: Lifespan | None, settings: Settings, channel: socket.socket, board: Board
    ) -> None:
        self.caller = Caller(contract, settings)
        self.lifespan = lifespan
        self.settings = settings
        self.channel = channel
        self.board = board
        self.pid = os.getpid()
        self.retiring = False
        self.tasks: set[asyncio.Task[None]] = set()  # calls, and what applications do after their answers
        self.connections: set[_Connection] = set()
        self._enough = asyncio.Event()
        self._looking: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self.channel.fileno(), self._told)
        await self._enough.wait()
        self.loop.remove_reader(self.channel.fileno())
        self.retiring = True
        for connection in self.connections:
            connection.rest()
        while self.tasks:
            await asyncio.wait(self.tasks)
        if self.lifespan is not None:
            await self.lifespan.shutdown()

    def _told(self) -> None:
        message = receive(self.channel)
        if message is None or message[1] is None:
            self._enough.set()
            return
        sock, slot = message[1], int(message[0]["slot"])
        sock.setblocking(False)
        self.own(self.loop.create_task(self._taken(sock, slot)))

    async def _taken(self, sock: socket.socket, slot: int) -> None:
        await self.loop.connect_accepted_socket(lambda: _Connection(self, slot), sock)

    def own(self, task: asyncio.Task[None]) -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def begin(self) -> float:
        """When the call that begins now is over time. All have as long as each other, so one timer, at the end of the
        oldest, is enough for all."""
        until = self.loop.time() + self.settings.timeout_seconds
        if self._looking is None:
            self._looking = self.loop.call_at(until, self._look)
        return until

    def _look(self) -> None:
        self._looking, now, soonest = None, self.loop.time(), math.inf
        for connection in self.connections:
            if connection.until <= now:
                connection.overdue()
            else:
                soonest = min(soonest, connection.until)
        if soonest < math.inf:
            self._looking = self.loop.call_at(soonest, self._look)


_buffer = memoryview(bytearray(READ))  # shared: each connection is read, and what was read parsed, in one go


class _Connection(asyncio.BufferedProtocol):
    def __init__(self, worker: _Worker, slot: int) -> None:
        self._worker = worker
        self._slot = slot
        self._early = worker.caller.contract.name == "asgi"
        self._reader = Reader(worker.settings.max_body_bytes, early=self._early)
        self._task: asyncio.Task[None] | None = None
        self._request: Incoming | None = None  # the one that is being answered
        self._arrived = asyncio.Event()  # of more of its body, or of the connection's end
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False
        self._late: asyncio.TimerHandle | None = None
        self._refused: Refused | None = None
        self.until = math.inf  # when the call under way is over time
        self._overdue = False

    # -- what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Anything unsent counts: the process may be told to end as soon as a call has its whole answer sent.
        transport.set_write_buffer_limits(high=0)
        self._worker.connections.add(self)
        if self._worker.retiring:
            self.rest()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._refused:
            return
        if self._task is None:
            self._worker.board.mark(self._slot, READING)
        try:
            self._reader.feed(_buffer[:nbytes])
        except Refused as refused:
            self._refused = refused
        current = self._reader.current
        if current is not None and current.expects:
            current.expects = False
            self._transport.write(http1.CONTINUE)
        self._arrived.set()
        self._go_on()
        if self._ahead() and not self._transport.is_closing():
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._arrived.set()
        self._writable.set()
        if self._late:
            self._late.cancel()
        if self._task is not None:
            self._task.add_done_callback(self._worker.tasks.discard)  # it may not even have begun
            self._task.cancel()
        self._worker.connections.discard(self)
        tell(self._worker.channel, closed=self._slot)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- one request after the other

    def _ahead(self) -> bool:
        """Enough is here that nobody has asked for yet."""
        waiting = self._request is not None and sum(map(len, self._request.parts)) > AHEAD
        return waiting if self._early and not self._reader.ready else bool(self._reader.ready)

    def _go_on(self) -> None:
        if self._task is not None or self._lost:
            return
        if self._late:
            self._late.cancel()
            self._late = None
        if self._reader.ready:
            self._request = request = self._reader.ready.popleft()
            # A task for each call: the code may ask for its own, and set context variables in it.
            self._task = task = asyncio.Task(self._perform(request), loop=self._worker.loop)
            self._worker.tasks.add(task)
        elif self._refused:
            self._end(http1.error(self._refused.status, "BadRequest", str(self._refused), close=True))
        elif self._reader.idle:
            self._worker.board.mark(self._slot, IDLE)
            self.rest() if self._worker.retiring else self._transport.resume_reading()
        else:
            self._transport.resume_reading()
            seconds = self._worker.settings.timeout_seconds
            self._late = self._worker.loop.call_later(seconds, self._transport.abort)

    def rest(self) -> None:
        """The worker ends: what nobody has read stays for another one."""
        if self._task is None and self._reader.idle:
            self._transport.pause_reading()

    def _served(self, *, keep: bool) -> None:
        if self._task is not None:
            self._worker.tasks.discard(self._task)
        self._task = self._request = None
        self.until, self._overdue = math.inf, False
        if self._lost:
            return
        if keep:
            self._go_on()
        else:
            self._transport.close()

    def overdue(self) -> None:
        """The call has had its time."""
        self.until, self._overdue = math.inf, True
        if self._task is not None:
            self._task.cancel()

    def _end(self, answer: bytes) -> None:
        """The supervisor takes what the client may still send: closing now would destroy the answer on its way."""
        self._transport.write(answer)
        tell(self._worker.channel, linger=self._slot)
        self._transport.close()

    # -- one call

    async def _perform(self, request: Incoming) -> None:
        keep = False
        try:
            await self._serve(request)
            keep = request.keep_alive and request.complete
        except (asyncio.CancelledError, Gone):
            pass  # there is nobody to tell
        finally:
            self._served(keep=keep)

    async def _serve(self, request: Incoming) -> None:
        caller, worker = self._worker.caller, self._worker
        refusal = caller.refusal(request)
        if refusal is not None:
            request.keep_alive = False
            await self._write(refusal)
            tell(worker.channel, linger=self._slot)
            return
        worker.board.call(self._slot)
        printing = output.Printing(caller.call_id(request))
        output.asynchronous.set(printing)
        self.until = worker.begin()
        try:
            await self._called(request)
        except Gone:
            request.keep_alive = False
        except asyncio.CancelledError:
            if not self._overdue or self._task is None:
                raise
            self._task.uncancel()
            await self._too_late(request)
        finally:
            if printing.rest:
                printing.flush()

    async def _too_late(self, request: Incoming) -> None:
        request.keep_alive = False
        if self._worker.board.read(self._slot).state != ANSWERING:
            seconds = self._worker.settings.timeout_seconds
            await self._write(http1.error(504, "Timeout", f"the call took more than {seconds:g} s", close=True))

    async def _called(self, request: Incoming) -> None:
        caller = self._worker.caller
        if caller.contract.name == "asgi":
            await self._application(request)
            return
        answer = await self._answer(request)
        body = answer.body
        if isinstance(body, bytes):
            self._answering()
            await self._write(caller.whole(answer, request))
        else:
            await self._stream(request, answer, _pieces(body))

    async def _answer(self, request: Incoming) -> Answer:
        caller = self._worker.caller
        deadline = self._worker.loop.time() + caller.settings.timeout_seconds
        try:
            result = call(caller.contract, caller.settings, caller.request(request), deadline)
            if asyncio.iscoroutine(result) or isinstance(result, asyncio.Future) or hasattr(result, "__await__"):
                result = await result
            return render(result, caller.contract, caller.settings)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # the code's own, sys.exit() among them
            return failed(error)

    async def _stream(self, request: Incoming, answer: Answer, pieces: AsyncIterator[Any]) -> None:
        caller = self._worker.caller
        first = await _next(pieces)
        if isinstance(first, Answer):  # nothing is sent yet, so the error can be told as one
            self._answering()
            await self._write(caller.whole(first, request))
            return
        chunked = request.version != "1.0"
        request.keep_alive = request.keep_alive and chunked
        self._answering()
        await self._write(caller.head(answer, request, close=not request.keep_alive, chunked=chunked))
        if request.method == "HEAD":
            return
        value = first
        try:
            while value is not None:
                if isinstance(value, Answer):
                    request.keep_alive = False  # the missing last chunk tells the client
                    return
                data = value if isinstance(value, bytes) else b""
                if data:
                    await self._write(http1.chunk(data) if chunked else data)
                value = await _next(pieces)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()
        if chunked:
            await self._write(http1.LAST_CHUNK)

    def _answering(self) -> None:
        if not self._lost:  # else the place on the board may be another connection's by now
            self._worker.board.mark(self._slot, ANSWERING)

    async def _write(self, data: bytes) -> None:
        """Raises Gone."""
        if os.getpid() != self._worker.pid:  # code that has forked, and returned in the child, too
            os._exit(0)
        if not self._lost:
            self._transport.write(data)
            if not self._writable.is_set():
                await self._writable.wait()
        if self._lost:
            raise Gone

    # -- ASGI

    async def _application(self, request: Incoming) -> None:
        """Returns when the answer is sent in full; what the application does then goes on without us."""
        exchange = Exchange(self, request, self._worker.caller)
        lifespan = self._worker.lifespan
        scope = scope_of(request, lifespan.state if lifespan else {})
        running = asyncio.ensure_future(self._worker.caller.contract.target(scope, exchange.receive, exchange.send))
        finished = asyncio.ensure_future(exchange.finished.wait())
        self._worker.own(running)
        try:
            await asyncio.wait({running, finished}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            running.cancel()
            raise
        finally:
            finished.cancel()
        if running.done():
            await exchange.ended(None if running.cancelled() else running.exception())

    async def more(self) -> None:
        """Wait for more of the request's body."""
        self._transport.resume_reading()
        self._arrived.clear()
        await self._arrived.wait()

    async def put(self, data: bytes) -> None:
        self._answering()
        await self._write(data)

    @property
    def lost(self) -> bool:
        return self._lost or self._refused is not None


async def _pieces(body: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    """Bytes; at last an Answer that tells of an error of the code's."""
    try:
        if isinstance(body, AsyncIterable):
            async for value in body:
                yield piece(value)
        else:
            for value in body:
                yield piece(value)
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:  # the code's
        yield failed(error)
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):
                await close()


async def _next(pieces: AsyncIterator[Any]) -> Any:
    """None at the end."""
    return await anext(pieces, None)
