"""Sockets made inside another network namespace.

A socket belongs for life to the namespace that its thread was in when it was made. So a worker thread enters the
namespace, makes the socket and goes home; the event loop then uses it like any other.
"""

from __future__ import annotations

import ctypes
import os
import socket

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


def socket_in(pid: int, family: socket.AddressFamily) -> socket.socket:
    """A non-blocking TCP socket in the network namespace of a process. Blocks: call it in a worker thread.

    ProcessLookupError or FileNotFoundError if the process is gone, PermissionError without CAP_SYS_ADMIN.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
            try:
                made = socket.socket(family, socket.SOCK_STREAM)
            finally:
                _setns(home)  # a pool's thread that stayed there would make other people's sockets in a pod
        finally:
            os.close(there)
    finally:
        os.close(home)
    made.setblocking(False)
    return made
