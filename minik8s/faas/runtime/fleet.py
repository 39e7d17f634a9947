"""Revisions and their workers: who is forked for what, which worker gets a connection, and who has to end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from minik8s.faas.runtime import http1, worker
from minik8s.faas.runtime.board import ANSWERING, CALLING, IDLE, SENDING, UNTOUCHED, Board
from minik8s.faas.runtime.channel import give_job, lend
from minik8s.faas.runtime.connection import Connection
from minik8s.faas.runtime.processes import kill_orphans, kill_tree
from minik8s.faas.runtime.revision import Revision, Worker, cause, loaded_answer
from minik8s.faas.runtime.settings import Settings, read_settings

OVERDUE: Final = 0.5  # seconds after its timeout at which a worker that is still in a call is killed
LOADING: Final = 60.0  # seconds that an import may take
UNUSED: Final = 60.0  # seconds without a call after which a revision is dropped, but for the one used last
SPARE: Final = 30.0  # seconds without a connection after which a worker beyond `workers` is ended
LAST_WORDS: Final = 0.1  # seconds to write them
HANDED: Final = 8 * 2**20  # bytes of settings and archive that a spare worker is given; it has a copy of them
FAILURES: Final = 3  # of spare workers, after which there are no more
RETIRING: Final = 5.0  # seconds from the end of the last call for which a worker may tidy up


class Fleet:
    """What it calls: `returned` with a connection that nobody has begun to serve; `ended` with one that is to be
    closed; `answered` with one whose verdict was sent; `watch` and `unwatch` for a worker's channel. Nothing blocks."""

    def __init__(
        self,
        board: Board,
        root: Path,
        *,
        first_uid: int | None,
        returned: Callable[[Connection], None],
        ended: Callable[[Connection], None],
        answered: Callable[[Connection], None],
        watch: Callable[[Worker], None],
        unwatch: Callable[[Worker], None],
    ) -> None:
        self.revisions: dict[str, Revision] = {}
        self._board = board
        self._root = root
        self._returned, self._ended, self._answered = returned, ended, answered
        self._watch, self._unwatch = watch, unwatch
        self._workers: dict[int, Worker] = {}  # by pid, until they are reaped
        self._first_uid = first_uid
        self._over = False
        self._uids: dict[str, int] = {}
        self._tenant: str | None = None  # whose code has been here
        self._spare: tuple[int, socket.socket] | None = None  # a worker that waits for its code, and its channel
        self._spares_failed = 0
        self._ended_some = False  # processes that may have left others

    # -- revisions

    def newest(self) -> Revision | None:
        loaded = [each for each in self.revisions.values() if each.contract]
        return max(loaded, key=lambda each: (len(each.settings.revision), each.settings.revision), default=None)

    def admits(self, tenant: str) -> bool:
        """Whether code of theirs may come into this pod: what has run here may have left something."""
        return self._tenant in (None, tenant)

    def load(self, settings: Settings, put: bytes, archive: bytes, connection: Connection) -> None:
        """Answers on the connection when there is a verdict. `put`: settings and archive, as they came."""
        self._tenant = settings.tenant
        revision = self.revisions.get(settings.revision)
        if revision is not None and revision.settings.revision_uid != settings.revision_uid:
            self.unload(settings.revision)
            revision = None
        if revision is None:
            if self._ended_some:
                self._end_orphans()
            uid = self._uid(settings)
            folder = self._folder(settings.revision, uid)
            revision = self.revisions[settings.revision] = Revision(settings, folder, uid)
            self._first(revision, put, archive)
        if revision.contract:
            connection.say(loaded_answer(revision))
            self._answered(connection)
        else:
            revision.waiting.append(connection)

    def unload(self, name: str) -> bool:
        revision = self.revisions.pop(name, None)
        if revision is None:
            return False
        self._verdict(revision, http1.json_answer(422, {"reason": "LoadError", "message": "it was unloaded meanwhile"}))
        for each in revision.serving:
            if each.loaded:
                self._retire(each)
            else:
                kill_tree(each.pid)
        if not revision.workers:
            shutil.rmtree(revision.folder, ignore_errors=True)
        return True

    def _uid(self, settings: Settings) -> int | None:
        """Each function of a pod has a user of its own, all its workers the same."""
        if self._first_uid is None:
            return None
        key = f"{settings.namespace}/{settings.function}"
        return self._uids.setdefault(key, self._first_uid + len(self._uids))

    # -- workers

    def keep_spare(self) -> bool:
        """Called when there is nothing else to do: a pod without any code has a worker that only needs that. Whether
        there is a new one."""
        if self._spare is None and not self.revisions and not self._over and self._spares_failed < FAILURES:
            self._spare = self._process(None)
            return True
        return False

    def rehearse(self) -> None:
        """What loading does here, without effect."""
        settings = read_settings(b'{"revision": "-"}')
        revision = Revision(settings, self._folder(settings.revision, self._first_uid), self._first_uid)
        shutil.rmtree(revision.folder)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            give_job(ours, b"", folder=str(revision.folder), uid=revision.uid)
        loaded_answer(revision)

    def _folder(self, name: str, uid: int | None) -> Path:
        """One that nobody else of this pod can read. Workers that are to end may still use another of that name."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self._root))
        if uid is not None:
            os.chown(folder, uid, uid)
        return folder

    def _first(self, revision: Revision, put: bytes, archive: bytes) -> None:
        """The worker that unpacks, and has the verdict."""
        if self._spare is not None and len(put) <= HANDED:
            (pid, channel), self._spare = self._spare, None
            with contextlib.suppress(OSError):  # it has just ended
                give_job(channel, put, folder=str(revision.folder), uid=revision.uid)
                self._hire(pid, channel, revision)
                return
            channel.close()
        self._fork(revision, archive)

    def _fork(self, revision: Revision, archive: bytes | None = None) -> Worker:
        job = worker.Job(revision.settings, revision.folder, archive, revision.uid, self._board)
        return self._hire(*self._process(job), revision)

    def _process(self, job: worker.Job | None) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            worker.run(job, self._board, theirs.fileno())
        theirs.close()
        ours.setblocking(False)
        return pid, ours

    def _hire(self, pid: int, channel: socket.socket, revision: Revision) -> Worker:
        made = self._workers[pid] = Worker(pid, channel, revision)
        revision.workers.append(made)
        self._watch(made)
        return made

    def lend(self, connection: Connection, revision: Revision) -> bool:
        """Give the connection to a worker. False if none can take it now."""
        if revision.retry_at > time.monotonic() and not revision.serving:
            text = f"a worker of {revision.settings.revision} could not load what loaded before: {revision.trouble}"
            connection.say(http1.error(503, "LoadError", text, [(b"retry-after", b"1")], close=True))
            connection.until = time.monotonic()
            self._ended(connection)
            return True
        chosen = self._choose(revision)
        if chosen is None:
            return False
        self._board.offer(connection.slot)
        try:
            lend(chosen.channel, connection.slot, connection.sock)
        except OSError:  # its buffer is full, or it is just ending
            self._board.mark(connection.slot, IDLE)
            return False
        connection.worker = chosen
        chosen.connections[connection.slot] = connection
        revision.used = time.monotonic()
        return True

    def _choose(self, revision: Revision) -> Worker | None:
        """One that is free, else a new one; None if there may be no more."""
        serving = revision.serving
        if revision.contract and not revision.asynchronous:
            serving = [each for each in serving if not self._busy(each)]
            if not serving and len(revision.serving) < revision.most:
                return self._fork(revision)
        elif not serving:
            return self._fork(revision)
        return min(serving, key=lambda each: (not each.loaded, len(each.connections)), default=None)

    def _busy(self, who: Worker) -> bool:
        """In a call, and not just sending its answer."""
        return any(self._board.read(slot).state not in (IDLE, SENDING) for slot in who.connections)

    def told(self, who: Worker) -> None:
        """A worker has something to say."""
        while True:
            try:
                data = who.channel.recv(64 * 1024)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:  # it ends; SIGCHLD tells the rest
                self._unwatch(who)
                return
            self._heard(who, json.loads(data))

    def _heard(self, who: Worker, message: dict[str, Any]) -> None:
        revision = who.revision
        if "loaded" in message:
            who.loaded, revision.failures = True, 0
            if not revision.contract:
                revision.used = time.monotonic()
                revision.contract, revision.asynchronous = message["loaded"], message["asynchronous"]
                revision.seconds = message["seconds"]
                self._verdict(revision, loaded_answer(revision))
                for _ in range(revision.settings.workers - len(revision.serving)):
                    self._fork(revision)
        elif "failed" in message:
            revision.trouble = message["failed"]
        elif "linger" in message:
            connection = who.connections.get(message["linger"])
            if connection is not None:
                connection.until = time.monotonic()
        elif "returned" in message:
            for connection in [who.connections.pop(slot) for slot in message["returned"]]:
                self._count(revision, connection)
                self._returned(connection)
        elif "closed" in message:
            connection = who.connections.pop(message["closed"], None)
            if connection is not None:
                self._count(who.revision, connection)
                self._ended(connection)
            who.free_since = time.monotonic()

    def _verdict(self, revision: Revision, answer: bytes) -> None:
        for connection in revision.waiting:
            connection.say(answer)
            self._answered(connection)
        revision.waiting.clear()

    def _retire(self, who: Worker) -> None:
        with contextlib.suppress(OSError):
            who.channel.send(b"{}")
        who.kill_at = time.monotonic() + RETIRING

    # -- ends

    def reap(self) -> None:
        """Children have ended: workers, or what dead workers have left, of which there may be more."""
        ended = False
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                ended = True
                who = self._workers.pop(found[0], None)
                if self._spare is not None and self._spare[0] == found[0]:
                    self._spare[1].close()
                    self._spare, self._spares_failed = None, self._spares_failed + 1
                if who is not None:
                    self.told(who)  # its last words
                    self._gone(who, found[1])
        if ended:
            self._ended_some = True
            self._end_orphans()

    def _end_orphans(self) -> None:
        kill_orphans([*self._workers, *([self._spare[0]] if self._spare is not None else [])])

    def _gone(self, who: Worker, status: int) -> None:
        revision = who.revision
        revision.workers.remove(who)
        self._unwatch(who)
        who.channel.close()
        why = cause(status, overdue=who.overdue)
        known = self.revisions.get(revision.settings.revision) is revision
        if not known:
            if not revision.workers:
                shutil.rmtree(revision.folder, ignore_errors=True)
        elif not revision.contract:
            self._refuse(revision, revision.trouble or f"while it was imported {why}")
        elif not who.loaded:
            revision.failures += 1
            revision.trouble = revision.trouble or why
            revision.retry_at = time.monotonic() + min(30.0, 0.5 * 2**revision.failures)
        for connection in who.connections.values():
            self._count(revision, connection)
            if self._board.read(connection.slot).state in UNTOUCHED:
                self._returned(connection)
                continue
            if not connection.until:
                self._lost(connection, who, why)
            self._ended(connection)
        if known and not self._over and revision.contract and revision.retry_at <= time.monotonic():
            for _ in range(revision.settings.workers - len(revision.serving)):
                self._fork(revision)

    def _refuse(self, revision: Revision, trouble: str) -> None:
        del self.revisions[revision.settings.revision]
        shutil.rmtree(revision.folder, ignore_errors=True)
        self._verdict(revision, http1.json_answer(422, {"reason": "LoadError", "message": trouble}))

    def _lost(self, connection: Connection, who: Worker, why: str) -> None:
        """The worker has died in the midst of this connection's call."""
        record = self._board.read(connection.slot)
        if record.state not in (ANSWERING, SENDING):
            limit = who.revision.settings.timeout_seconds
            late = who.overdue and record.state == CALLING and time.monotonic() - record.since >= limit
            kind = "Timeout" if late else "WorkerLost"
            text = "the call took too long" if late else f"the process of the call {why}"
            connection.say(http1.error(504 if late else 502, kind, text, close=True))
        connection.until = time.monotonic()

    def _count(self, revision: Revision, connection: Connection) -> None:
        record = self._board.read(connection.slot)
        revision.calls += record.calls
        revision.used = max(revision.used, record.since)
        connection.worker = None

    # -- what time brings

    def in_flight(self, revision: Revision | None = None) -> int:
        return sum(
            self._board.read(slot).state != IDLE
            for who in self._workers.values() if revision in (None, who.revision) for slot in who.connections
        )  # fmt: skip

    def check(self, now: float) -> float:
        """Kill and drop what is due; when to look again."""
        soonest = now + (1.0 if any(who.connections for who in self._workers.values()) else 5.0)
        for who in list(self._workers.values()):
            soonest = min(soonest, self._check_worker(who, now))
        used = {name: self._used(revision) for name, revision in self.revisions.items() if revision.contract}
        for name in sorted(used, key=lambda each: used[each])[:-1]:
            if now - used[name] >= UNUSED:
                self.unload(name)
        return soonest

    def _used(self, revision: Revision) -> float:
        times = [self._board.read(slot).since for who in revision.workers for slot in who.connections]
        busy = time.monotonic() if revision.workers and self.in_flight(revision) else 0.0
        return max([revision.used, busy, *times])

    def _check_worker(self, who: Worker, now: float) -> float:
        due = list(self._deadlines(who))
        if not due or min(due) > now:
            who.overdue = False  # it came to an end after all, perhaps by the very signal
        elif not who.overdue:
            self._doom(who, now)
            return who.doomed
        elif now >= who.doomed:
            kill_tree(who.pid)
            return now + 1.0
        else:
            return who.doomed
        spare = len(who.revision.serving) > who.revision.settings.workers and not who.connections
        if spare and who.loaded and who.kill_at is None and now - who.free_since >= SPARE:
            self._retire(who)
        return min(due, default=now + 5.0)

    def _deadlines(self, who: Worker) -> Iterator[float]:
        limit = who.revision.settings.timeout_seconds + OVERDUE
        records = [self._board.read(slot) for slot in who.connections]
        calls = [record.since + limit for record in records if record.state in (CALLING, ANSWERING, SENDING)]
        yield from calls
        if not who.loaded:
            yield who.born + max(LOADING, who.revision.settings.timeout_seconds)
        if who.kill_at is not None and not calls:
            yield who.kill_at

    def _doom(self, who: Worker, now: float) -> None:
        who.overdue, who.doomed = True, now + LAST_WORDS
        if not who.loaded and not who.revision.contract:
            who.revision.trouble = f"the import took more than {LOADING:.0f} seconds"
        with contextlib.suppress(ProcessLookupError):
            os.kill(who.pid, signal.SIGUSR1)  # where it hangs, in the log

    def retire_all(self) -> bool:
        """Whether workers are left. Asked again and again at the end of the supervisor's life."""
        self._over = True
        if self._spare is not None:
            self._spare[1].close()  # which it sees, and ends
            self._spare = None
        for who in self._workers.values():
            if who.kill_at is None:
                self._retire(who)
        return bool(self._workers)

    def described(self) -> list[dict[str, Any]]:
        return [
            {
                "revision": name, "function": each.settings.function, "contract": each.contract,
                "workers": len(each.workers), "connections": sum(len(who.connections) for who in each.workers),
                "inFlight": self.in_flight(each),
                "calls": each.calls + sum(self._board.read(s).calls for who in each.workers for s in who.connections),
            }
            for name, each in sorted(self.revisions.items())
        ]  # fmt: skip
