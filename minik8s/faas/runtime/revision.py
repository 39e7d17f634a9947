"""A revision that is loaded, and its worker processes, as the supervisor knows them."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from minik8s.faas.runtime import http1
from minik8s.faas.runtime.connection import Connection
from minik8s.faas.runtime.settings import Settings


class Worker:
    """The supervisor's side of a worker process."""

    def __init__(self, pid: int, channel: socket.socket, revision: Revision) -> None:
        self.pid = pid
        self.channel = channel
        self.revision = revision
        self.connections: dict[int, Connection] = {}  # by slot
        self.loaded = False
        self.born = self.free_since = time.monotonic()
        self.doomed = 0.0
        self.kill_at: float | None = None  # set once it has been told to end
        self.overdue = False  # it was told to write down where it hangs, and is killed a moment later


class Revision:
    """`waiting` are connections on which somebody waits for the verdict."""

    def __init__(self, settings: Settings, folder: Path, uid: int | None) -> None:
        self.settings = settings
        self.folder = folder
        self.uid = uid
        self.workers: list[Worker] = []
        self.waiting: list[Connection] = []
        self.contract = ""  # "" until the first worker has loaded it
        self.asynchronous = False
        self.seconds = 0.0
        self.used = time.monotonic()
        self.calls = 0  # of connections that have ended
        self.failures = 0  # workers in a row that could not load what loaded once
        self.retry_at = 0.0
        self.trouble = ""

    @property
    def most(self) -> int:
        """How many processes it may have."""
        wanted = self.settings.workers
        return wanted if self.asynchronous else max(wanted, self.settings.concurrency)

    @property
    def serving(self) -> list[Worker]:
        return [each for each in self.workers if each.kill_at is None and not each.overdue]


def loaded_answer(revision: Revision) -> bytes:
    return http1.json_answer(200, {"contract": revision.contract, "seconds": round(revision.seconds, 6)})


def cause(status: int, *, overdue: bool) -> str:
    if overdue:
        return "was ended because a call took too long"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = ", perhaps for the memory it used" if number == signal.SIGKILL else ""
        return f"was ended by signal {number} ({signal.Signals(number).name}{hint})"
    return f"exited with status {os.WEXITSTATUS(status)}"
