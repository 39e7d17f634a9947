"""Asynchronous calls in one SQLite file: each group of what is put or settled is one durable transaction.

What is being made is known in memory alone: after a kill nothing is, so that all that was under way is due again.
A call's payload is dropped when it has succeeded; results make room for newer ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from minik8s.faas.queue.queue import (
    DEAD,
    MOST,
    QUEUED,
    SUCCEEDED,
    Again,
    Call,
    Ended,
    Limits,
    Record,
    Result,
    Taken,
    Tally,
    Waiting,
)
from minik8s.faas.sqlite_file import Layout, SqliteFile

PHASES = (QUEUED, SUCCEEDED, DEAD)  # the numbers of `state`
TABLES = """
CREATE TABLE call(
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    function TEXT NOT NULL,  -- NAMESPACE/NAME
    line TEXT NOT NULL,
    key TEXT,  -- NULL: none
    state INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    since REAL NOT NULL,
    due REAL NOT NULL,
    ended REAL NOT NULL,
    size INTEGER NOT NULL,  -- of what of the two below takes room: the payload, or the answer when it has succeeded
    call BLOB NOT NULL,  -- without its payload
    body BLOB NOT NULL,
    result BLOB,
    answer BLOB NOT NULL
);
CREATE UNIQUE INDEX key ON call(function, key) WHERE key IS NOT NULL;
CREATE INDEX waiting ON call(line, due, number) WHERE state = 0;
CREATE INDEX ended ON call(state, number, size, ended) WHERE state > 0;
CREATE INDEX function ON call(function, state, number);
"""
LAYOUT = Layout("queue of calls", 0x6D6B3866, 1, TABLES)  # "mk8f"
ROW = "number, state, attempts, since, due, ended, call, body, result, answer"
INSERT = "INSERT INTO call(id, function, line, key, state, attempts, since, due, ended, size, call, body, answer) "
_call, _result = msgspec.json.Decoder(Call), msgspec.json.Decoder(Result)
_CHUNK = 500  # ids of one statement: SQLite takes 999 at least


class SqliteQueue(SqliteFile):
    """`async with`."""

    def __init__(self, path: Path, limits: Limits = Limits()) -> None:  # noqa: B008 - a constant
        super().__init__(path, LAYOUT)
        self._limits = limits
        self._tally = Tally()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        query = "SELECT line, count(*), sum(size) FROM call WHERE state = 0 GROUP BY line"
        for line, count, size in await self._read(lambda db: db.execute(query).fetchall()):
            self._tally.add(line, size, count)
        return self

    async def put(self, calls: Sequence[Call]) -> list[str]:
        put = await self._write(lambda db: [_put(db, call) for call in calls])
        self._put_done(calls, put)
        return put

    def _put_done(self, calls: Sequence[Call], ids: Sequence[str]) -> None:
        for call, id in zip(calls, ids, strict=True):
            if call.id == id:
                self._tally.add(call.line, len(call.body))

    async def take(self, line: str, now: float, limit: int, most: int = MOST) -> Taken:
        taken = self._tally.taken
        away = {id for id, each in taken.items() if each == line}  # one that is settled meanwhile was read too early
        room = limit + len(away) + 1
        query = "SELECT id, due, size FROM call WHERE line = ? AND state = 0 ORDER BY due, number LIMIT ?"
        rows = await self._read(lambda db: db.execute(query, (line, room)).fetchall())
        free = [row for row in rows if row[0] not in away]
        chosen: list[str] = []
        for id, due, size in free[:limit]:
            most -= size
            if due > now or (chosen and most < 0):
                break
            chosen.append(id)
        next_due = free[len(chosen)][1] if len(free) > len(chosen) else None
        taken.update((id, line) for id in chosen)
        records = [record for record in await self._records(chosen) if record.phase == QUEUED]
        for gone in {*chosen} - {record.call.id for record in records}:  # purged just now
            self.give_back(gone)
        return Taken(records, next_due)

    async def _records(self, ids: Sequence[str]) -> list[Record]:
        query = f"SELECT {ROW} FROM call WHERE id = ?"  # noqa: S608 - a constant
        return await self._read(
            lambda db: [_record(row) for id in ids if (row := db.execute(query, (id,)).fetchone()) is not None]
        )

    def give_back(self, id: str) -> None:
        self._tally.taken.pop(id, None)

    async def settle(self, id: str, outcome: Again | Ended) -> None:
        freed, put = await self._write(lambda db: _settle(db, id, outcome))
        self._tally.taken.pop(id, None)
        if freed is not None:
            self._tally.add(freed[0], -freed[1], -1)
        if isinstance(outcome, Ended):
            self._put_done(outcome.then[: len(put)], put)

    def waiting(self) -> dict[str, Waiting]:
        return self._tally.lines

    def is_taken(self, id: str) -> bool:
        return id in self._tally.taken

    async def find(self, function: str, id: str) -> Record | None:
        found = [record for record in await self._records([id]) if record.call.function == function]
        return found[0] if found else None

    async def dead(self, function: str, *, after: int = 0, limit: int = 100) -> list[Record]:
        query = f"SELECT {ROW} FROM call WHERE function = ? AND state = 2 AND number > ? ORDER BY number LIMIT ?"  # noqa: S608
        rows = await self._read(lambda db: db.execute(query, (function, after, limit)).fetchall())
        return [_record(row) for row in rows]

    async def redrive(self, function: str, ids: Collection[str] | None, now: float) -> list[str]:
        change = "UPDATE call SET state = 0, attempts = 0, since = ?, due = ?, ended = 0"

        def redrive(db: sqlite3.Connection) -> list[tuple[str, int]]:
            return _dead(db, f"{change} %s RETURNING line, size", (now, now), function, ids)

        moved = await self._write(redrive)
        for line, size in moved:
            self._tally.add(line, size)
        return [line for line, _ in moved]

    async def purge(self, function: str, ids: Collection[str] | None) -> int:
        return len(await self._write(lambda db: _dead(db, "DELETE FROM call %s RETURNING id", (), function, ids)))

    async def functions(self) -> list[str]:
        rows = await self._read(lambda db: db.execute("SELECT DISTINCT function FROM call").fetchall())
        return [function for (function,) in rows]

    async def forget(self, function: str) -> None:
        await self._write(lambda db: db.execute("DELETE FROM call WHERE function = ?", (function,)))
        self._tally.drop((function, f"{function}>"))

    async def trim(self, now: float) -> int:
        return await self._write(lambda db: _trim(db, self._limits, now))


def _put(db: sqlite3.Connection, call: Call) -> str:
    light = msgspec.json.encode(msgspec.structs.replace(call, body=b""))
    row = (call.id, call.function, call.line, call.key or None, 0, 0, call.accepted, call.accepted, 0.0,
           len(call.body), light, call.body, b"")  # fmt: skip
    query = f"{INSERT} VALUES ({', '.join('?' * len(row))}) ON CONFLICT(function, key) WHERE key IS NOT NULL DO NOTHING"
    if db.execute(query, row).rowcount:
        return call.id
    found = db.execute("SELECT id FROM call WHERE function = ? AND key = ?", (call.function, call.key)).fetchone()
    return str(found[0])


def _settle(db: sqlite3.Connection, id: str, outcome: Again | Ended) -> tuple[tuple[str, int] | None, list[str]]:
    """((line, size) of a call that has ended, ids of what follows)."""
    said = msgspec.json.encode(msgspec.structs.replace(outcome.result, body=b""))
    answer = outcome.result.body
    if isinstance(outcome, Again):
        values = (outcome.attempts, outcome.due, said, answer, id)
        db.execute("UPDATE call SET attempts = ?, due = ?, result = ?, answer = ? WHERE id = ? AND state = 0", values)
        return None, []
    found = db.execute("SELECT line, size FROM call WHERE id = ? AND state = 0", (id,)).fetchone()
    if found is None:  # purged, or forgotten meanwhile
        return None, []
    end = (PHASES.index(outcome.phase), outcome.attempts, outcome.at, said, answer)
    db.execute("UPDATE call SET state = ?, attempts = ?, ended = ?, result = ?, answer = ? WHERE id = ?", (*end, id))
    if outcome.phase == SUCCEEDED:
        db.execute("UPDATE call SET body = x'', size = ? WHERE id = ?", (len(answer), id))
    return (found[0], found[1]), [_put(db, call) for call in outcome.then]


def _dead(
    db: sqlite3.Connection, statement: str, values: tuple[Any, ...], function: str, ids: Collection[str] | None
) -> list[Any]:
    """Do something with dead letters (None: all) of a function; `%s` in the statement is where they are named."""
    where = "WHERE function = ? AND state = 2"
    if ids is None:
        return db.execute(statement % where, (*values, function)).fetchall()
    some, found = list(dict.fromkeys(ids)), []
    for start in range(0, len(some), _CHUNK):
        part = some[start : start + _CHUNK]
        query = statement % f"{where} AND id IN ({', '.join('?' * len(part))})"
        found += db.execute(query, (*values, function, *part)).fetchall()
    return found


def _trim(db: sqlite3.Connection, limits: Limits, now: float) -> int:
    old = ("DELETE FROM call WHERE state = ? AND (ended < ? OR number <= "
           "(SELECT number FROM call WHERE state = ? ORDER BY number DESC LIMIT 1 OFFSET ?))")  # fmt: skip
    large = ("(SELECT number FROM (SELECT number, size, sum(size) OVER (ORDER BY number DESC) AS total FROM call "
             "WHERE state = ?) WHERE total > ? AND size > 0)")  # fmt: skip
    db.execute(old, (1, now - limits.result_seconds, 1, limits.results))
    emptied = "UPDATE call SET answer = x'', size = 0, result = json_set(result, '$.cut', json('true'))"
    db.execute(f"{emptied} WHERE number IN {large}", (1, limits.result_bytes))
    dropped = db.execute(old, (2, now - limits.dead_seconds, 2, limits.dead)).rowcount
    return dropped + db.execute(f"DELETE FROM call WHERE number IN {large}", (2, limits.dead_bytes)).rowcount  # noqa: S608


def _record(row: Sequence[Any]) -> Record:
    number, state, attempts, since, due, ended, call, body, result, answer = row
    said = msgspec.structs.replace(_result.decode(result), body=answer) if result is not None else None
    whole = msgspec.structs.replace(_call.decode(call), body=body)
    return Record(whole, PHASES[state], number, attempts, since, due, ended, said)
