"""A listening socket that outlives its agent for a moment: who connects while the next one starts waits, and is served.

A tiny process holds a copy of the socket and does nothing else; the kernel goes on queueing connections. The next agent
takes the copy back out of that process (pidfd_getfd), and puts a new holder in its place. A holder knows by a pipe that
its agent is gone, however it went, and leaves `SECONDS` later: a node that is stopped for good refuses connections from
then on.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

SOCKET = "gateway.json"  # in the data folder: who holds the gateway's socket
SECONDS = 30  # that a new agent has to take the socket over
BACKLOG = 4096
PIDFD_GETFD = 438  # number of the system call, the same on x86-64 and arm64
NAME = "minik8s-gateway-socket"  # how `ps` shows a holder


class KeptSocket:
    """`open` gives a socket that listens at an address, an earlier agent's if there is one; `record` says who holds it.
    The holder stays as long as this object does, and a little longer."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._pipe = -1
        self._holder: subprocess.Popen[bytes] | None = None

    def open(self, host: str, port: int) -> socket.socket:
        """Raises OSError where nobody can listen there."""
        earlier = _read(self._record)
        sock = _taken_back(earlier, host, port)
        if sock is None:
            end_holder(self._record)  # of another address
            sock = _listening(host, port)
        holder = self._hold(sock)
        self._record.parent.mkdir(parents=True, exist_ok=True)
        address = {"pid": holder, "started": _started(holder), "fd": sock.fileno(), "host": host, "port": port}
        temporary = self._record.with_suffix(".tmp")
        temporary.write_text(json.dumps(address))
        temporary.replace(self._record)
        _end(earlier)
        return sock

    def _hold(self, sock: socket.socket) -> int:
        """A process with a copy of the socket under the same number."""
        ours, self._pipe = os.pipe2(os.O_CLOEXEC)
        try:
            self._holder = subprocess.Popen(
                ["/bin/sh", "-c", f"read _; exec sleep {SECONDS}", NAME],
                stdin=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(sock.fileno(),),
                start_new_session=True, cwd="/",
            )  # fmt: skip
        finally:
            os.close(ours)
        return self._holder.pid

    def close(self) -> None:
        """As the end of the process does."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def end_holder(record: Path) -> None:
    """Nobody will take this socket over. Idempotent."""
    _end(_read(record))
    record.unlink(missing_ok=True)


def _read(record: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(record.read_text())
        if isinstance(found, dict) and _started(int(found.get("pid", 0))) == found.get("started"):
            return found
    return {}


def _end(holder: dict[str, Any]) -> None:
    if holder:
        with suppress(ProcessLookupError):
            os.kill(holder["pid"], signal.SIGKILL)


def _taken_back(holder: dict[str, Any], host: str, port: int) -> socket.socket | None:
    """What a holder has, if that is a socket which listens there."""
    if (holder.get("host"), holder.get("port")) != (host, port):
        return None
    try:
        descriptor = os.pidfd_open(holder["pid"])
    except OSError:
        return None
    try:
        copy = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, descriptor, holder["fd"], 0)
    finally:
        os.close(descriptor)
    if copy < 0:  # an old kernel, or one that does not let us
        return None
    os.set_inheritable(copy, False)
    sock = socket.socket(fileno=copy)
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        return None
    sock.setblocking(False)
    return sock


def _listening(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks (proc(5)): a number that is given again is another process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
