"""What every store promises, tried on each of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing

import pytest

from minik8s.store.base import CasFailed, Change, Compacted, Store, stamp

Factory = Callable[..., Store]


def template(text: str = "") -> bytes:
    return b'{"metadata":{"resourceVersion":"","name":"x"},"data":"%s"}' % text.encode()


async def collect(store: Store, after: int, upto: int) -> list[Change]:
    """All that `changes` reports up to revision `upto`."""
    seen: list[Change] = []
    async with asyncio.timeout(20), aclosing(store.changes(after)) as batches:
        async for batch in batches:
            seen += batch
            if seen[-1].rev >= upto:
                return seen
    raise AssertionError("changes() ended")


def test_stamp_fills_in_and_replaces_the_revision():
    first = stamp(template("a"), 7)
    assert first == b'{"metadata":{"resourceVersion":"7","name":"x"},"data":"a"}'
    assert stamp(first, 1234) == stamp(template("a"), 1234)


async def test_life_of_a_key(store: Store):
    made = await store.write("/pods/default/a", template("1"), expect=0)
    assert made == ("/pods/default/a", made.rev, stamp(template("1"), made.rev), None)
    changed = await store.write("/pods/default/a", template("2"), expect=made.rev)
    assert changed.rev > made.rev
    assert changed.prev == made.record()
    assert changed.record().create_rev == made.rev
    again = await store.write("/pods/default/a", template("3"), expect=None)
    gone = await store.write("/pods/default/a", None, expect=again.rev)
    assert (gone.value, gone.prev) == (None, again.record())
    assert gone.rev > again.rev
    new = await store.write("/pods/default/a", template("4"), expect=0)
    assert new.prev is None
    assert new.record().create_rev == new.rev > gone.rev


async def test_compare_and_swap_refuses_and_says_what_is_there(store: Store):
    with pytest.raises(CasFailed) as absent:
        await store.write("/pods/default/a", template(), expect=5)
    assert absent.value.current is None
    made = await store.write("/pods/default/a", template(), expect=0)
    for value, expect in ((template(), 0), (template(), made.rev + 1), (None, made.rev + 1), (None, 0)):
        with pytest.raises(CasFailed) as failed:
            await store.write("/pods/default/a", value, expect=expect)
        assert failed.value.current == made.record()
    for expect in (None, 0, 3):
        with pytest.raises(CasFailed) as absent:
            await store.write("/pods/default/none", None, expect=expect)
        assert absent.value.current is None


@pytest.mark.parametrize(
    ("key", "value"), [("pods/a", template()), ("/pods/a", b"{}"), ("/pods/a", stamp(template(), 1))]
)
async def test_callers_mistakes(store: Store, key: str, value: bytes):
    with pytest.raises(ValueError):
        await store.write(key, value, expect=0)


async def test_64_writers_on_one_key_each_revision_has_one_winner(store: Store):
    start = await store.write("/counters/a", template("0"), expect=0)
    current = [start.record()]
    wins: list[Change] = []

    async def count_up() -> None:
        for _ in range(3):
            while True:
                seen = current[0]
                number = json.loads(seen.value)["data"]
                try:
                    change = await store.write("/counters/a", template(str(int(number) + 1)), expect=seen.rev)
                except CasFailed as failed:
                    current[0] = max(current[0], failed.current, key=lambda record: record.rev)
                else:
                    current[0] = max(current[0], change.record(), key=lambda record: record.rev)
                    wins.append(change)
                    break

    await asyncio.gather(*(count_up() for _ in range(64)))
    wins.sort(key=lambda change: change.rev)
    assert len({change.rev for change in wins}) == len(wins) == 192
    for before, after in zip([start, *wins], wins, strict=False):
        assert after.prev == before.record()
    assert json.loads(current[0].value)["data"] == "192"


async def test_changes_come_exactly_once_in_order(store: Store):
    begin, _ = await store.load()
    first = [await store.write(f"/pods/a/{n}", template(str(n)), expect=0) for n in range(3)]
    consumers = [asyncio.create_task(collect(store, begin, 10**18)) for _ in range(2)]
    results: list[Change] = []

    async def work(worker: int) -> None:
        for n in range(10):
            results.append(await store.write(f"/pods/a/w{worker}-{n % 3}", template(str(n)), expect=None))
        results.append(await store.write(f"/pods/a/w{worker}-0", None, expect=None))

    await asyncio.gather(*(work(n) for n in range(8)))
    for consumer in consumers:
        consumer.cancel()
    expected = first + sorted(results, key=lambda change: change.rev)
    for after in (begin, first[1].rev, first[2].rev, expected[40].rev):
        assert await collect(store, after, expected[-1].rev) == [c for c in expected if c.rev > after]


async def test_changes_follow_live(store: Store):
    begin, _ = await store.load()
    async with aclosing(store.changes(begin)) as batches:
        upcoming = asyncio.ensure_future(anext(batches))
        for n in range(3):
            change = await store.write("/pods/a/x", template(str(n)), expect=None)
            async with asyncio.timeout(10):
                assert list(await upcoming) == [change]
            upcoming = asyncio.ensure_future(anext(batches))
        upcoming.cancel()
        await asyncio.wait([upcoming])


async def test_history_is_a_slice_of_the_changes(store: Store):
    begin, _ = await store.load()
    keys = [f"/{'pods' if n % 2 else 'po_s'}/a/{n % 4}" for n in range(12)]
    done = [await store.write(key, template(str(n)), expect=None) for n, key in enumerate(keys)]
    done.append(await store.write("/pods/a/1", None, expect=None))
    assert await store.history("", begin, done[-1].rev) == done
    assert await store.history("/po_s/", begin, done[-1].rev) == [c for c in done if c.key.startswith("/po_s/")]
    assert await store.history("/", done[2].rev, done[9].rev) == done[3:10]
    assert await store.history("/nothing/", begin, done[-1].rev) == []
    assert await store.history("", done[-1].rev, done[-1].rev) == []


async def test_compaction_forgets_the_past_and_keeps_the_living(store: Store):
    begin, _ = await store.load()
    done = [await store.write(f"/pods/a/{n % 3}", template(str(n)), expect=None) for n in range(9)]
    done.append(await store.write("/pods/a/0", None, expect=None))
    done += [await store.write(f"/pods/a/{n % 3}", template(str(n)), expect=None) for n in range(1, 3)]
    _, before = await store.load()
    await store.compact(done[7].rev)
    assert store.floor == done[7].rev
    assert await store.history("", done[7].rev, done[-1].rev) == done[8:]
    for after in (begin, done[6].rev):
        with pytest.raises(Compacted):
            await store.history("", after, done[-1].rev)
        with pytest.raises(Compacted):
            await anext(store.changes(after))
    assert sorted((await store.load())[1]) == sorted(before)
    await store.check()


async def test_content_history_and_revision_survive_a_restart(factory: Factory):
    async with factory() as store:
        await store.load()
        done = [await store.write(f"/pods/a/{n}", template(str(n)), expect=0) for n in range(5)]
        for n in range(5):
            done.append(await store.write(f"/pods/a/{n}", None, expect=None))
        done.append(await store.write("/pods/a/ä", template("ü"), expect=0))
        revision, records = await store.load()
    async with factory() as store:
        again, same = await store.load()
        assert again >= revision
        assert same == records == [done[-1].record()]
        assert await store.history("", done[1].rev, done[-1].rev) == done[2:]


async def test_the_revision_never_goes_back_even_if_all_is_deleted_and_compacted(factory: Factory):
    async with factory() as store:
        await store.load()
        await store.write("/pods/a/a", template(), expect=0)
        last = (await store.write("/pods/a/a", None, expect=None)).rev
        await store.compact(last)
    async with factory() as store:
        revision, records = await store.load()
        assert revision >= last
        assert records == []
        assert (await store.write("/pods/a/a", template(), expect=0)).rev > last


async def test_history_is_bounded(factory: Factory):
    async with factory(keep=100) as store:
        begin, _ = await store.load()

        async def work(worker: int) -> int:
            for n in range(50):
                change = await store.write(f"/pods/a/{worker}", template(str(n)), expect=None)
            return change.rev

        follower = asyncio.create_task(collect(store, begin, begin + 1600))
        last = max(await asyncio.gather(*(work(n) for n in range(32))))
        assert len(await follower) == 1600
        assert store.floor >= last - 1100
        assert len(await store.history("", store.floor, last)) == last - store.floor
        assert len((await store.load())[1]) == 32


async def test_a_cancelled_writer_leaves_no_trace_of_confusion(store: Store):
    begin, _ = await store.load()
    task = asyncio.create_task(store.write("/pods/a/a", template("1"), expect=0))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    change = await store.write("/pods/a/b", template("2"), expect=0)
    seen = await collect(store, begin, change.rev)
    assert seen[-1] == change
    _, records = await store.load()
    assert {record.key for record in records} == {c.key for c in seen}


async def test_many_records_are_loaded_in_pages(factory: Factory):
    async with factory() as store:
        await store.load()
        await asyncio.gather(*(store.write(f"/pods/a/{n:04}", template("x" * 5000), expect=0) for n in range(1100)))
        _, records = await store.load()
        assert sorted(record.key for record in records) == [f"/pods/a/{n:04}" for n in range(1100)]


async def test_a_snapshot_taken_amid_writes_is_the_state_at_its_revision(store: Store):
    begin, _ = await store.load()
    snapshots: list[tuple[int, list]] = []

    async def work(worker: int) -> int:
        for n in range(6):
            change = await store.write(f"/pods/a/{worker % 4}", None if n % 3 == 2 else template(str(n)), expect=None)
        return change.rev

    async def look() -> None:
        for _ in range(10):
            snapshots.append(await store.load())
            await asyncio.sleep(0)

    results = await asyncio.gather(*(work(n) for n in range(4)), look())
    changes = await store.history("", begin, max(results[:4]))
    for revision, records in snapshots:
        state = {change.key: change.record() for change in changes if change.rev <= revision}
        assert sorted(records) == sorted(record for record in state.values() if record)
