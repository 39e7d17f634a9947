"""One agent per data folder: a lock that the kernel lets go of however the process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = "agent.pid"


class AlreadyRunning(RuntimeError):
    """Another agent holds the data folder; `pid` is its process (0 if it could not be read)."""

    def __init__(self, data_dir: Path, pid: int) -> None:
        super().__init__(
            f"an agent (pid {pid or 'unknown'}) already runs on {data_dir}; "
            f"stop it with 'minik8s stop --data-dir {data_dir}' or choose another --data-dir"
        )
        self.pid = pid


@contextmanager
def agent_lock(data_dir: Path) -> Iterator[None]:
    """Hold the data folder. The file names our pid; it stays when we are gone, the lock does not."""
    data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(data_dir, _pid(descriptor)) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def running_pid(data_dir: Path) -> int | None:
    """The pid of the agent that holds the folder now; None if nobody does."""
    try:
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(descriptor) or None
    else:
        return None
    finally:
        os.close(descriptor)


def _pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdigit() else 0
