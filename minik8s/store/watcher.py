"""One watch: a bounded buffer between the task that publishes changes and the one that sends them to a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType
from typing import Self

from minik8s.api.errors import Gone
from minik8s.store.base import Change

BUFFER = 4_096  # changes that wait for one slow watcher before it is told to list again


class Watcher:
    """The changes under one prefix after one revision. `WatchCache.watch` makes it; close it, or use it in `with`.

    `direct`, if set, is called with changes that come while somebody waits in `next`, instead of waking him; it says
    whether it has taken them. Who has fallen behind is not waiting, so the order holds. All watchers of a prefix are
    handed the same sequence.
    """

    def __init__(self, prefix: str, limit: int, leave: Callable[[Watcher], None]) -> None:
        self.prefix = prefix
        self.direct: Callable[[Sequence[Change]], bool] | None = None
        self._limit = limit
        self._leave = leave
        self._buffer: list[Change] = []
        self._sleeper: asyncio.Future[None] | None = None
        self._nudged = False
        self._end: Exception | None = None

    async def next(self) -> list[Change]:
        """All changes since the last call, at least one; none after a `nudge`. Raises Gone when the watch has to begin
        anew with a list, ServiceUnavailable when the server stops. Cancelling it loses nothing."""
        while not self._buffer:
            if self._end is not None:
                raise self._end
            if self._nudged:
                self._nudged = False
                return []
            self._sleeper = asyncio.get_running_loop().create_future()
            try:
                await self._sleeper
            finally:
                self._sleeper = None
        taken, self._buffer = self._buffer, []
        return taken

    async def __aiter__(self) -> AsyncGenerator[Change, None]:
        """One by one; who breaks off loses the rest of a batch."""
        while True:
            for change in await self.next():
                yield change

    @property
    def idle(self) -> bool:
        """Whether all changes up to the cache's revision have been taken by `next`."""
        return not self._buffer and self._end is None

    def push(self, changes: Sequence[Change]) -> None:
        """Hand over changes. This call is the whole price of a delivery: keep it short."""
        if self._sleeper is not None and self.direct is not None and self.direct(changes):
            return
        self._buffer += changes
        if self._sleeper is not None:
            self._wake()
        elif len(self._buffer) > self._limit:
            self._overflow()

    def nudge(self) -> None:
        """Let `next` return without a change, once: so that a timer costs nothing while changes come."""
        self._nudged = True
        self._wake()

    def prepend(self, changes: Sequence[Change]) -> None:
        """Put the past before what has come meanwhile."""
        if self._end is None:
            self._buffer[:0] = changes
            if len(self._buffer) > self._limit:
                self._overflow()

    def end(self, error: Exception) -> None:
        """Drop what waits; `next` raises `error` from now on."""
        self._leave(self)
        self._buffer = []
        self._end = self._end or error
        self._wake()

    def close(self) -> None:
        """Leave the cache and free the buffer."""
        self.end(Gone("the watch is closed"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _overflow(self) -> None:
        self.end(Gone(f"the watch fell more than {self._limit} changes behind: list again"))

    def _wake(self) -> None:
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None and not sleeper.done():
            sleeper.set_result(None)
