"""The store on disk: a log of changes in one SQLite file, each group of writes one durable transaction.

Each row names the row that it supersedes (`prev`). That is all that history (the state before), loading (rows that none
supersedes) and compaction (what the changes below the floor supersede) need, so there is no second index: writing only
ever appends, which halves the cost of a commit against an index over (key, rev).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from minik8s.store.base import STAMP_HEAD, Change, Record, StoreCorrupt, StoreUnavailable
from minik8s.store.single_writer import KEEP, SingleWriter, Snapshot
from minik8s.store.thread import WorkThread

T = TypeVar("T")

APPLICATION_ID = 0x6D6B3873  # "mk8s", in the file's header: tells our files from other programs'
FORMAT = 1  # user_version, in the header as well: raised when the tables change
ROWS = 64  # per INSERT statement; one prepared statement is kept for each size up to this
LOCK_WAIT = 1.0  # seconds for a predecessor that is just ending
MAGIC = b"SQLite format 3\0"
# ERROR is a statement that does not fit the tables: ours always do.
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)

SCHEMA = """
CREATE TABLE kv(
    rev INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    create_rev INTEGER NOT NULL,
    prev INTEGER NOT NULL,  -- rev of the state before, 0 for a creation
    value BLOB              -- NULL: deleted
);
CREATE TABLE meta(floor INTEGER NOT NULL, revision INTEGER NOT NULL);  -- one row; revision as of the last compaction
INSERT INTO meta VALUES (0, 0);
"""
LIVING = "SELECT key, value, rev, create_rev FROM kv WHERE value IS NOT NULL AND rev NOT IN (SELECT prev FROM kv)"
HISTORY = """
SELECT now.key, now.rev, now.value, old.key, old.value, old.rev, old.create_rev
FROM kv now LEFT JOIN kv old ON old.rev = now.prev
WHERE now.rev > ? AND now.rev <= ? AND substr(now.key, 1, ?) = ? ORDER BY now.rev
"""


class SqliteStore(SingleWriter):
    """A `Store` in the file `path`, made with mode 0600 if it does not exist. One process at a time."""

    def __init__(self, path: Path, *, keep: int = KEEP) -> None:
        super().__init__(keep=keep)
        self._path = path

    async def check(self) -> None:
        await self._run(lambda: _verify(self._db, self._path, "integrity_check"))

    async def backup(self, path: Path) -> None:
        """Write a consistent copy to the new file `path` (mode 0600) while serving goes on; writes wait meanwhile."""
        await self._run(lambda: _copy(self._db, path))

    async def _open(self) -> Snapshot:
        self._thread = WorkThread("store")
        try:
            return await self._run(self._connect)
        except BaseException:
            self._thread.end()
            raise

    async def _close(self) -> None:
        try:
            await self._run(self._db.close)
        finally:
            self._thread.end()

    def _commit(self, changes: list[Change]) -> asyncio.Future[None]:
        return self._run(lambda: _insert(self._db, changes))

    def _forget(self, after: int, upto: int) -> asyncio.Future[None]:
        return self._run(lambda: _delete(self._db, after, upto, self._revision))

    async def _read(self, prefix: str, after: int, upto: int) -> list[Change]:
        rows = await self._run(lambda: self._db.execute(HISTORY, (after, upto, len(prefix), prefix)).fetchall())
        return [Change(key, rev, value, Record(*prev) if prev[0] else None) for key, rev, value, *prev in rows]

    def _run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do `work` in the writer's thread, after all that was asked for before; SQLite's errors become the store's."""
        return self._thread.do(lambda: _translated(work, self._path))

    def _connect(self) -> Snapshot:
        if not self._path.exists():
            _create(self._path)
        _identify(self._path)
        self._path.chmod(0o600)
        self._db = db = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=2 * ROWS, timeout=LOCK_WAIT
        )
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before WAL: the lock is kept, no shared memory is needed
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            _verify(db, self._path, "quick_check")
            return _snapshot(db, self._path)
        except BaseException:
            db.close()
            raise


def _translated(work: Callable[[], T], path: Path) -> T:
    try:
        return work()
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits say more than is needed
        if code == sqlite3.SQLITE_BUSY:
            raise StoreUnavailable(f"{path} is in use by another process: stop that one first") from error
        if code in DAMAGE:
            raise _corrupt(path, f"is damaged ({error})") from error
        remedy = "check the free space and the permissions, then start again"
        raise StoreUnavailable(f"{path}: {error}: {remedy}") from error
    except OSError as error:
        raise StoreUnavailable(f"{error.filename or path}: {error.strerror}") from error


