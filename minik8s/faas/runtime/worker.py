"""A worker's life: forked off the supervisor, it loads one revision, says so, and serves what it is lent.

A spare one is forked before anybody knows for what: it has gone through the motions when its code comes.
"""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minik8s.archives import BadArchive, pack_files, unpack
from minik8s.faas.runtime import output, sync_worker
from minik8s.faas.runtime.answers import traceback_of
from minik8s.faas.runtime.board import Board
from minik8s.faas.runtime.channel import lend, receive_job, tell
from minik8s.faas.runtime.contracts import Contract, LoadError, load, prepare
from minik8s.faas.runtime.processes import become_user, become_worker
from minik8s.faas.runtime.settings import Settings, divided, read_settings

if TYPE_CHECKING:
    from minik8s.faas.runtime.asgi import Lifespan

_REQUEST = b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
TIMES = 8  # that something is rehearsed: the interpreter adapts to what it has run as often
CHANNEL = 3  # the file descriptor of the way to the supervisor, in every worker


class Job(NamedTuple):
    """What a worker is forked for. `archive` is given to the first of a revision only: it unpacks for the others."""

    settings: Settings
    folder: Path
    archive: bytes | None
    uid: int | None
    board: Board


def run(job: Job | None, board: Board, channel_fd: int) -> None:
    """Never returns: it is called in the forked child, on top of what the supervisor was doing. Without a job it waits
    for one."""
    status = 1
    try:
        channel = _alone(channel_fd)
        become_worker()
        if job is None:
            for _ in range(TIMES):
                _rehearse()
            job = _awaited(channel, board)
        become_user(job.settings.revision, job.uid)
        contract = _load(job, channel)
        if contract is not None:
            _serve(job, *contract, channel)
            status = 0
    except BaseException:  # whatever it is, it must not unwind into the supervisor's frames below
        what = f"a worker of {job.settings.revision}" if job is not None else "a spare worker"
        os.write(2, f"{what} has failed:\n{traceback.format_exc()}".encode())
    finally:
        os._exit(status)


def _awaited(channel: socket.socket, board: Board) -> Job:
    """The job, when it comes. Ends the process if there will be none."""
    received = receive_job(channel)
    if received is None:
        os._exit(0)
    told, put = received
    parts = divided(put)
    assert parts is not None  # the supervisor has read it
    return Job(read_settings(parts[0]), Path(told["folder"]), parts[1], told["uid"], board)


def _rehearse() -> None:
    """Do once what loading and a first call do, with code that does nothing: what is touched for the first time after a
    fork costs far more than the work itself."""
    path = list(sys.path)
    with tempfile.TemporaryDirectory() as folder:
        unpack(pack_files({"func.py": b"async def main(params):\n    return params\n"}), Path(folder))
        sys.path.insert(0, folder)
        load(Path(folder), "")
        del sys.modules["func"]
    sys.path[:] = path
    sys.path_importer_cache.pop(folder, None)
    importlib.invalidate_caches()
    for asynchronous in (True, False):
        _rehearse_call(asynchronous)
    asyncio.set_event_loop(None)


def _rehearse_call(asynchronous: bool) -> None:
    ours, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client, served = socket.socketpair()
    with ours, channel, client, served:

        def last(params: object) -> object:
            ours.send(b"{}")  # as the supervisor, which has heard enough
            return params

        async def last_too(params: object) -> object:
            return last(params)

        client.send(_REQUEST)
        lend(ours, 0, served)
        contract = Contract("main", last_too if asynchronous else last, 1, asynchronous)
        job = Job(read_settings(b'{"revision": "rehearsal"}'), Path(), None, None, Board())
        _serve(job, contract, None, channel)
    if asynchronous:
        asyncio.get_event_loop().close()


def _alone(channel_fd: int) -> socket.socket:
    """Away with what belongs to the supervisor. Its objects stay, unused, so that nothing closes our descriptors."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(channel_fd, CHANNEL, inheritable=False) if channel_fd != CHANNEL else None
    os.closerange(CHANNEL + 1, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    output.capture()
    faulthandler.enable(2)  # a crash in native code tells where
    faulthandler.register(signal.SIGUSR1, 2)  # sent before an overdue worker is killed
    return socket.socket(fileno=CHANNEL)


def _load(job: Job, channel: socket.socket) -> tuple[Contract, Lifespan | None] | None:
    """None if it failed, which then is told."""
    begun = time.monotonic()
    lifespan = None
    try:
        if job.archive is not None:
            unpack(job.archive, job.folder)
        prepare(job.folder, job.settings.env)
        contract = load(job.folder, job.settings.handler)
        if contract.name == "asgi":
            from minik8s.faas.runtime.asgi import Lifespan

            lifespan = Lifespan(contract.target)
            lifespan.startup()
    except (LoadError, BadArchive) as error:
        tell(channel, failed=f"{type(error).__name__}: {error}")
        return None
    except BaseException as error:  # SystemExit too: importing it is what the code does not survive
        output.report(traceback_of(error))
        tell(channel, failed=traceback_of(error))
        return None
    output.now[0].flush()
    tell(channel, loaded=contract.name, asynchronous=contract.asynchronous, seconds=time.monotonic() - begun)
    return contract, lifespan


def _serve(job: Job, contract: Contract, lifespan: Lifespan | None, channel: socket.socket) -> None:
    if contract.asynchronous:
        from minik8s.faas.runtime import async_worker

        async_worker.serve(contract, lifespan, job.settings, channel, job.board)
    else:
        sync_worker.serve(contract, job.settings, channel, job.board)
