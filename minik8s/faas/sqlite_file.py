"""A SQLite file of an add-on: opened with care, worked on in one thread, and all writes that wait are one transaction.

`SqliteLog` keeps histories of workflows in one, `SqliteQueue` asynchronous calls. What is written is durable when the
future is done; while one group of writes is on its way to the disk, those that come become the next.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from minik8s.store.base import StoreCorrupt, StoreUnavailable
from minik8s.store.thread import WorkThread

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]


class Layout(NamedTuple):
    """What tells a file of ours from others': `application` and `format` stand in its header.

    `format` is raised when the tables change; `what` is what messages call the file.
    """

    what: str
    application: int
    format: int
    tables: str

    @property
    def script(self) -> str:
        return f"PRAGMA application_id = {self.application};PRAGMA user_version = {self.format};{self.tables}"


class SqliteFile:
    """`async with`; the file is made with mode 0600 if it is not there. One process at a time. Raises StoreError."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path = path
        self._layout = layout
        self._waiting: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._writing: asyncio.Future[list[Any]] | None = None

    async def __aenter__(self) -> Self:
        self._thread = WorkThread(self._layout.what)
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
            while self._writing is not None:
                await asyncio.wait([self._writing])
                await asyncio.sleep(0)  # its callback may begin the next group
            await self._do(lambda: self._db.close())
        finally:
            self._thread.end()

    def _read(self, work: Work[T]) -> asyncio.Future[T]:
        return self._do(lambda: work(self._db))

    def _write(self, work: Work[T]) -> asyncio.Future[T]:
        """Done when it is durable. Groups stand and fall together: `work` must not fail for reasons of its own."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._writing is None:
            self._begin_group()
        return future

    def _begin_group(self) -> None:
        group, self._waiting = self._waiting, []
        self._writing = self._do(lambda: _together(self._db, [work for work, _ in group])) if group else None
        if self._writing is not None:
            self._writing.add_done_callback(lambda done: self._group_done([future for _, future in group], done))

    def _group_done(self, futures: list[asyncio.Future[Any]], done: asyncio.Future[list[Any]]) -> None:
        error = done.exception()
        for future, result in zip(futures, [None] * len(futures) if error else done.result(), strict=True):
            if future.done():  # cancelled
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
        self._begin_group()

    def _do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return self._thread.do(lambda: _translated(work, self._path))

    def _open(self) -> None:
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))
        self._db = db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=1)
        layout = self._layout
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before WAL: no shared memory is needed
            empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            known = (db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0])
            if not empty and known != (layout.application, layout.format):
                raise StoreCorrupt(f"{self._path} is no {layout.what} that this minik8s knows; it was not changed")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            if empty:  # one transaction: a start that is cut short leaves an empty file, which is begun anew
                db.executescript(f"BEGIN;{layout.script}COMMIT;")
            if (result := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise StoreCorrupt(f"{self._path} is damaged ({result}); it was not changed. Put back a backup of it")
        except BaseException:
            db.close()
            raise


def _together(db: sqlite3.Connection, works: list[Work[Any]]) -> list[Any]:
    with db:
        db.execute("BEGIN")
        return [work(db) for work in works]


def _translated(work: Callable[[], T], path: Path) -> T:
    try:
        return work()
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StoreCorrupt(f"{path} is damaged ({error}); put back a backup of it, or move it away") from error
        remedy = "check the free space and the permissions, then start again"
        raise StoreUnavailable(f"{path}: {error}: {remedy}") from error
