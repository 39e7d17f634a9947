"""Sockets made inside another network namespace.

A socket belongs for life to the namespace that its thread was in when it was made. So a worker thread enters the
namespace, makes the socket and goes home; the event loop then uses it like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
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


class Port:
    """A TCP connection into a pod; see `base.PortStream`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        return await self._reader.read(64 << 10)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close_write(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.write_eof()


async def connect_in(pid: int, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """`localhost:port` as a process sees it, IPv4 first; the last error if neither answers."""
    loop = asyncio.get_running_loop()
    refused: OSError | None = None
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        made = await asyncio.to_thread(socket_in, pid, family)
        try:
            await loop.sock_connect(made, (host, port))
            return await asyncio.open_connection(sock=made)
        except OSError as error:
            made.close()
            refused = refused or error
        except BaseException:
            made.close()
            raise
    assert refused is not None
    raise refused