def _corrupt(path: Path, what: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"{path} {what}; it was not changed. Put back a backup of it, or move it away to start an empty cluster"
    )


def _create(path: Path) -> None:
    """Make the whole file aside and rename it: `path` never holds half a database, so a strange one is never ours."""
    wal = Path(f"{path}-wal")
    if wal.exists():
        raise _corrupt(path, f"is missing although its log {wal.name} is there")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(f"{path}.new")
    fresh.unlink(missing_ok=True)  # left over from a start that was cut short
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    db = sqlite3.connect(fresh)
    try:
        header = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};"
        db.executescript(f"BEGIN; {SCHEMA} {header} COMMIT;")  # waits for the disk once
    finally:
        db.close()
    _rename(fresh, path)


def _rename(fresh: Path, path: Path) -> None:
    """Rename and make the name itself durable."""
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _identify(path: Path) -> None:
    """Look at the header only (https://sqlite.org/fileformat.html): to open a file may already write to it."""
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(MAGIC):
        raise _corrupt(path, "is not a database" if header else "is empty, which minik8s never leaves behind")
    if int.from_bytes(header[68:72]) != APPLICATION_ID:
        raise _corrupt(path, "is a database of another program")
    if (version := int.from_bytes(header[60:64])) != FORMAT:
        raise StoreCorrupt(
            f"{path} has format {version}, this minik8s knows only {FORMAT}; it was not changed. "
            "Use the version of minik8s that wrote it, or a newer one"
        )


def _verify(db: sqlite3.Connection, path: Path, pragma: str) -> None:
    if (result := db.execute(f"PRAGMA {pragma}(1)").fetchone()[0]) != "ok":
        raise _corrupt(path, f"is damaged ({' '.join(result.split())})")  # it may say several lines


def _snapshot(db: sqlite3.Connection, path: Path) -> Snapshot:
    floor, compacted = db.execute("SELECT floor, revision FROM meta").fetchone()
    newest = db.execute("SELECT max(rev) FROM kv").fetchone()[0] or 0
    records = [Record(*row) for row in db.execute(LIVING)]
    for record in records:
        if not record.value.startswith(STAMP_HEAD + b'%d"' % record.rev):
            raise _corrupt(path, f"is damaged ({record.key} does not bear its revision {record.rev})")
    return Snapshot(max(compacted, newest), floor, records)


@lru_cache
def _insert_sql(rows: int) -> str:
    return "INSERT INTO kv(rev, key, create_rev, prev, value) VALUES" + ",".join(["(?,?,?,?,?)"] * rows)


def _insert(db: sqlite3.Connection, changes: list[Change]) -> None:
    """One transaction. A group that fits one statement needs no BEGIN and COMMIT: each statement is a moment in which
    this thread waits for the interpreter's lock, which a busy loop hands over only every 5 ms."""
    if len(changes) <= ROWS:
        _insert_rows(db, changes)
        return
    db.execute("BEGIN")
    for start in range(0, len(changes), ROWS):
        _insert_rows(db, changes[start : start + ROWS])
    db.execute("COMMIT")


def _insert_rows(db: sqlite3.Connection, changes: list[Change]) -> None:
    values: list[object] = []
    for key, rev, value, prev in changes:
        values += (rev, key, prev.create_rev if prev else rev, prev.rev if prev else 0, value)
    db.execute(_insert_sql(len(changes)), values)


def _delete(db: sqlite3.Connection, after: int, upto: int, revision: int) -> None:
    db.execute("BEGIN")
    db.execute("DELETE FROM kv WHERE rev IN (SELECT prev FROM kv WHERE rev > ? AND rev <= ?)", (after, upto))
    db.execute("DELETE FROM kv WHERE rev > ? AND rev <= ? AND value IS NULL", (after, upto))
    # The newest row may be a deletion that goes now: the revision must not go back with it.
    db.execute("UPDATE meta SET floor = ?, revision = ?", (upto, revision))
    db.execute("COMMIT")


def _copy(db: sqlite3.Connection, path: Path) -> None:
    if path.exists():
        raise FileExistsError(17, "exists already, a backup never overwrites", str(path))
    fresh = Path(f"{path}.new")
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    target = sqlite3.connect(fresh)
    try:
        db.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # the copy is one file, without a log beside it
    finally:
        target.close()
    _rename(fresh, path)
