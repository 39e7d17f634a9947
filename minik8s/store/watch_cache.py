"""The head of the store in memory: every read and every watch is served from here, every write passes through here.

One task applies the store's changes, in order, to the head: the records, the sorted keys of each resource, the ring of
recent changes, and the watchers. Each change is applied without an await, so whoever lists and then watches from the
revision of the list misses nothing and sees nothing twice. A write returns after the head has it.

Keys are paths, `/<resource>/<namespace>/<name>` or `/<resource>/<name>`; prefixes are folders of them and end with "/".
"""

from __future__ import annotations

import asyncio
import heapq
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import takewhile
from types import TracebackType
from typing import Self

from minik8s.api.errors import Gone, RequestEntityTooLarge, ServiceUnavailable, Timeout
from minik8s.metrics import Histogram
from minik8s.store.base import CasFailed, Change, Compacted, Record, Store, StoreError, StoreUnavailable, TooLarge
from minik8s.store.watcher import BUFFER, Watcher

RING = 2_048  # changes held for watches that come back; older ones are read from the store
SLICE = 256  # changes applied before other tasks have their turn
WAIT = 3.0  # seconds; as Kubernetes' watch cache waits for a revision that is still to come
WRITE_WAIT = 30.0  # seconds a finished write waits to appear in the head: more than a reconnection to etcd takes
_WRITES = Histogram(
    "etcd_request_duration_seconds",  # Kubernetes' name, whatever the store is
    "Time until a write was durable, by operation and resource.",
    ("operation", "type"),
)
Told = dict[str, list[Change]]  # changes by the prefix that watchers have


