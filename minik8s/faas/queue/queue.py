"""Asynchronous calls that are to be made, and what came of them: what makes a 202 a promise.

`CallQueue` is all that others need of it: whoever puts calls gets durable ones, the dispatcher takes what is due and
settles it. A call that was taken and not settled is due again when the queue is opened again: it is made at least once.
`sqlite_queue.py` keeps them in a file, `MemoryQueue` as long as the process.
"""

from __future__ import annotations

import heapq
import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

QUEUED, SUCCEEDED, DEAD = "Queued", "Succeeded", "DeadLetter"
ENVELOPE = "application/vnd.minik8s.call+json"
MOST = 32 * 2**20  # bytes of payloads that are taken at once


class Envelope(msgspec.Struct, omit_defaults=True):
    """A whole request in the body of another: how gateways hand over what they were asked to do later."""

    method: str = "POST"
    path: str = ""  # behind the function's own, with the query
    headers: dict[str, str] = {}  # names in lower case
    body: bytes = b""
    key: str = ""
    callbackUrl: str = ""


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request to a function ("NAMESPACE/NAME"); or, with `target`, to a URL that is told how such a one has ended."""

    id: str
    function: str
    accepted: float  # Unix seconds
    method: str = "POST"
    path: str = ""  # behind the function's own, with the query
    headers: dict[str, str] = {}
    body: bytes = b""
    key: str = ""  # there is never a second call of the function with the same one
    callback: str = ""  # URL that is told how it has ended
    target: str = ""
    depth: int = 0  # how many calls it follows from

    @property
    def line(self) -> str:
        """What waits behind one another: a slow URL must not hold up the function that it is told of."""
        return f"{self.function}>" if self.target else self.function


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last answer; `code` 0: there was none. `error` and `cause` say what was wrong with it."""

    code: int = 0
    contentType: str = ""
    body: bytes = b""
    error: str = ""
    cause: str = ""
    cut: bool = False  # the body was too large to be kept, or had to make room


class Record(NamedTuple):
    """A call and how it stands. `since`: when its age begins; `due`: when it may be made; `number`: its place."""

    call: Call
    phase: str
    number: int
    attempts: int
    since: float
    due: float
    ended: float
    result: Result | None


class Again(NamedTuple):
    """It has failed, and is to be made again at `due`."""

    attempts: int
    due: float
    result: Result


class Ended(NamedTuple):
    """It is done, for good or (`phase` DEAD) for bad. `then` are put with it: both are durable or neither."""

    phase: str
    attempts: int
    at: float
    result: Result
    then: Sequence[Call] = ()


class Taken(NamedTuple):
    """What is due, up to the limit asked for; and when the next one is (None: there is no other)."""

    records: list[Record]
    next_due: float | None


class Limits(NamedTuple):
    """What is kept of calls that have ended: none longer than `seconds`; the oldest results make room."""

    results: int = 100_000
    result_bytes: int = 64 * 2**20
    result_seconds: float = 86_400.0
    dead: int = 10_000
    dead_bytes: int = 256 * 2**20
    dead_seconds: float = 14 * 86_400.0


class Waiting(NamedTuple):
    calls: int
    bytes: int


class CallQueue(Protocol):
    """`put`, `settle`, `redrive`, `purge` and `forget` are done when it is durable. All raise StoreError."""

    async def put(self, calls: Sequence[Call]) -> list[str]:
        """The ids under which they are kept: of a call whose key is known the one that has it already."""
        ...

    async def take(self, line: str, now: float, limit: int, most: int = MOST) -> Taken:
        """The oldest that are due and that nobody has. Each is to be settled, or given back.

        There is one at least; further ones only as long as all together have no more than `most` bytes of payload.
        """
        ...

    def give_back(self, id: str) -> None:
        """It has not been made: it stays as it was."""
        ...

    async def settle(self, id: str, outcome: Again | Ended) -> None: ...

    def waiting(self) -> dict[str, Waiting]:
        """By line, all that has not ended."""
        ...

    def is_taken(self, id: str) -> bool: ...

    async def find(self, function: str, id: str) -> Record | None: ...

    async def dead(self, function: str, *, after: int = 0, limit: int = 100) -> list[Record]:
        """Dead letters with numbers above `after`, the oldest first."""
        ...

    async def redrive(self, function: str, ids: Collection[str] | None, now: float) -> list[str]:
        """Let dead letters (None: all) be calls again, as if they were new; the lines in which they stand."""
        ...

    async def purge(self, function: str, ids: Collection[str] | None) -> int: ...

    async def functions(self) -> list[str]:
        """All of which anything is kept."""
        ...

    async def forget(self, function: str) -> None:
        """The function is gone: nothing of it stays."""
        ...

    async def trim(self, now: float) -> int:
        """Drop what is kept too long, or takes too much room; how many dead letters were among it."""
        ...


def new_id() -> str:
    return secrets.token_hex(16)


class Tally:
    """What waits, by line, and what of it is taken: both kinds of queues keep that in memory."""

    def __init__(self) -> None:
        self.lines: dict[str, Waiting] = {}
        self.taken: dict[str, str] = {}  # id -> line

    def add(self, line: str, size: int, calls: int = 1) -> None:
        had = self.lines.get(line, Waiting(0, 0))
        now = Waiting(had.calls + calls, had.bytes + size)
        if now.calls > 0:
            self.lines[line] = now
        else:
            self.lines.pop(line, None)

    def drop(self, lines: Iterable[str]) -> None:
        gone = set(lines)
        for line in gone:
            self.lines.pop(line, None)
        self.taken = {id: line for id, line in self.taken.items() if line not in gone}


