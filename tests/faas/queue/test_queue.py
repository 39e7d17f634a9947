"""The contract of queues of calls, for both; and what only a file can have: an end in the midst of it all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from minik8s.faas.queue.queue import (
    DEAD,
    QUEUED,
    SUCCEEDED,
    Again,
    Call,
    CallQueue,
    Ended,
    Limits,
    MemoryQueue,
    Result,
    Waiting,
)
from minik8s.faas.queue.sqlite_queue import SqliteQueue

LIMITS = Limits(results=3, result_bytes=20, result_seconds=100.0, dead=3, dead_bytes=20, dead_seconds=200.0)


def call(id: str, at: float = 10.0, function: str = "ns/f", **more: Any) -> Call:
    return Call(id, function, at, **({"body": b"pay"} | more))


def ok(body: bytes = b"fine", at: float = 50.0, then: tuple[Call, ...] = ()) -> Ended:
    return Ended(SUCCEEDED, 1, at, Result(200, "text/plain", body), then)


def bad(at: float = 50.0) -> Ended:
    return Ended(DEAD, 3, at, Result(500, "", b"", "ValueError", "no"))


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CallQueue]:
    if request.param == "memory":
        yield MemoryQueue(LIMITS)
        return
    async with SqliteQueue(tmp_path / "q.db", LIMITS) as made:
        yield made


async def ids(queue: CallQueue, now: float = 100.0, limit: int = 10, line: str = "ns/f") -> list[str]:
    return [record.call.id for record in (await queue.take(line, now, limit)).records]


async def test_what_is_put_is_taken_once_in_its_order(queue: CallQueue) -> None:
    given = call("a", headers={"x": "y"}, path="/p?q=1", key="k", callback="http://c")
    assert await queue.put([given, call("b"), call("other", function="ns/g"), call("later", 60.0)]) == [
        "a", "b", "other", "later",
    ]  # fmt: skip
    first = await queue.take("ns/f", 20.0, 1)
    assert [record.call for record in first.records] == [given]
    assert first.next_due == 10.0
    second = await queue.take("ns/f", 20.0, 5)
    assert [record.call.id for record in second.records] == ["b"]
    assert second.next_due == 60.0
    assert await queue.take("ns/f", 20.0, 5) == ([], 60.0)
    assert queue.is_taken("a")
    assert not queue.is_taken("later")
    queue.give_back("a")
    assert await ids(queue, 20.0) == ["a"]
    assert queue.waiting() == {"ns/f": Waiting(3, 9), "ns/g": Waiting(1, 3)}
    assert await ids(queue, line="ns/never") == []


async def test_no_more_is_taken_than_fits(queue: CallQueue) -> None:
    await queue.put([call(id, body=b"x" * 10) for id in "abcd"])
    assert [record.call.id for record in (await queue.take("ns/f", 20.0, 9, 25)).records] == ["a", "b"]
    rest = await queue.take("ns/f", 20.0, 9, 5)
    assert ([record.call.id for record in rest.records], rest.next_due) == (["c"], 10.0)  # one at least


async def test_a_key_is_used_once(queue: CallQueue) -> None:
    assert await queue.put([call("a", key="k"), call("b", key="k"), call("c", function="ns/g", key="k")]) == [
        "a", "a", "c",
    ]  # fmt: skip
    assert await queue.put([call("d", key="k")]) == ["a"]
    assert await ids(queue) == ["a"]
    await queue.settle("a", ok())
    assert await queue.put([call("e", key="k")]) == ["a"]  # also when it has ended
    assert queue.waiting() == {"ns/g": Waiting(1, 3)}


async def test_what_fails_is_due_again_later(queue: CallQueue) -> None:
    await queue.put([call("a"), call("b", 11.0)])
    await queue.take("ns/f", 20.0, 1)
    await queue.settle("a", Again(1, 70.0, Result(503, "", b"busy", "Busy")))
    assert await ids(queue, 20.0) == ["b"]
    assert await ids(queue, 69.9) == []
    ((record,), due) = await queue.take("ns/f", 70.0, 5)
    assert (record.call.id, record.attempts, record.since, due) == ("a", 1, 10.0, None)
    assert record.result == Result(503, "", b"busy", "Busy")


async def test_an_end_is_kept_with_what_follows_from_it(queue: CallQueue) -> None:
    await queue.put([call("a")])
    await ids(queue)
    await queue.settle("a", ok(then=(call("t", function="ns/f", target="http://u"), call("g", function="ns/g"))))
    found = await queue.find("ns/f", "a")
    assert found is not None
    assert (found.phase, found.attempts, found.ended) == (SUCCEEDED, 1, 50.0)
    assert (found.call.body, found.result) == (b"", Result(200, "text/plain", b"fine"))
    assert await queue.find("ns/g", "a") is None
    assert await queue.find("ns/f", "never") is None
    assert queue.waiting() == {"ns/f>": Waiting(1, 3), "ns/g": Waiting(1, 3)}
    assert await ids(queue, line="ns/f>") == ["t"]
    assert await ids(queue) == []
    await queue.settle("a", ok(b"twice"))  # of somebody who does not know
    assert (await queue.find("ns/f", "a")) == found


async def test_dead_letters_are_listed_sent_again_and_purged(queue: CallQueue) -> None:
    await queue.put([call(id) for id in "abcd"])
    await ids(queue)
    for id in "abc":
        await queue.settle(id, bad())
    first = await queue.dead("ns/f", limit=2)
    assert [(each.call.id, each.phase, each.call.body) for each in first] == [("a", DEAD, b"pay"), ("b", DEAD, b"pay")]
    assert [each.call.id for each in await queue.dead("ns/f", after=first[-1].number)] == ["c"]
    assert await queue.dead("ns/g") == []
    assert await queue.redrive("ns/f", ["b", "d", "never"], 80.0) == ["ns/f"]
    ((again,), _) = await queue.take("ns/f", 80.0, 5)
    assert (again.call.id, again.phase, again.attempts, again.since) == ("b", QUEUED, 0, 80.0)
    assert queue.waiting() == {"ns/f": Waiting(2, 6)}
    assert await queue.purge("ns/f", ["d", "a"]) == 1
    assert await queue.redrive("ns/g", None, 80.0) == []
    assert await queue.redrive("ns/f", None, 80.0) == ["ns/f"]
    assert await queue.purge("ns/f", None) == 0


async def test_many_ids_at_once(queue: CallQueue) -> None:
    many = [f"{number}" for number in range(1200)]
    await queue.put([call(id) for id in many])
    await ids(queue, limit=2000)
    await asyncio.gather(*(queue.settle(id, bad()) for id in many))
    assert len(await queue.redrive("ns/f", many, 1.0)) == 1200
    assert queue.waiting() == {"ns/f": Waiting(1200, 3600)}


async def test_what_is_forgotten_is_gone_and_stays_so(queue: CallQueue) -> None:
    await queue.put([call("a", key="k"), call("b"), call("t", target="http://u"), call("g", function="ns/g")])
    await ids(queue, limit=1)
    assert sorted(await queue.functions()) == ["ns/f", "ns/g"]
    await queue.forget("ns/f")
    await queue.settle("a", ok(then=(call("late"),)))
    assert await ids(queue) == await ids(queue, line="ns/f>") == []
    assert queue.waiting() == {"ns/g": Waiting(1, 3)}
    assert await queue.functions() == ["ns/g"]
    assert await queue.put([call("n", key="k")]) == ["n"]


async def test_what_has_ended_makes_room(queue: CallQueue) -> None:
    names = ["old", "b", "c", "d", "e"]
    await queue.put([call(id, key=id) for id in names])
    await ids(queue)
    await queue.settle("old", ok(at=1.0))
    for id in names[1:]:
        await queue.settle(id, ok(b"12345678"))
    assert await queue.trim(102.0) == 0
    kept = [await queue.find("ns/f", id) for id in names]
    assert kept[:2] == [None, None]  # too old; and more than three
    bodies = [each.result for each in kept if each is not None]
    assert [(each.body, each.cut) for each in bodies if each] == [
        (b"", True), (b"12345678", False), (b"12345678", False),
    ]  # fmt: skip
    assert await queue.put([call("new", key="c")]) == ["c"]  # known by its key all the same
    assert await queue.put([call("new", key="b")]) == ["new"]


async def test_dead_letters_make_room_at_last(queue: CallQueue) -> None:
    names = ["old", "b", "c", "d", "e"]
    await queue.put([call(id, body=b"12345678") for id in names])
    await ids(queue)
    await queue.settle("old", bad(at=1.0))
    for id in names[1:]:
        await queue.settle(id, bad())
    assert await queue.trim(202.0) == 3
    assert [each.call.id for each in await queue.dead("ns/f")] == ["d", "e"]
    assert await queue.trim(500.0) == 2


async def test_a_file_is_due_again_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "q.db"
    async with SqliteQueue(path) as queue:
        await queue.put([call("a", key="k"), call("b"), call("c"), call("d")])
        await queue.settle("c", bad())
        await queue.settle("d", Again(1, 90.0, Result(500)))
        assert await ids(queue, 20.0, 1) == ["a"]  # under way
    assert path.stat().st_mode & 0o777 == 0o600
    async with SqliteQueue(path) as queue:
        assert queue.waiting() == {"ns/f": Waiting(3, 9)}
        assert await queue.take("ns/f", 5.0, 9) == ([], 10.0)
        assert await ids(queue, 20.0) == ["a", "b"]
        assert await ids(queue, 90.0) == ["d"]
        assert await queue.put([call("x", key="k")]) == ["a"]


async def test_what_waits_is_written_together(tmp_path: Path) -> None:
    async with SqliteQueue(tmp_path / "q.db") as queue:
        commits: list[str] = []
        queue._db.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
        put = await asyncio.gather(*(queue.put([call(f"{number}")]) for number in range(200)))
        assert [id for (id,) in put] == [f"{number}" for number in range(200)]
        assert 1 <= len(commits) <= 3
