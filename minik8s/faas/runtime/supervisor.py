"""The first process of a function's pod: it accepts, looks, hands over, and keeps the workers in order.

One loop over epoll, which never blocks and never runs user code. A connection at the door is watched by edges, for its
request is only looked at and stays readable.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Final

from minik8s.archives import pack_files, unpack
from minik8s.faas.runtime import http1
from minik8s.faas.runtime.board import Board
from minik8s.faas.runtime.calls import not_loaded
from minik8s.faas.runtime.connection import LINGER, Connection, wanted
from minik8s.faas.runtime.control import MAX_LOAD, Control
from minik8s.faas.runtime.fleet import Fleet
from minik8s.faas.runtime.http1 import MAX_HEAD, Incoming, Reader, Refused
from minik8s.faas.runtime.processes import adopt_orphans
from minik8s.faas.runtime.revision import Worker
from minik8s.faas.runtime.settings import read_settings
from minik8s.faas.runtime.worker import TIMES

WARM: Final = 0.1  # seconds without events before which only what everybody needs is imported
QUIET: Final = 2.0  # seconds without a call after which one that was told to end does so
PATIENCE: Final = 120.0  # seconds for which a connection may be open without the head of a request
RETRY: Final = 0.01  # seconds until a connection that no worker could take is offered again
_REHEARSAL: Final = (
    b"PUT /-/revisions/rehearsal HTTP/1.1\r\nAuthorization: Bearer nobody\r\nContent-Length: 2\r\n\r\n{}",
    b"POST / HTTP/1.1\r\nMinik8s-Revision: rehearsal\r\nContent-Length: 2\r\n\r\n{}",
)
_DOOR: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class Supervisor:
    def __init__(self, listener: socket.socket, token_sha256: str, root: Path, first_uid: int | None) -> None:
        self._listener = listener
        self._board = Board()
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._at_door: dict[Connection, float] = {}  # and since when, the oldest first
        self._lingering: list[Connection] = []
        self._waiting: list[Connection] = []  # for a worker that can take them
        self._fleet = Fleet(
            self._board, root, first_uid=first_uid, returned=self._next, ended=self._ended, answered=self._next,
            watch=self._watch, unwatch=self._unwatch,
        )  # fmt: skip
        self._control = Control(self._fleet, token_sha256, self._stop)
        self._stopping = False
        self._quiet_since = 0.0

    def run(self) -> None:
        """Returns when SIGTERM was heard, or the pod is spent, and nothing has been going on for QUIET seconds."""
        wake = self._signals()
        self._add(self._listener.fileno(), self._accept, select.EPOLLIN)
        self._add(wake.fileno(), lambda: self._signalled(wake), select.EPOLLIN)
        gc.freeze()  # what is here now is shared with the workers, as long as nobody touches it
        warm, look = False, time.monotonic() + WARM
        while True:
            events = self._poll.poll(max(0.0, look - time.monotonic()))
            for fd, _ in events:
                if fd in self._handlers:
                    self._handlers[fd]()
            now = time.monotonic()
            if not events:
                warm = warm or _warm()
                if self._fleet.keep_spare():
                    for _ in range(TIMES):
                        self._rehearse()
            if now >= look or not events:
                look = self._look(now)
                if look == 0.0:
                    return
            else:
                look = min(look, now + (RETRY if self._waiting or self._stopping else 1.0 if warm else WARM))

    def _rehearse(self) -> None:
        """What was touched before the fork is touched again, by two requests of our own: the first time costs far more
        than the work itself."""
        with contextlib.suppress(OSError):
            for request in _REHEARSAL:
                with socket.create_connection(self._listener.getsockname(), timeout=1) as probe:
                    probe.sendall(request)
        self._fleet.rehearse()

    # -- signals and time

    def _signals(self) -> socket.socket:
        wake, written = socket.socketpair()
        wake.setblocking(False)
        written.setblocking(False)
        self._written = written
        signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        return wake

    def _signalled(self, wake: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            numbers = wake.recv(4096)
            if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                self._stop()
        self._fleet.reap()

    def _stop(self) -> None:
        """Told once or often: whoever wants the pod for other code asks until it has started anew."""
        if not self._stopping:
            self._stopping, self._quiet_since = True, time.monotonic()

    def _look(self, now: float) -> float:
        """When to look again; 0.0: never, it is over."""
        soonest = self._fleet.check(now)
        for connection in [each for each in self._lingering if each.until <= now]:
            self._drop(connection)
        for connection in [each for each, since in self._at_door.items() if since + PATIENCE <= now]:
            self._drop(connection)
        if self._lingering:
            soonest = min(soonest, *(each.until for each in self._lingering))
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            self._door(connection)
        if self._waiting:
            soonest = min(soonest, now + RETRY)
        if self._stopping:
            if self._fleet.in_flight():
                self._quiet_since = now
            if now - self._quiet_since >= QUIET and not self._fleet.retire_all():
                return 0.0
            soonest = min(soonest, now + 0.1)
        return soonest

    # -- what is watched

    def _add(self, fd: int, handler: Callable[[], None], events: int) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, events)

    def _remove(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _watch(self, who: Worker) -> None:
        self._add(who.channel.fileno(), lambda: self._fleet.told(who), select.EPOLLIN)

    def _unwatch(self, who: Worker) -> None:
        if who.channel.fileno() >= 0:
            self._remove(who.channel.fileno())

    # -- connections

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            slot = self._board.allot()
            if slot is None:
                with contextlib.suppress(OSError):
                    sock.send(http1.error(503, "Unavailable", "too many connections", close=True))
                sock.close()
                continue
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._next(Connection(sock, slot))

    def _next(self, connection: Connection) -> None:
        """The connection's next request is waited for, at the door."""
        fd = connection.sock.fileno()
        reader = connection.reader
        if reader is not None and not reader.idle:  # it was sent behind the last one
            self._listen(connection)
            return
        connection.reader = None
        self._at_door[connection] = time.monotonic()
        self._remove(fd)
        self._add(fd, lambda: self._door(connection), _DOOR)
        self._door(connection)

    def _door(self, connection: Connection) -> None:
        data = connection.peek()
        if data is None:
            return
        if not data:
            self._drop(connection)
            return
        own, name = wanted(data)
        self._at_door.pop(connection, None)
        if own:
            connection.reader = Reader(MAX_LOAD, early=True)
            self._listen(connection)
        elif len(data) == MAX_HEAD and b"\r\n\r\n" not in data:
            connection.say(http1.error(431, "BadRequest", "the request's head is too large", close=True))
            self._linger(connection)
        else:
            self._hand_over(connection, name)

    def _hand_over(self, connection: Connection, name: str) -> None:
        revision = self._fleet.revisions.get(name) if name else self._fleet.newest()
        if revision is None:
            connection.say(not_loaded(name))
            self._linger(connection)
            return
        self._remove(connection.sock.fileno())
        if not self._fleet.lend(connection, revision):
            self._waiting.append(connection)

    def _ended(self, connection: Connection) -> None:
        """A worker is through with it, or nobody else can be."""
        if connection.until:
            self._linger(connection)
        else:
            self._drop(connection)

    def _listen(self, connection: Connection) -> None:
        fd = connection.sock.fileno()
        self._remove(fd)
        self._add(fd, lambda: self._converse(connection), select.EPOLLIN)
        self._converse(connection)

    def _converse(self, connection: Connection) -> None:
        reader = connection.reader
        assert reader is not None
        if not reader.ready or not reader.ready[0].complete:
            data = connection.take()
            if data == b"":
                self._drop(connection)
            if not data:
                return
            try:
                reader.feed(data)
            except Refused as refused:
                connection.say(http1.error(refused.status, "BadRequest", str(refused), close=True))
                self._linger(connection)
                return
        if reader.ready:
            self._asked(connection, reader, reader.ready[0])

    def _asked(self, connection: Connection, reader: Reader, request: Incoming) -> None:
        """The supervisor's own request, whose head is there. Who may not ask need not send the rest."""
        if request.target.startswith(b"/-/"):
            answer = self._control.refusal(request)
        else:  # a call behind it, which is too far inside by now to be handed over
            request.keep_alive, answer = False, not_loaded("")
        if answer is None and not request.complete:
            if request.expects:
                request.expects = False
                connection.say(http1.CONTINUE)
            return
        reader.ready.popleft()
        if answer is None:
            self._remove(connection.sock.fileno())  # nothing more is read before it is answered
            answer = self._control.answer(request, connection)
        if answer is not None:
            connection.say(answer)
            self._next(connection) if request.keep_alive and request.complete else self._linger(connection)

    def _linger(self, connection: Connection) -> None:
        """The answer is sent, the connection ends: what still comes is thrown away for a while."""
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_WR)
        connection.until = time.monotonic() + LINGER
        self._lingering.append(connection)
        self._remove(connection.sock.fileno())
        self._add(connection.sock.fileno(), lambda: self._discard(connection), select.EPOLLIN)

    def _discard(self, connection: Connection) -> None:
        if connection.take() == b"":
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._at_door.pop(connection, None)
        if connection in self._lingering:
            self._lingering.remove(connection)
        self._remove(connection.sock.fileno())
        connection.close()
        self._board.release(connection.slot)


