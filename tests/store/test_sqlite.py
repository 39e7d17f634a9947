"""What only a file can do: survive kill -9, fill the disk, be damaged, be foreign, be in use, be copied."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from minik8s.store.base import Record, StoreCorrupt, StoreUnavailable
from minik8s.store.sqlite import SqliteStore

KILLS = int(os.environ.get("MINIK8S_TEST_KILLS", "20"))
TEMPLATE = b'{"metadata":{"resourceVersion":"","name":"x"},"data":"%s"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


async def write_some(path: Path, count: int = 20) -> list[Record]:
    async with SqliteStore(path) as store:
        for n in range(count):
            await store.write(f"/pods/a/{n}", TEMPLATE % (b"y" * 900), expect=0)
        return (await store.load())[1]


@pytest.mark.faults
@pytest.mark.timeout(60 + 5 * KILLS)
async def test_kill_9_loses_no_acknowledged_write(path: Path):
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    acknowledged: dict[str, tuple[int, int]] = {}
    total = 0
    for kill in range(KILLS):
        starting = kill % 4 == 0  # killed before it says that it is ready, at first while it makes the file
        lines = _run_until_killed(path, kill * 1_000_000, chance.uniform(0, 0.25), wait=not starting)
        total += len(lines)
        for key, rev, number in lines:
            acknowledged[key] = (rev, number)
        if _size(path):
            db = sqlite3.connect(path)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",), f"seed {seed}"
            db.close()
        async with SqliteStore(path) as store:
            revision, records = await store.load()
            living = {record.key: record for record in records}
            assert revision >= max((rev for rev, _ in acknowledged.values()), default=0)
            for key, (rev, number) in acknowledged.items():
                _check_key(living.get(key), rev, number, f"{key} after kill {kill}, seed {seed}")
            known = {change.rev for change in await store.history("", store.floor, revision)}
            assert known == set(range(store.floor + 1, revision + 1))
    assert total > 20 * KILLS


def _run_until_killed(path: Path, first: int, seconds: float, *, wait: bool) -> list[tuple[str, int, int]]:
    victim = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("kill_me.py")), str(path), str(first)], stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    if wait:
        assert victim.stdout.readline() == b"ready 0 0\n"
    killer = subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -9 {victim.pid}"])
    output = victim.stdout.read()
    killer.wait()
    assert victim.wait() == -signal.SIGKILL
    lines = [line.split() for line in output.decode().splitlines(keepends=True) if line.endswith("\n")]
    return [(key, int(rev), int(number)) for key, rev, number in lines if key != "ready"]


def _check_key(record: Record | None, rev: int, number: int, where: str) -> None:
    """The key is in the acknowledged state, or in the one that was being written when the kill came."""
    if number < 0 or number % 7 == 0:
        assert record is None or record.rev >= rev, where
    else:
        assert record is not None, where
        assert record.rev >= rev, where
    if record is not None and record.rev == rev:
        assert json.loads(record.value)["metadata"] == {"resourceVersion": str(rev), "n": str(number)}, where


async def test_a_full_disk_fails_every_pending_write_and_stops_the_store(path: Path):
    done: list[int] = []
    async with SqliteStore(path) as store:
        await store._run(lambda: store._db.execute("PRAGMA max_page_count = 100").fetchall())
        follower = asyncio.ensure_future(_drain(store))

        async def write(worker: int) -> None:
            for n in range(100):
                done.append((await store.write(f"/pods/a/{worker}-{n}", TEMPLATE % (b"z" * 900), expect=0)).rev)

        results = await asyncio.gather(*(write(n) for n in range(10)), return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) and "full" in str(result) for result in results)
        assert str(path) in str(results[0])
        with pytest.raises(StoreUnavailable, match="full"):
            await store.write("/pods/a/late", TEMPLATE % b"", expect=0)
        with pytest.raises(StoreUnavailable, match="full"):
            await follower
        with pytest.raises(StoreUnavailable, match="full"):
            await anext(store.changes(0))
    async with SqliteStore(path) as store:
        revision, records = await store.load()
        assert sorted(done) == sorted(record.rev for record in records) == list(range(1, revision + 1))
        await store.write("/pods/a/late", TEMPLATE % b"", expect=0)


async def _drain(store: SqliteStore) -> None:
    async for _ in store.changes(0):
        pass


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\xa5" * 4096
    path.write_bytes(content)


def _change_a_revision(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("UPDATE kv SET value = CAST(replace(CAST(value AS TEXT), '\"7\"', '\"8\"') AS BLOB)")
    db.commit()
    db.close()


def _drop_a_table(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("DROP TABLE meta")
    db.close()


def _foreign(path: Path) -> None:
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE cookies(name)")
    db.close()


def _newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "is damaged"),
        (_scribble, "is damaged"),
        (_change_a_revision, "does not bear its revision"),
        (_drop_a_table, "no such table"),
        (_foreign, "another program"),
        (_newer, "format 99"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("hello " * 100), "is not a database"),
        (lambda path: path.rename(path.with_name("state.db-wal")), "is missing although"),
    ],
)
async def test_a_damaged_foreign_or_newer_file_is_refused_and_left_alone(path: Path, damage, message: str):
    await write_some(path)
    damage(path)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(StoreCorrupt, match=message) as refused:
        async with SqliteStore(path):
            pass
    assert str(path) in str(refused.value)
    assert "not changed" in str(refused.value)
    after = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert set(after) <= set(before) | {"state.db-wal"}
    if message != "does not bear its revision":
        assert {name: after[name] for name in before} == before


async def test_check_finds_damage_that_came_while_serving(path: Path):
    await write_some(path, 200)
    async with SqliteStore(path) as store:
        await store.check()
        _scribble(path)
        await store._run(lambda: store._db.execute("PRAGMA shrink_memory"))
        with pytest.raises(StoreCorrupt, match="is damaged"):
            await store.check()


INTRUDER = """
import asyncio, pathlib, sys
from minik8s.store.sqlite import SqliteStore
asyncio.run(SqliteStore(pathlib.Path(sys.argv[1])).__aenter__())
"""


async def test_a_second_process_is_refused(path: Path):
    async with SqliteStore(path) as store:
        await store.write("/pods/a/a", TEMPLATE % b"", expect=0)
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", INTRUDER, str(path), stderr=subprocess.PIPE)
        assert f"{path} is in use by another process" in (await other.communicate())[1].decode()
        await store.write("/pods/a/b", TEMPLATE % b"", expect=0)
        await store.check()


async def test_files_are_for_their_owner_only(path: Path):
    previous = os.umask(0)
    try:
        async with SqliteStore(path) as store:
            await store.write("/secrets/a/a", TEMPLATE % b"", expect=0)
            await store.backup(path.with_name("copy.db"))
            names = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(previous)
    assert names == {"state.db": 0o600, "state.db-wal": 0o600, "copy.db": 0o600}


async def test_a_backup_is_a_store_of_its_own(path: Path):
    copy = path.with_name("copy.db")
    async with SqliteStore(path) as store:
        done = [await store.write(f"/pods/a/{n % 3}", TEMPLATE % b"%d" % n, expect=None) for n in range(9)]
        snapshot = await store.load()
        await store.backup(copy)
        await store.write("/pods/a/later", TEMPLATE % b"", expect=0)
        with pytest.raises(StoreUnavailable, match="never overwrites"):
            await store.backup(copy)
    async with SqliteStore(copy) as restored:
        assert await restored.load() == snapshot
        assert await restored.history("", 0, done[-1].rev) == done


async def test_the_file_stays_flat_under_churn(path: Path):
    sizes: list[int] = []
    async with SqliteStore(path, keep=500) as store:

        async def churn(worker: int) -> None:
            for n in range(100):
                key = f"/pods/a/{worker}-{n % 10}"
                await store.write(key, TEMPLATE % (b"w" * 900), expect=None)
                if n % 10 == 9:
                    await store.write(key, None, expect=None)

        for _ in range(10):
            await asyncio.gather(*(churn(n) for n in range(20)))
            sizes.append(_size(path))
        assert _size(path.with_name("state.db-wal")) < 8 * 2**20
    assert sizes[-1] <= 1.1 * sizes[3]
    assert sizes[-1] < 3 * 2**20  # at most 1 500 revisions and 200 keys of 1 KiB each


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="file"):
        async with SqliteStore(tmp_path / "file" / "state.db"):
            pass
