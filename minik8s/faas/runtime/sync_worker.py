"""Code that blocks: one call at a time, whichever connection has one. All other connections are given back before it
begins; what they bring stays in the kernel, unread, and so survives this process, too."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from minik8s.faas.runtime import http1, output
from minik8s.faas.runtime.answers import Answer, piece
from minik8s.faas.runtime.board import ANSWERING, IDLE, READING, SENDING, Board
from minik8s.faas.runtime.calls import Caller, failed
from minik8s.faas.runtime.channel import receive, tell
from minik8s.faas.runtime.contracts import Contract
from minik8s.faas.runtime.http1 import Gone, Incoming, Reader, Refused
from minik8s.faas.runtime.settings import Settings

BLOCK = 256 * 2**10  # bytes read at once


_owner = [0]  # the worker's own process


class _Connection:
    def __init__(self, sock: socket.socket, slot: int, max_body: int) -> None:
        self.sock = sock
        self.slot = slot
        self.reader = Reader(max_body)


def serve(contract: Contract, settings: Settings, channel: socket.socket, board: Board) -> None:
    """Returns when the supervisor says that it is enough, or is gone."""
    _owner[0] = os.getpid()
    _Worker(contract, settings, channel, board).run()


class _Worker:
    def __init__(self, contract: Contract, settings: Settings, channel: socket.socket, board: Board) -> None:
        self._caller = Caller(contract, settings)
        self._silence = output.Printing("")  # between calls, what threads print has no prefix
        self._settings = settings
        self._channel = channel
        self._board = board
        self._poll = select.epoll()
        self._poll.register(channel.fileno(), select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}

    def run(self) -> None:
        channel = self._channel.fileno()
        while True:
            for fd, _ in self._poll.poll():
                if fd == channel:
                    if not self._told():
                        return
                elif fd in self._connections:
                    self._ready(self._connections[fd])

    def _told(self) -> bool:
        message = receive(self._channel)
        if message is None or message[1] is None:
            return False  # to retire is the only thing that is said without a connection
        sock, slot = message[1], int(str(message[0]["slot"]))
        sock.setblocking(False)
        self._connections[sock.fileno()] = _Connection(sock, slot, self._settings.max_body_bytes)
        self._poll.register(sock.fileno(), select.EPOLLIN)
        return True

    def _ready(self, connection: _Connection) -> None:
        if len(self._connections) > 1:
            self._give_back(connection)
        try:
            keep = self._requests(connection)
        except Gone:
            keep = False
        except Refused as refused:
            self._end(connection, refused)
            return
        if keep:
            self._board.mark(connection.slot, IDLE)
        else:
            self._close(connection)

    def _requests(self, connection: _Connection) -> bool:
        """Serve what has come, until nothing is half done. False if the connection ends. Raises Refused, Gone."""
        reader, board, slot = connection.reader, self._board, connection.slot
        board.mark(slot, READING)
        until = time.monotonic() + self._settings.timeout_seconds
        while True:
            if reader.ready:
                request = reader.ready.popleft()
                if not self._answer(connection, request):
                    return False
                until = time.monotonic() + self._settings.timeout_seconds
                board.mark(slot, READING)
            elif not self._read(connection, until):
                return False
            if reader.idle:
                return True

    def _read(self, connection: _Connection, until: float) -> bool:
        while True:
            try:
                data = connection.sock.recv(BLOCK)
                break
            except BlockingIOError:
                if connection.reader.idle:
                    return True
                _await(connection.sock, select.POLLIN, until)
            except OSError:
                return False
        if not data:
            return False
        reader = connection.reader
        reader.feed(data)
        if reader.current is not None and reader.current.expects:
            reader.current.expects = False
            _send(connection.sock, http1.CONTINUE, until)
        return True

    def _answer(self, connection: _Connection, request: Incoming) -> bool:
        """One call. False if the connection must end."""
        refusal = self._caller.refusal(request)
        if refusal is not None:
            self._last_word(connection, refusal)
            return False
        board, slot = self._board, connection.slot
        board.call(slot)
        until = time.monotonic() + self._settings.timeout_seconds
        printing = output.now[0] = output.Printing(self._caller.call_id(request))
        try:
            answer = self._caller.answer(request, until)
            if isinstance(answer.body, bytes):
                data = self._caller.whole(answer, request)
                board.mark(slot, SENDING)
                _send(connection.sock, data, until)
                return request.keep_alive
            return self._stream(connection, request, answer, until)
        finally:
            if printing.rest:
                printing.flush()
            output.now[0] = self._silence
            _reap()

    def _stream(self, connection: _Connection, request: Incoming, answer: Answer, until: float) -> bool:
        sock = connection.sock
        pieces: Iterator[Any] = iter(answer.body)  # type: ignore[arg-type]  # bytes and asynchronous ones are elsewhere
        try:
            first = self._caller.guarded(lambda: next(pieces, None))
            if isinstance(first, Answer):  # nothing is sent yet, so the error can be told as one
                self._board.mark(connection.slot, ANSWERING)
                _send(sock, self._caller.whole(first, request), until)
                return request.keep_alive
            self._board.mark(connection.slot, ANSWERING)
            chunked = request.version != "1.0"
            keep = request.keep_alive and chunked
            _send(sock, self._caller.head(answer, request, close=not keep, chunked=chunked), until)
            if request.method == "HEAD":
                return keep
            return self._pieces(sock, first, pieces, until, chunked=chunked) and keep
        finally:
            close = getattr(answer.body, "close", None)
            if close is not None:
                self._caller.guarded(close)

    def _pieces(self, sock: socket.socket, first: Any, rest: Iterable[Any], until: float, *, chunked: bool) -> bool:
        """False if the code failed midway: the missing last chunk tells the client."""
        try:
            for value in _chain(first, rest):
                data = piece(value)
                if data:
                    _send(sock, http1.chunk(data) if chunked else data, until)
        except Gone:
            raise
        except BaseException as error:  # the code's
            failed(error)
            return False
        if chunked:
            _send(sock, http1.LAST_CHUNK, until)
        return True

    def _give_back(self, kept: _Connection) -> None:
        """Nobody shall wait for this call who could be served by another process."""
        others = [each for each in self._connections.values() if each is not kept]
        for each in others:
            self._forget(each)
        tell(self._channel, returned=[each.slot for each in others])

    def _forget(self, connection: _Connection) -> None:
        # By hand: the supervisor's copy keeps the open file, and so its place in our set, alive.
        self._poll.unregister(connection.sock.fileno())
        del self._connections[connection.sock.fileno()]
        connection.sock.close()

    def _end(self, connection: _Connection, refused: Refused) -> None:
        answer = http1.error(refused.status, "BadRequest", str(refused), close=True)
        self._last_word(connection, answer)
        self._close(connection)

    def _last_word(self, connection: _Connection, answer: bytes) -> None:
        """The supervisor takes what the client may still send: closing now would destroy the answer on its way."""
        with contextlib.suppress(OSError):
            connection.sock.send(answer)
        tell(self._channel, linger=connection.slot)

    def _close(self, connection: _Connection) -> None:
        self._forget(connection)
        tell(self._channel, closed=connection.slot)


def _chain(first: Any, rest: Iterable[Any]) -> Iterator[Any]:
    if first is not None:
        yield first
    yield from rest


def _send(sock: socket.socket, data: bytes, until: float) -> None:
    """Raises Gone."""
    _no_copy()
    view = memoryview(data)
    while True:
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise Gone from error
        if not view:
            return
        _await(sock, select.POLLOUT, until)


def _reap() -> None:
    """What the call has started, and nobody has waited for; also what it has left to the worker, as orphans' parent."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _no_copy() -> None:
    """Code that has forked, and returned in the child, too: one process only may answer, or speak to the supervisor."""
    if os.getpid() != _owner[0]:
        os._exit(0)


def _await(sock: socket.socket, event: int, until: float) -> None:
    """Raises Gone if nothing happens until then."""
    waiting = select.poll()
    waiting.register(sock.fileno(), event)
    if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
        raise Gone(os.strerror(110))