class MemoryQueue:
    """For clusters whose objects are in memory as well."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - a constant
        self._limits = limits
        self._tally = Tally()
        self._number = 0
        self._records: dict[str, Record] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._heaps: dict[str, list[tuple[float, int, str]]] = {}  # (due, number, id); those that moved stay behind

    async def put(self, calls: Sequence[Call]) -> list[str]:
        return [self._put(call) for call in calls]

    def _put(self, call: Call) -> str:
        if call.key and (known := self._keys.get((call.function, call.key))):
            return known
        if call.key:
            self._keys[call.function, call.key] = call.id
        self._number += 1
        self._queue(Record(call, QUEUED, self._number, 0, call.accepted, call.accepted, 0.0, None))
        return call.id

    def _queue(self, record: Record) -> None:
        self._records[record.call.id] = record
        self._tally.add(record.call.line, len(record.call.body))
        self._line_up(record)

    def _line_up(self, record: Record) -> None:
        heap = self._heaps.setdefault(record.call.line, [])
        heapq.heappush(heap, (record.due, record.number, record.call.id))

    async def take(self, line: str, now: float, limit: int, most: int = MOST) -> Taken:
        heap = self._heaps.get(line, [])
        found: list[Record] = []
        while heap:
            due, _, id = heap[0]
            record = self._records.get(id)
            stale = record is None or record.phase != QUEUED or record.due != due or id in self._tally.taken
            most -= len(record.call.body) if not stale and record is not None else 0
            if not stale and (due > now or len(found) == limit or (found and most < 0)):
                return Taken(found, due)
            heapq.heappop(heap)
            if not stale and record is not None:
                self._tally.taken[id] = line
                found.append(record)
        return Taken(found, None)

    def give_back(self, id: str) -> None:
        if self._tally.taken.pop(id, None) is not None and id in self._records:
            self._line_up(self._records[id])

    async def settle(self, id: str, outcome: Again | Ended) -> None:
        record = self._records.get(id)
        self._tally.taken.pop(id, None)
        if record is None or record.phase != QUEUED:
            return  # purged, or forgotten meanwhile
        if isinstance(outcome, Again):
            record = record._replace(attempts=outcome.attempts, due=outcome.due, result=outcome.result)
            self._records[id] = record
            self._line_up(record)
            return
        self._tally.add(record.call.line, -len(record.call.body), -1)
        call = record.call if outcome.phase == DEAD else msgspec.structs.replace(record.call, body=b"")
        self._records[id] = record._replace(
            call=call, phase=outcome.phase, attempts=outcome.attempts, ended=outcome.at, result=outcome.result
        )
        await self.put(outcome.then)

    def waiting(self) -> dict[str, Waiting]:
        return self._tally.lines

    def is_taken(self, id: str) -> bool:
        return id in self._tally.taken

    async def find(self, function: str, id: str) -> Record | None:
        record = self._records.get(id)
        return record if record is not None and record.call.function == function else None

    async def dead(self, function: str, *, after: int = 0, limit: int = 100) -> list[Record]:
        return [record for record in self._dead(function, None) if record.number > after][:limit]

    def _dead(self, function: str, ids: Collection[str] | None) -> list[Record]:
        return [record for record in self._records.values() if record.call.function == function
                and record.phase == DEAD and (ids is None or record.call.id in ids)]  # fmt: skip

    async def redrive(self, function: str, ids: Collection[str] | None, now: float) -> list[str]:
        chosen = self._dead(function, ids)
        for record in chosen:
            self._queue(record._replace(phase=QUEUED, attempts=0, since=now, due=now, ended=0.0))
        return [record.call.line for record in chosen]

    async def purge(self, function: str, ids: Collection[str] | None) -> int:
        return self._delete(self._dead(function, ids))

    def _delete(self, records: Iterable[Record]) -> int:
        count = 0
        for record in records:
            del self._records[record.call.id]
            self._keys.pop((record.call.function, record.call.key), None)
            count += 1
        return count

    async def functions(self) -> list[str]:
        return sorted({record.call.function for record in self._records.values()})

    async def forget(self, function: str) -> None:
        self._delete([record for record in self._records.values() if record.call.function == function])
        lines = (function, f"{function}>")
        self._tally.drop(lines)
        for line in lines:
            self._heaps.pop(line, None)

    async def trim(self, now: float) -> int:
        limits = self._limits
        done, dead = ([record for record in reversed(list(self._records.values())) if record.phase == phase]
                      for phase in (SUCCEEDED, DEAD))  # fmt: skip
        self._delete([record for place, record in enumerate(done)
                      if place >= limits.results or record.ended < now - limits.result_seconds])  # fmt: skip
        total = 0
        for record in done:
            total += len(record.result.body) if record.result else 0
            if total > limits.result_bytes and record.call.id in self._records and record.result is not None:
                emptied = msgspec.structs.replace(record.result, body=b"", cut=True)
                self._records[record.call.id] = record._replace(result=emptied)
        total, old = 0, []
        for place, record in enumerate(dead):
            total += len(record.call.body)
            if place >= limits.dead or total > limits.dead_bytes or record.ended < now - limits.dead_seconds:
                old.append(record)
        return self._delete(old)
