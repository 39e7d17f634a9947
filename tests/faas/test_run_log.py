"""The contract of logs of runs, for both; and what only a file can have: being closed, damaged, or somebody else's."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from minik8s.faas.run_log import End, Entry, Found, Header, MemoryLog, RunLog
from minik8s.faas.sqlite_log import SqliteLog
from minik8s.faas.workflow.history import Event
from minik8s.store.base import StoreCorrupt, StoreUnavailable


def header(uid: str, definition: str = "d") -> Header:
    return Header(uid, "ns", f"run-{uid}", "w", 1, definition, "default", b"secret", {"x": None})


def events(first: int, last: int) -> list[Event]:
    return [Event(id, "PassStateEntered", 1.5, id - 1, {"name": "A", "input": None}) for id in range(first, last + 1)]


END = End("FAILED", 1.0, 2.0, 5, None, "E", "why")


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunLog]:
    if request.param == "memory":
        yield MemoryLog()
        return
    async with SqliteLog(tmp_path / "w.db") as made:
        yield made


async def test_what_was_written_is_read(log: RunLog) -> None:
    await log.write([Entry("a", events(1, 3), header("a"), b"{}"), Entry("b", events(1, 1), header("b"), b"{}")])
    await log.write([Entry("a", events(4, 9))])
    assert await log.read("a") == events(1, 9)
    assert await log.read("a", after=2, limit=4) == events(3, 6)
    assert await log.read("a", after=9) == []
    assert await log.read("c") == []
    assert await log.find("a") == Found(header("a"), b"{}", None)
    assert await log.find("c") is None
    assert await log.all() == [("a", "ns/run-a", False), ("b", "ns/run-b", False)]


async def test_an_end_and_a_new_beginning(log: RunLog) -> None:
    await log.write([Entry("a", events(1, 5), header("a"), b"{}", END)])
    assert await log.all() == [("a", "ns/run-a", True)]
    found = await log.find("a")
    assert found is not None
    assert found.end == END
    await log.write([Entry("a", events(6, 6), reopened=True)])
    assert await log.all() == [("a", "ns/run-a", False)]
    await log.write([Entry("a", (), end=END)])
    assert await log.all() == [("a", "ns/run-a", True)]


async def test_what_is_forgotten_is_gone_and_stays_so(log: RunLog) -> None:
    await log.write([Entry(uid, events(1, 2), header(uid, uid), uid.encode()) for uid in ("a", "b")])
    await log.forget(["a", "never"])
    await log.write([Entry("a", events(3, 4), end=END)])  # was on its way
    assert await log.all() == [("b", "ns/run-b", False)]
    assert (await log.find("a"), await log.read("a")) == (None, [])
    found = await log.find("b")
    assert found is not None
    assert found.definition == b"b"


async def test_a_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "w.db"
    async with SqliteLog(path) as log:
        await log.write([Entry("a", events(1, 2), header("a"), b"{}")])
        with pytest.raises(StoreUnavailable):  # a second process
            async with SqliteLog(path):
                pass
    assert path.stat().st_mode & 0o777 == 0o600
    async with SqliteLog(path) as log:
        assert await log.read("a") == events(1, 2)


async def test_other_files_are_left_alone(tmp_path: Path) -> None:
    foreign, noise = tmp_path / "foreign.db", tmp_path / "noise.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE mine(x)")
    noise.write_bytes(b"no database at all" * 100)
    for path in (foreign, noise):
        before = path.read_bytes()
        with pytest.raises(StoreCorrupt):
            async with SqliteLog(path):
                pass
        assert path.read_bytes() == before


async def test_a_page_of_large_events_is_full_early(tmp_path: Path) -> None:
    large = [Event(id, "PassStateEntered", 1.5, id - 1, {"input": "x" * 200_000}) for id in range(1, 61)]
    async with SqliteLog(tmp_path / "w.db") as log:
        await log.write([Entry("a", large[:1], header("a"), b"{}")])
        for at in range(1, 60):
            await log.write([Entry("a", large[at : at + 1])])
        pages, after = [], 0
        while page := await log.read("a", after=after, limit=5000):
            pages.append(page)
            after = page[-1].id
    assert [event for page in pages for event in page] == large
    assert len(pages) == 3
