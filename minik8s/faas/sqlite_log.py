"""The log of runs in one SQLite file: each group of entries is one durable transaction in the writer's thread.

The events of one entry are one row, a JSON document a line: rows are written as they come and never again, and a long
chain of states costs a few rows rather than thousands.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from minik8s.faas.run_log import End, Entry, Found, Header
from minik8s.faas.workflow.history import Event, decode, encode
from minik8s.store.base import StoreCorrupt, StoreUnavailable
from minik8s.store.thread import WorkThread

T = TypeVar("T")

APPLICATION_ID = 0x6D6B3877  # "mk8w"
PAGE_BYTES = 4 * 1024 * 1024  # after which a page of events is full, whatever its number
FORMAT = 1  # user_version: raised when the tables change
SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
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
NUMBER = "(SELECT number FROM run WHERE uid = ?)"
_header, _end = msgspec.json.Decoder(Header), msgspec.json.Decoder(End)


class SqliteLog:
    """`async with`; the file is made with mode 0600 if it is not there. One process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> Self:
        self._thread = WorkThread("workflows")
        try:
            await self._do(self._open)
        except BaseException:
            self._thread.end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._do(lambda: self._db.close())
        finally:
            self._thread.end()

    def write(self, entries: Sequence[Entry]) -> asyncio.Future[None]:
        return self._do(lambda: _write(self._db, entries))

    async def find(self, uid: str) -> Found | None:
        query = "SELECT header, body, ended FROM run JOIN definition ON hash = definition WHERE uid = ?"
        row = await self._do(lambda: self._db.execute(query, (uid,)).fetchone())
        if row is None:
            return None
        return Found(_header.decode(row[0]), row[1], _end.decode(row[2]) if row[2] is not None else None)

    async def read(self, uid: str, *, after: int = 0, limit: int = 0) -> list[Event]:
        def read() -> list[Event]:
            found: list[Event] = []
            size = 0
            query = f"SELECT body FROM events WHERE run = {NUMBER} AND last > ? ORDER BY last"  # noqa: S608 - a constant
            for (body,) in self._db.execute(query, (uid, after)):
                found += [event for event in decode(body) if event.id > after]
                size += len(body)
                if limit and found and (len(found) >= limit or size > PAGE_BYTES):
                    return found[:limit]
            return found

        return await self._do(read)

    async def all(self) -> list[tuple[str, str, bool]]:
        query = "SELECT uid, key, ended IS NOT NULL FROM run ORDER BY number"
        rows = await self._do(lambda: self._db.execute(query).fetchall())
        return [(uid, key, bool(ended)) for uid, key, ended in rows]

    async def forget(self, uids: Iterable[str]) -> None:
        given = [(uid,) for uid in uids]

        def forget() -> None:
            with self._db:
                self._db.execute("BEGIN")
                self._db.executemany(f"DELETE FROM events WHERE run = {NUMBER}", given)  # noqa: S608 - a constant
                self._db.executemany("DELETE FROM run WHERE uid = ?", given)
                self._db.execute("DELETE FROM definition WHERE hash NOT IN (SELECT definition FROM run)")

        await self._do(forget)

    def _do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return self._thread.do(lambda: _translated(work, self._path))

    def _open(self) -> None:
        fresh = not self._path.exists()
        if fresh:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))
        self._db = db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=1)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before WAL: no shared memory is needed
            empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            known = (db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0])
            if not empty and known != (APPLICATION_ID, FORMAT):
                raise StoreCorrupt(f"{self._path} is no log of workflows that this minik8s knows; it was not changed")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            if empty:  # one transaction: a start that is cut short leaves an empty file, which is begun anew
                db.executescript(f"BEGIN;{SCHEMA}COMMIT;")
            if (result := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise StoreCorrupt(f"{self._path} is damaged ({result}); it was not changed. Put back a backup of it")
        except BaseException:
            db.close()
            raise


def _write(db: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    with db:
        db.execute("BEGIN")
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


def _translated(work: Callable[[], T], path: Path) -> T:
    try:
        return work()
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StoreCorrupt(f"{path} is damaged ({error}); put back a backup of it, or move it away") from error
        remedy = "check the free space and the permissions, then start again"
        raise StoreUnavailable(f"{path}: {error}: {remedy}") from error
