"""Killed at any moment, a queue has every call whose acceptance was told, and each is made at least once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minik8s.faas.queue.queue import Call
from minik8s.faas.queue.sqlite_queue import SqliteQueue

# Puts calls from many tasks at once and makes them; tells of both, each line in one write.
CHILD = """
import asyncio, os, sys
from pathlib import Path
from minik8s.aio import background
from minik8s.faas.queue.dispatcher import Dispatcher, Terms
from minik8s.faas.queue.outcome import Answer
from minik8s.faas.queue.queue import Call
from minik8s.faas.queue.sqlite_queue import SqliteQueue

def tell(what, id):
    os.write(1, f"{what} {id}\\n".encode())

async def make(call):
    await asyncio.sleep(0)
    tell("made", call.id)
    return Answer(200)

async def main(path, run):
    async with SqliteQueue(Path(path)) as queue:
        dispatcher = Dispatcher(queue, lambda function: Terms(), make)
        async def put(who):
            for number in range(10_000):
                id = f"{run}-{who}-{number}"
                await dispatcher.put(Call(id, "ns/f", dispatcher.clock(), body=b"x" * 100))
                tell("put", id)
        async with background(dispatcher.run()):
            await asyncio.gather(*(put(who) for who in range(20)))

asyncio.run(main(*sys.argv[1:]))
"""


def killed(path: Path, run: int, lines: int) -> list[str]:
    """What a child told until it was killed, after so many lines."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(run)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        told += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    return told


async def test_nothing_that_was_accepted_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    put: set[str] = set()
    made: set[str] = set()
    for run, lines in enumerate((3, 50, 400, 1500)):
        for line in killed(path, run, lines):
            what, _, id = line.strip().partition(" ")
            (put if what == "put" else made).add(id)
        async with SqliteQueue(path) as queue:
            known = {id for id in put if await queue.find("ns/f", id) is not None}
            assert known == put
            waiting = await queue.take("ns/f", 1e12, 100_000)
            assert put - made <= {record.call.id for record in waiting.records}
    assert len(put) > 100


def cut_short(path: Path, statements: int) -> None:
    script = f"""
import os, signal, sqlite3
from minik8s.faas.queue.sqlite_queue import LAYOUT
db = sqlite3.connect({str(path)!r}, isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("BEGIN")
for each in LAYOUT.script.split(";")[:{statements}]:
    db.execute(each)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("statements", [1, 2, 3])
async def test_a_file_that_was_cut_short_when_it_was_made_is_begun_anew(tmp_path: Path, statements: int) -> None:
    path = tmp_path / "q.db"
    cut_short(path, statements)
    async with SqliteQueue(path) as queue:
        assert await queue.put([Call("a", "ns/f", 1.0)]) == ["a"]