class WatchCache:
    """An async context manager around an entered store. `ring` is a number of changes, `buffer` too, for each watcher.

    The task that follows the store belongs to the context; `run()` is where its failure surfaces.
    """

    def __init__(self, store: Store, *, ring: int = RING, buffer: int = BUFFER) -> None:
        self._store = store
        self._buffer = buffer
        self._records: dict[str, Record] = {}
        self._keys: dict[str, list[str]] = {}  # sorted, by resource folder
        self._ring: deque[Change] = deque(maxlen=ring)
        self._ring_floor = 0  # the ring holds every change after this revision
        self._revision = 0
        self._watchers: dict[str, set[Watcher]] = {}
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap by revision; the int breaks ties
        self._failure = ""

    async def __aenter__(self) -> Self:
        await self._load()
        self._follower = asyncio.create_task(self._follow(), name="watch cache")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._follower.cancel()
        await asyncio.wait([self._follower])
        if not self._follower.cancelled():
            self._follower.exception()  # it has been told to every writer and watcher, and to whoever awaits run()
        self._fail("the server is shutting down")

    async def run(self) -> None:
        """Follow the store for ever; raises StoreError when that is no longer possible, after all reads and writes
        that wait have been told."""
        await asyncio.shield(self._follower)

    @property
    def revision(self) -> int:
        """The revision of the head: every change up to it is visible to `get`, `list` and watchers."""
        return self._revision

    def sizes(self) -> dict[str, int]:
        """How many objects there are, by the first part of their keys."""
        return {folder.strip("/"): len(keys) for folder, keys in self._keys.items()}

    def get(self, key: str) -> Record | None:
        return self._records.get(key)

    def list(self, prefix: str) -> tuple[list[Record], int]:
        """The records under the folder `prefix` (`/pods/`, `/pods/default/`), sorted by key, and the revision. Only for
        `/`, everything, they are sorted now."""
        keys = self._keys.get(_resource(prefix), []) if prefix != "/" else sorted(self._records)
        records = self._records
        found = keys[bisect_left(keys, prefix) : bisect_left(keys, prefix[:-1] + chr(ord("/") + 1))]
        return [records[key] for key in found], self._revision

    async def write(self, key: str, template: bytes | None, *, expect: int | None) -> Change:
        """`Store.write`, finished when the head shows it. CasFailed comes when the head shows why, so that whoever
        reads and tries again makes progress. Raises ServiceUnavailable, RequestEntityTooLarge."""
        before = self._records.get(key)
        operation = "delete" if template is None else "create" if expect == 0 else "update"
        started = time.perf_counter()
        try:
            change = await self._store.write(key, template, expect=expect)
        except CasFailed as failed:
            await self._see(failed.current, key, before)
            raise
        except TooLarge as error:
            raise RequestEntityTooLarge(str(error)) from error
        except StoreUnavailable as error:
            raise ServiceUnavailable(str(error)) from error
        _WRITES.labels(operation, key.split("/", 2)[1]).observe(time.perf_counter() - started)
        await self._catch_up(change.rev)
        return change

    async def wait(self, rev: int, *, limit: float = WAIT) -> None:
        """Return when the head is at `rev` or beyond; raises Timeout after `limit` seconds."""
        if rev <= self._revision:
            return
        if self._failure:
            raise ServiceUnavailable(self._failure)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (rev, id(future), future)
        heapq.heappush(self._waiters, waiter)
        try:
            async with asyncio.timeout(limit):
                await future
        except TimeoutError:
            text = f"Too large resource version: {rev}, current: {self._revision}"
            raise Timeout(text, retry_after=1) from None
        finally:
            if future.cancelled():
                self._waiters.remove(waiter)
                heapq.heapify(self._waiters)

    async def watch(self, prefix: str, after: int) -> Watcher:
        """The changes under the folder `prefix` (or of one key) with rev > `after`, without gap or repetition.

        Raises Gone when `after` is older than the history, Timeout when it is a revision that does not come.
        """
        if self._failure:
            raise ServiceUnavailable(self._failure)
        await self.wait(after)
        watcher = Watcher(prefix, self._buffer, self._leave)
        self._watchers.setdefault(prefix, set()).add(watcher)  # live changes queue up while the past is fetched
        try:
            watcher.prepend(self._recent(prefix, after))
            if after < self._ring_floor:
                watcher.prepend(await self._store.history(prefix, after, self._ring_floor))
        except Compacted as error:
            watcher.close()
            raise Gone(f"too old resource version: {after} ({error.floor})") from error
        except StoreUnavailable as error:
            watcher.close()
            raise ServiceUnavailable(str(error)) from error
        except BaseException:
            watcher.close()
            raise
        return watcher

    def _recent(self, prefix: str, after: int) -> Sequence[Change]:
        newer = takewhile(lambda change: change.rev > after, reversed(self._ring))
        return [change for change in newer if prefix in _prefixes(change.key)][::-1]

    def _leave(self, watcher: Watcher) -> None:
        group = self._watchers.get(watcher.prefix, set())
        group.discard(watcher)
        if not group:
            self._watchers.pop(watcher.prefix, None)

    async def _see(self, current: Record | None, key: str, before: Record | None) -> None:
        """Wait until the head has the state `current` that a write met, or one after it."""
        if current is not None:
            await self._catch_up(current.rev)
        while current is None and before is not None and self._records.get(key) is before:
            await self._catch_up(self._revision + 1)

    async def _catch_up(self, rev: int) -> None:
        try:
            await self.wait(rev, limit=WRITE_WAIT)
        except Timeout as error:
            raise Timeout(f"the store has revision {rev}, but does not report it; known is {self._revision}") from error

    async def _follow(self) -> None:
        try:
            while True:
                try:
                    async with aclosing(self._store.changes(self._revision)) as batches:
                        async for batch in batches:
                            await self._apply(batch)
                except Compacted:  # cut off from the store for too long: only a new snapshot helps
                    await self._load()
        except StoreError as error:
            self._fail(str(error))
            raise

    async def _load(self) -> None:
        rev, records = await self._store.load()
        self._records = {record.key: record for record in sorted(records)}
        self._keys = {}
        for key in self._records:
            self._keys.setdefault(_resource(key), []).append(key)
        self._ring.clear()
        self._ring_floor = self._revision = rev
        for watcher in self._all_watchers():
            watcher.end(Gone("the server lost its history: list again"))
        self._wake()

    async def _apply(self, batch: Sequence[Change]) -> None:
        for start in range(0, len(batch), SLICE):
            if start:
                await asyncio.sleep(0)
            told: Told = {}
            for change in batch[start : start + SLICE]:
                self._publish(change, told)
            for prefix, changes in told.items():
                for watcher in tuple(self._watchers[prefix]):  # one that overflows leaves the group
                    watcher.push(changes)
            self._wake()

    def _publish(self, change: Change, told: Told) -> None:
        """Apply one change, and note for whom it is: for the watchers of which prefix."""
        self._revision = change.rev
        key, record = change.key, change.record()
        if not key:
            return
        if record is None:
            if self._records.pop(key, None) is not None:
                keys = self._keys[_resource(key)]
                del keys[bisect_left(keys, key)]
        else:
            if key not in self._records:
                insort(self._keys.setdefault(_resource(key), []), key)
            self._records[key] = record
        if len(self._ring) == self._ring.maxlen:
            self._ring_floor = self._ring[0].rev
        self._ring.append(change)
        for prefix in _prefixes(key):
            if prefix in self._watchers:
                told.setdefault(prefix, []).append(change)

    def _wake(self) -> None:
        while self._waiters and self._waiters[0][0] <= self._revision:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        for watcher in self._all_watchers():
            watcher.end(ServiceUnavailable(self._failure))
        for _, _, future in self._waiters:
            if not future.done():
                future.set_exception(ServiceUnavailable(self._failure))
        self._waiters.clear()

    def _all_watchers(self) -> Iterable[Watcher]:
        return [watcher for group in self._watchers.values() for watcher in group]


def _resource(key: str) -> str:
    """The folder of the resource: `/pods/` of `/pods/default/web`."""
    return key[: key.index("/", 1) + 1]


def _prefixes(key: str) -> Iterator[str]:
    """All that a watcher of `/pods/default/web` may watch: `/`, `/pods/`, `/pods/default/`, the key itself."""
    at = 0
    while at >= 0:
        yield key[: at + 1]
        at = key.find("/", at + 1)
    yield key
