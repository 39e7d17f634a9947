"""The log of runs in one SQLite file: each group of entries is one durable transaction in the writer's thread.

The events of one entry are one row, a JSON document a line: rows are written as they come and never again, and a long
chain of states costs a few rows rather than thousands.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from minik8s.faas.run_log import End, Entry, Found, Header
from minik8s.faas.sqlite_file import Layout, SqliteFile
from minik8s.faas.workflow.history import Event, decode, encode

PAGE_BYTES = 4 * 1024 * 1024  # after which a page of events is full, whatever its number
TABLES = """
CREATE TABLE definition(hash TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE run(
    number INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL,  -- NAMESPACE/NAME
    definition TEXT NOT NULL,
    header BLOB NOT NULL,
    ended BLOB  -- NULL: it goes on
);
CREATE TABLE events(
    run INTEGER NOT NULL,
    last INTEGER NOT NULL,  -- id of the last event of the row
    body BLOB NOT NULL,
    PRIMARY KEY (run, last)
) WITHOUT ROWID;
"""
LAYOUT = Layout("log of workflows", 0x6D6B3877, 1, TABLES)  # "mk8w"
NUMBER = "(SELECT number FROM run WHERE uid = ?)"
_header, _end = msgspec.json.Decoder(Header), msgspec.json.Decoder(End)


class SqliteLog(SqliteFile):
    def __init__(self, path: Path) -> None:
        super().__init__(path, LAYOUT)

    def write(self, entries: Sequence[Entry]) -> asyncio.Future[None]:
        return self._write(lambda db: _insert(db, entries))

    async def find(self, uid: str) -> Found | None:
        query = "SELECT header, body, ended FROM run JOIN definition ON hash = definition WHERE uid = ?"
        row = await self._read(lambda db: db.execute(query, (uid,)).fetchone())
        if row is None:
            return None
        return Found(_header.decode(row[0]), row[1], _end.decode(row[2]) if row[2] is not None else None)

    async def read(self, uid: str, *, after: int = 0, limit: int = 0) -> list[Event]:
        def read(db: sqlite3.Connection) -> list[Event]:
            found: list[Event] = []
            size = 0
            query = f"SELECT body FROM events WHERE run = {NUMBER} AND last > ? ORDER BY last"  # noqa: S608 - a constant
            for (body,) in db.execute(query, (uid, after)):
                found += [event for event in decode(body) if event.id > after]
                size += len(body)
                if limit and found and (len(found) >= limit or size > PAGE_BYTES):
                    return found[:limit]
            return found

        return await self._read(read)

    async def all(self) -> list[tuple[str, str, bool]]:
        query = "SELECT uid, key, ended IS NOT NULL FROM run ORDER BY number"
        rows = await self._read(lambda db: db.execute(query).fetchall())
        return [(uid, key, bool(ended)) for uid, key, ended in rows]

    async def forget(self, uids: Iterable[str]) -> None:
        given = [(uid,) for uid in uids]

        def forget(db: sqlite3.Connection) -> None:
            db.executemany(f"DELETE FROM events WHERE run = {NUMBER}", given)  # noqa: S608 - a constant
            db.executemany("DELETE FROM run WHERE uid = ?", given)
            db.execute("DELETE FROM definition WHERE hash NOT IN (SELECT definition FROM run)")

        await self._write(forget)


def _insert(db: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    for uid, events, header, definition, end, reopened in entries:
        if header is not None:
            db.execute("INSERT OR IGNORE INTO definition VALUES (?, ?)", (header.definition, definition))
            row = (uid, header.key, header.definition, msgspec.json.encode(header))
            db.execute("INSERT INTO run(uid, key, definition, header) VALUES (?, ?, ?, ?)", row)
        if events:  # nothing for a run that has been forgotten meanwhile
            db.execute("INSERT INTO events SELECT number, ?, ? FROM run WHERE uid = ?",
                       (events[-1].id, encode(list(events)), uid))  # fmt: skip
        if end is not None or reopened:
            said = msgspec.json.encode(end) if end is not None else None
            db.execute("UPDATE run SET ended = ? WHERE uid = ?", (said, uid))
