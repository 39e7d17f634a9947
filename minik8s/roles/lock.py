"""One agent per data folder: a lock that the kernel lets go of however the process ends.

It is an open file description's lock (fcntl(2)): it belongs to whoever opened the file, and can be looked at without
being taken.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = "agent.pid"
PID_WIDTH = 10  # characters; the file is never half written


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
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
        except BlockingIOError:
            raise AlreadyRunning(data_dir, _pid(descriptor)) from None
        os.pwrite(descriptor, f"{os.getpid():<{PID_WIDTH}}\n".encode(), 0)  # at one stroke, whatever was there
        yield
    finally:
        os.close(descriptor)


def running_pid(data_dir: Path) -> int | None:
    """The pid of the agent that holds the folder now; None if nobody does.

    The lock is only looked at: whoever took it for a moment to try would keep an agent from starting just then.
    """
    try:
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
        (type,) = struct.unpack_from("h", answer)
        return None if type == fcntl.F_UNLCK else _pid(descriptor) or None
    finally:
        os.close(descriptor)


def _whole_file(type: int) -> bytes:
    """C's `struct flock` of 64-bit Linux: type, whence, start, length (0 = to the end), and pid, 0 for such locks."""
    return struct.pack("hhqqi4x", type, os.SEEK_SET, 0, 0, 0)


def _pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").split()
    return int(text[0]) if text and text[0].isdigit() else 0
