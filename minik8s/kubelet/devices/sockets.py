"""The two sockets of this node: `kubelet.sock` for device plugins, and the pod resources API for those who watch them.

Plugins see by the removal of their sockets, and by the making of ours, that a node has started, and register anew.
gRPC is loaded when somebody connects for the first time, on a socket that has been listening since the start.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from minik8s.log import get_logger

SOCKET = "kubelet.sock"
POD_RESOURCES = "pod-resources"  # folder beside that of the plugins
LAST_SECONDS = 1.0  # for calls that are under way when we stop
log = get_logger("devices")


class Unusable(Exception):
    """The folder cannot be had; the message says why and what would help."""


def prepare(folder: Path) -> None:
    """Make the folder, and remove the sockets that an earlier node and its plugins have left. Blocking. Unusable."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        if _answers(folder / SOCKET):
            raise Unusable(f"another kubelet or agent serves {folder / SOCKET}: stop it, or set --device-plugins")
        for path in folder.iterdir():
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise Unusable(f"{folder}: {error.strerror or error}") from None


def left(folder: Path) -> list[Path]:
    """Sockets of ours and of plugins behind which nobody is any more: somebody was killed. Blocking."""
    there = [*folder.glob("*.sock"), *(folder.parent / POD_RESOURCES).glob(SOCKET)]
    return sorted(path for path in there if path.is_socket() and not _answers(path))


def tidy(folder: Path) -> None:
    """Take away what is `left`, and the folders if nothing else is in them. Blocking."""
    for path in left(folder):
        path.unlink(missing_ok=True)
    for empty in (folder, folder.parent / POD_RESOURCES, folder.parent):
        with suppress(OSError):  # it is not, or was never there
            empty.rmdir()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


@asynccontextmanager
async def serving(path: Path, module: str, services: Callable[[], list[Any]]) -> AsyncIterator[None]:
    """Serve gRPC at `path` during the body. `services` is called, and `module` imported, when somebody connects."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(path))
        inode = os.stat(path).st_ino
        listener.listen(64)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(_serve(listener, module, services), name=f"serving {path.name}")
            try:
                yield
            finally:
                task.cancel()
                with suppress(OSError):  # another may have taken the place
                    if os.stat(path).st_ino == inode:
                        os.unlink(path)
    finally:
        listener.close()


async def _serve(listener: socket.socket, module: str, services: Callable[[], list[Any]]) -> None:
    await _connection(listener)
    await asyncio.to_thread(import_module, module)
    from grpclib.server import Server

    server = Server(services())
    await server.start(sock=listener)
    try:
        await asyncio.Event().wait()
    finally:
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await server.wait_closed()


async def _connection(listener: socket.socket) -> None:
    """Somebody waits to be accepted."""
    loop = asyncio.get_running_loop()
    come = asyncio.Event()
    loop.add_reader(listener.fileno(), come.set)
    try:
        await come.wait()
    finally:
        loop.remove_reader(listener.fileno())
