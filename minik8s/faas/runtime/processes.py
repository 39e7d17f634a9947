"""Processes as Linux has them: what a worker sets for itself, and how all that a worker has started is ended.

Each worker is the reaper of its own descendants, so whatever user code forks stays below the worker while that lives.
What becomes the supervisor's own child is therefore left over from a worker that is dead, and is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 4, 15, 36
OOM_SCORE: Final = 1000  # of workers: the kernel takes them before the supervisor
_libc: Final = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def become_worker() -> None:
    """Group and session of its own, first for the out-of-memory killer, parent of what its own children leave."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump of memory would fill the node's disk
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    adopt_orphans()


def become_user(name: str, uid: int | None) -> None:
    """No rights, and a name; it does not outlive its parent."""
    if uid is not None:
        os.umask(0o077)  # /tmp is everybody's
        with contextlib.suppress(OSError):  # a user namespace without that user: the code stays who it is
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
    # After the change of user, which undoes both.
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _libc.prctl(_PR_SET_NAME, name[-15:].encode(), 0, 0, 0)


def kill_tree(*roots: int) -> None:
    """SIGKILL processes and all below them. Stopped first, so that nothing is forked while we look."""
    found: set[int] = set()
    for _ in range(20):  # what forks meanwhile is stopped generation by generation
        fresh = _with_descendants(set(roots)) - found
        if not fresh:
            break
        for each in fresh:
            _signal(each, signal.SIGSTOP)
        found |= fresh
    for each in found:
        _signal(each, signal.SIGKILL)


def kill_orphans(known: Iterable[int]) -> None:
    """SIGKILL children of this process that are no workers, and what is below them."""
    orphans = _children(os.getpid(), _parents()) - set(known)
    if orphans:
        kill_tree(*orphans)


def _with_descendants(roots: set[int]) -> set[int]:
    parents = _parents()
    found, fresh = set(roots), roots
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def _children(pid: int, parents: dict[int, int]) -> set[int]:
    return {child for child, parent in parents.items() if parent == pid}


def _parents() -> dict[int, int]:
    """Of each process that can be seen, its parent."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = Path("/proc", name, "stat").read_bytes()
                parents[int(name)] = int(stat[stat.rindex(b")") + 2 :].split()[1])
    return parents


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
