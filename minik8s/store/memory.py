"""A store without a disk, for tests and throw-away clusters: it keeps its content as long as the object lives.

Entered again after it was left, it resumes, as a restarted process does with a file. It can fail on demand.
"""

from __future__ import annotations

import asyncio

from minik8s.store.base import Change, Record, StoreUnavailable
from minik8s.store.single_writer import KEEP, SingleWriter, Snapshot


class MemoryStore(SingleWriter):
    """A `Store` in memory; `keep` is the number of revisions of history."""

    def __init__(self, *, keep: int = KEEP) -> None:
        super().__init__(keep=keep)
        self._log: list[Change] = []
        self._state: dict[str, Record] = {}  # what a disk would hold: committed writes only
        self._fault = ""

    def fail(self, reason: str) -> None:
        """Let the next commit fail, as a full disk does; leaving and entering the store again repairs it."""
        self._fault = reason

    async def check(self) -> None:
        """There is nothing that could be damaged."""

    async def _open(self) -> Snapshot:
        self._fault = ""
        return Snapshot(self._revision, self._floor, list(self._state.values()))

    def _commit(self, changes: list[Change]) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self._loop.create_future()
        if self._fault:
            done.set_exception(StoreUnavailable(self._fault))
            return done
        self._log += changes
        for change in changes:
            if (record := change.record()) is not None:
                self._state[change.key] = record
            else:
                del self._state[change.key]
        done.set_result(None)
        return done

    def _forget(self, after: int, upto: int) -> asyncio.Future[None]:
        self._log = [change for change in self._log if change.rev > upto]
        done: asyncio.Future[None] = self._loop.create_future()
        done.set_result(None)
        return done

    async def _read(self, prefix: str, after: int, upto: int) -> list[Change]:
        return [c for c in self._log if after < c.rev <= upto and c.key.startswith(prefix)]

    async def _close(self) -> None:
        pass