def _warm() -> bool:
    """Import, once for all workers, what many of them will: nobody waits for anything now."""
    for name in ("async_worker", "asgi", "wsgi"):
        importlib.import_module(f"minik8s.faas.runtime.{name}")
    for name in ("dataclasses", "datetime", "decimal", "enum", "logging", "random", "statistics", "urllib.request"):
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        unpack(pack_files({"func.py": b""}), Path(folder))  # its patterns are compiled at their first use
    read_settings(b'{"revision": "rehearsal"}')
    gc.collect()
    gc.freeze()
    return True


def main(listener: socket.socket, environ: MutableMapping[str, str], paths: list[str]) -> None:
    """`paths` is sys.path; the folder of the environment's packages is put first. With FUNCTION_FIRST_UID set, user
    code runs as that user, the pod's second function as the next one. What is meant for us leaves `environ`."""
    import hashlib

    token = environ.pop("FUNCTION_TOKEN", "")
    digest = environ.pop("FUNCTION_TOKEN_SHA256", "") or (hashlib.sha256(token.encode()).hexdigest() if token else "")
    folder = environ.pop("FUNCTION_ENVIRONMENT", "/environment")
    uid = environ.pop("FUNCTION_FIRST_UID", "")
    first_uid = int(uid) if uid and os.geteuid() == 0 else None
    if os.path.isdir(folder):
        paths.insert(0, folder)
    adopt_orphans()
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="functions-") as root:
        os.chmod(root, 0o711)  # noqa: S103  # other users' code lies below
        Supervisor(listener, digest, Path(root), first_uid).run()
