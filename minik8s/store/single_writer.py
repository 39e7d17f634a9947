"""What every store inside one process shares: decide on the loop, commit in groups, publish in order.

A write is decided at once against the newest state of its key, committed or not, takes the next revision and joins the
queue. There is no await between these steps, so two writers can never win the same revision. All that queues up while
one group is on its way to the disk becomes the next group: many writers share the price of one fsync.
A write decided on a state that is not yet committed stands in the queue behind it, and fails with it.
After a failed commit nothing is known for sure, so the store stops: every pending and later write fails.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from minik8s.store.base import CasFailed, Change, Compacted, Record, StoreUnavailable, check_write, stamp

KEEP = 10_000  # revisions of history; a watch that comes back later than that lists again
STEP = 1_000  # revisions per step of compaction: a few milliseconds of the writer's time


class Snapshot(NamedTuple):
    """What `_open` finds."""

    revision: int
    floor: int
    records: list[Record]


class Feed:
    """One consumer of `changes()`: a buffer, and the future that the consumer sleeps on."""

    def __init__(self) -> None:
        self._buffer: list[Change] = []
        self._sleeper: asyncio.Future[None] | None = None

    def push(self, changes: Iterable[Change]) -> None:
        self._buffer.extend(changes)
        self.wake()

    @property
    def full(self) -> bool:
        return bool(self._buffer)

    def wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def take(self) -> list[Change]:
        """What has come since the last call; may be empty after a `wake`."""
        if not self._buffer:
            self._sleeper = asyncio.get_running_loop().create_future()
            try:
                await self._sleeper
            finally:
                self._sleeper = None
        taken, self._buffer = self._buffer, []
        return taken


class SingleWriter(ABC):
    """A `Store` without its disk: subclasses open, commit a group, read history and forget."""

    def __init__(self, *, keep: int = KEEP) -> None:
        self._keep = keep
        self._latest: dict[str, Record] = {}  # newest state of each living key, uncommitted writes included
        self._taken = 0  # newest revision given out
        self._revision = 0  # newest revision committed
        self._floor = 0
        self._queue: list[tuple[Change, asyncio.Future[Change]]] = []
        self._inflight: list[tuple[Change, asyncio.Future[Change]]] = []
        self._scheduled = False
        self._feeds: set[Feed] = set()
        self._stopped = "the store is not open"

    @abstractmethod
    async def _open(self) -> Snapshot: ...

    @abstractmethod
    def _commit(self, changes: list[Change]) -> asyncio.Future[None]:
        """Make the changes durable, all or none."""

    @abstractmethod
    def _forget(self, after: int, upto: int) -> asyncio.Future[None]:
        """Drop the states that changes with after < rev <= upto superseded, and the traces of deleted keys."""

    @abstractmethod
    async def _read(self, prefix: str, after: int, upto: int) -> list[Change]: ...

    @abstractmethod
    async def _close(self) -> None: ...

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._revision, self._floor, records = await self._open()
        self._taken = self._revision
        self._latest = {record.key: record for record in records}
        self._stopped = ""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if pending := [future for _, future in self._inflight + self._queue]:
            await asyncio.wait(pending)
        self._stop("the store is closed")
        await self._close()

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def floor(self) -> int:
        return self._floor

    async def load(self) -> tuple[int, list[Record]]:
        committed = dict(self._latest)
        for change, _ in reversed(self._inflight + self._queue):
            if change.prev is not None:
                committed[change.key] = change.prev
            else:
                del committed[change.key]
        return self._revision, list(committed.values())

    async def write(self, key: str, template: bytes | None, *, expect: int | None) -> Change:
        check_write(key, template)
        if self._stopped:
            raise StoreUnavailable(self._stopped)
        prev = self._latest.get(key)
        if (expect is not None and expect != (prev.rev if prev else 0)) or (template is None and prev is None):
            raise CasFailed(key, prev)
        self._taken = rev = self._taken + 1
        change = Change(key, rev, None if template is None else stamp(template, rev), prev)
        if (record := change.record()) is not None:
            self._latest[key] = record
        else:
            del self._latest[key]
        future: asyncio.Future[Change] = self._loop.create_future()
        self._queue.append((change, future))
        self._schedule()
        return await future

    async def changes(self, after: int) -> AsyncGenerator[Sequence[Change], None]:
        feed = Feed()
        self._feeds.add(feed)  # before the look back, so that no change falls between the two
        try:
            if missed := await self.history("", after, self._revision):
                yield missed
            while feed.full or not self._stopped:
                if batch := await feed.take():
                    yield batch
            raise StoreUnavailable(self._stopped)
        finally:
            self._feeds.discard(feed)

    async def history(self, prefix: str, after: int, upto: int) -> list[Change]:
        if self._stopped:
            raise StoreUnavailable(self._stopped)
        if after < self._floor:
            raise Compacted(after, self._floor)
        return await self._read(prefix, after, upto) if after < upto else []

    async def compact(self, before: int) -> None:
        while not self._stopped and (step := min(before, self._revision, self._floor + STEP)) > self._floor:
            await asyncio.shield(self._raise_floor(step))  # a step given up half way would never be made up for

    def _schedule(self) -> None:
        # One turn of the loop later, so that all who are ready to write now share the commit.
        if not self._scheduled and not self._inflight:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._queue:
            self._inflight, self._queue = self._queue, []
            self._commit([change for change, _ in self._inflight]).add_done_callback(self._committed)

    def _committed(self, commit: asyncio.Future[None]) -> None:
        if self._failed(commit) or not self._inflight:  # empty: stopped meanwhile, and its writers told so
            return
        batch, self._inflight = self._inflight, []
        changes = [change for change, _ in batch]
        self._revision = changes[-1].rev
        for feed in self._feeds:  # consumers wake before the writers, so that writers find their change in the head
            feed.push(changes)
        for change, future in batch:
            if not future.done():  # its writer may have been cancelled
                future.set_result(change)
        if self._queue:
            self._schedule()
        if self._revision - self._floor >= self._keep + STEP:
            self._raise_floor(self._floor + STEP)

    def _raise_floor(self, floor: int) -> asyncio.Future[None]:
        before, self._floor = self._floor, floor  # first, so that nobody starts to read what is about to go
        forgetting = self._forget(before, floor)
        forgetting.add_done_callback(self._failed)
        return forgetting

    def _failed(self, work: asyncio.Future[None]) -> bool:
        error = work.exception()
        if error is not None:
            self._stop(str(error) or repr(error))
        return error is not None

    def _stop(self, reason: str) -> None:
        self._stopped = self._stopped or reason
        pending, self._inflight, self._queue = self._inflight + self._queue, [], []
        for _, future in pending:
            if not future.done():
                future.set_exception(StoreUnavailable(self._stopped))
        for feed in self._feeds:
            feed.wake()
