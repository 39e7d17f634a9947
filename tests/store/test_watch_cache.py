"""The head: reads, read-your-writes, watches without gap or repetition, slow watchers, and what happens on failure."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import AsyncIterator, Callable

import pytest

from minik8s.api.errors import Gone, ServiceUnavailable, Timeout
from minik8s.store.base import CasFailed, Change, Record, Store, StoreUnavailable, stamp
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache
from minik8s.store.watcher import Watcher

Factory = Callable[..., Store]


def template(text: object = "") -> bytes:
    return b'{"metadata":{"resourceVersion":"","name":"x"},"data":"%s"}' % str(text).encode()


@pytest.fixture
async def cache(factory: Factory) -> AsyncIterator[WatchCache]:
    async with factory() as store, WatchCache(store) as cache:
        yield cache


async def take(watcher: Watcher, count: int) -> list[Change]:
    seen: list[Change] = []
    async with asyncio.timeout(20):
        while len(seen) < count:
            seen += await watcher.next()
    return seen


async def test_reads_see_each_write_as_soon_as_it_is_answered(cache: WatchCache):
    begin = cache.revision
    assert cache.get("/pods/a/x") is None
    assert cache.list("/pods/") == ([], begin)
    made = await cache.write("/pods/a/x", template(1), expect=0)
    assert cache.get("/pods/a/x") == made.record()
    assert cache.revision == made.rev
    changed = await cache.write("/pods/a/x", template(2), expect=made.rev)
    assert cache.list("/pods/") == ([changed.record()], changed.rev)
    gone = await cache.write("/pods/a/x", None, expect=changed.rev)
    assert cache.get("/pods/a/x") is None
    assert cache.list("/pods/") == ([], gone.rev)


async def test_lists_are_sorted_and_keep_to_their_folder(cache: WatchCache):
    keys = [
        f"/{kind}/{space}/{n}" for kind in ("pods", "podtemplates") for space in ("a", "a-b", "b") for n in range(4)
    ]
    random.Random(1).shuffle(keys)
    await asyncio.gather(*(cache.write(key, template(), expect=0) for key in keys))
    for key in keys[::3]:
        await cache.write(key, None, expect=None)
    living = sorted(set(keys) - set(keys[::3]))
    for prefix in ("/pods/", "/podtemplates/", "/pods/a/", "/pods/a-b/", "/pods/b/", "/pods/c/", "/nodes/"):
        records, rev = cache.list(prefix)
        assert [record.key for record in records] == [key for key in living if key.startswith(prefix)]
        assert rev == cache.revision


async def test_the_head_is_filled_from_the_store(factory: Factory):
    async with factory() as store, WatchCache(store) as cache:
        for n in (3, 1, 2):
            await cache.write(f"/pods/a/{n}", template(n), expect=0)
        before = cache.list("/pods/")[0]
    async with factory() as store, WatchCache(store) as cache:
        assert cache.list("/pods/")[0] == before
        assert [record.key for record in before] == ["/pods/a/1", "/pods/a/2", "/pods/a/3"]


async def test_a_refused_write_comes_back_when_the_head_shows_why(cache: WatchCache):
    async def increment() -> int:
        attempts = 0
        while True:
            seen = cache.get("/counters/a")
            number = int(seen.value.split(b'"')[-2]) if seen else 0
            try:
                await cache.write("/counters/a", template(number + 1), expect=seen.rev if seen else 0)
            except CasFailed:
                attempts += 1
                assert cache.get("/counters/a") != seen
            else:
                return attempts

    await asyncio.gather(*(increment() for _ in range(20)))
    assert cache.get("/counters/a").value.endswith(b'"data":"20"}')


async def test_list_then_watch_has_no_gap_and_no_repetition(factory: Factory):
    chance = random.Random(3)
    async with factory() as store, WatchCache(store, ring=20) as cache:
        results: list[tuple[dict[str, Record], Watcher]] = []

        async def work(worker: int) -> None:
            for n in range(30):
                key = f"/pods/{'ab'[worker % 2]}/{worker}-{chance.randrange(3)}"
                value = None if cache.get(key) and chance.random() < 0.3 else template(n)
                await cache.write(key, value, expect=None)

        async def look(prefix: str) -> None:
            for _ in range(10):
                records, rev = cache.list(prefix)
                for _ in range(chance.randrange(5)):
                    await asyncio.sleep(0)
                results.append(({record.key: record for record in records}, await cache.watch(prefix, rev)))

        await asyncio.gather(*(work(n) for n in range(8)), look("/pods/"), look("/pods/a/"), look("/"))
        last = await cache.write("/pods/a/last", template(), expect=0)
        for state, watcher in results:
            seen: list[Change] = []
            while not seen or seen[-1].rev < last.rev:
                seen += await take(watcher, 1)
            assert [c.rev for c in seen] == sorted({c.rev for c in seen})
            for change in seen:
                assert change.prev == state.get(change.key)
                if (record := change.record()) is None:
                    del state[change.key]
                else:
                    state[change.key] = record
            assert sorted(state.values()) == cache.list(watcher.prefix)[0]


async def test_a_watch_begins_in_the_ring_in_the_history_or_not_at_all(factory: Factory):
    async with factory() as store, WatchCache(store, ring=3) as cache:
        begin = cache.revision
        done = [await cache.write(f"/pods/a/{n % 4}", template(n), expect=None) for n in range(10)]
        for after, expected in (
            (begin, done),
            (done[0].rev, done[1:]),
            (done[6].rev, done[7:]),
            (done[8].rev, done[9:]),
        ):
            with await cache.watch("/pods/a/", after) as watcher:
                assert await take(watcher, len(expected)) == expected
        with await cache.watch("/pods/a/2", begin) as watcher:
            assert await take(watcher, 2) == [c for c in done if c.key == "/pods/a/2"]
        await store.compact(done[5].rev)
        with pytest.raises(Gone, match="too old resource version"):
            await cache.watch("/pods/a/", done[4].rev)
        with await cache.watch("/pods/", done[5].rev) as watcher:
            assert await take(watcher, 4) == done[6:]


async def test_a_watch_from_the_future_waits_for_it_a_moment(cache: WatchCache):
    with pytest.raises(Timeout, match="Too large resource version"):
        await cache.wait(cache.revision + 1, limit=0.01)
    assert cache._waiters == []
    made = await cache.write("/pods/a/x", template(), expect=0)
    watching = asyncio.create_task(cache.watch("/pods/", made.rev + 1))
    await asyncio.sleep(0)
    changed = await cache.write("/pods/a/x", template(), expect=None)
    later = await cache.write("/pods/a/x", template(), expect=None)
    assert changed.rev == made.rev + 1
    assert await take(await watching, 1) == [later]


async def test_a_slow_watcher_is_told_to_list_again():
    async with MemoryStore() as store, WatchCache(store, buffer=5) as cache:
        slow, quick = await cache.watch("/pods/", 0), await cache.watch("/pods/", 0)
        for n in range(6):
            await cache.write("/pods/a/x", template(n), expect=None)
            await quick.next()
        with pytest.raises(Gone, match="5 changes behind"):
            await slow.next()
        with pytest.raises(Gone, match="5 changes behind"):
            await slow.next()
        with pytest.raises(Gone, match="5 changes behind"):
            await (await cache.watch("/pods/", 0)).next()
        await cache.write("/pods/a/x", None, expect=None)
        assert [change.value for change in await quick.next()] == [None]


async def test_a_closed_watcher_leaves_nothing_behind(cache: WatchCache):
    watchers = [await cache.watch(prefix, cache.revision) for prefix in ("/pods/", "/pods/", "/nodes/")]
    gone = [weakref.ref(watcher) for watcher in watchers]
    await cache.write("/pods/a/x", template(), expect=0)
    for watcher in watchers:
        watcher.close()
        watcher.close()
    with pytest.raises(Gone, match="closed"):
        await watchers[0].next()
    assert cache._watchers == {}
    del watchers, watcher
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


async def test_cancelling_next_loses_nothing(cache: WatchCache):
    with await cache.watch("/pods/", cache.revision) as watcher:
        waiting = asyncio.ensure_future(watcher.next())
        await asyncio.sleep(0)
        writing = asyncio.ensure_future(cache.write("/pods/a/x", template(), expect=0))
        while watcher._sleeper is not None:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert await take(watcher, 1) == [await writing]


async def test_iteration_yields_change_after_change(cache: WatchCache):
    with await cache.watch("/pods/", cache.revision) as watcher:
        done = [await cache.write("/pods/a/x", template(n), expect=None) for n in range(3)]
        seen: list[Change] = []
        async for change in watcher:
            seen.append(change)
            if len(seen) == 3:
                break
        assert seen == done


async def test_when_the_store_fails_everyone_is_told():
    async with MemoryStore() as store, WatchCache(store) as cache:
        running = asyncio.create_task(cache.run())
        made = await cache.write("/pods/a/x", template(), expect=0)
        watcher = await cache.watch("/pods/", made.rev)
        waiting = asyncio.create_task(watcher.next())
        future = asyncio.create_task(cache.wait(made.rev + 1))
        await asyncio.sleep(0)
        store.fail("the disk is full")
        writes = [cache.write(f"/pods/a/{n}", template(), expect=0) for n in range(3)]
        results = await asyncio.gather(*writes, waiting, future, return_exceptions=True)
        assert [type(result) for result in results] == [ServiceUnavailable] * 5
        assert {str(result) for result in results} == {"the disk is full"}
        with pytest.raises(StoreUnavailable, match="full"):
            await running
        for attempt in (
            cache.write("/pods/a/y", template(), expect=0),
            cache.watch("/pods/", made.rev),
            cache.wait(99),
        ):
            with pytest.raises(ServiceUnavailable, match="full"):
                await attempt
        assert cache.list("/pods/") == ([made.record()], made.rev)
    async with store, WatchCache(store) as cache:
        assert cache.list("/pods/") == ([made.record()], made.rev)
        await cache.write("/pods/a/y", template(), expect=0)


async def test_cut_off_for_too_long_the_head_is_loaded_anew(monkeypatch: pytest.MonkeyPatch):
    async with MemoryStore() as store:
        start = store.changes
        gate = asyncio.Event()

        async def late(after: int):
            await gate.wait()
            async for batch in start(after):
                yield batch

        monkeypatch.setattr(store, "changes", late)
        async with WatchCache(store) as cache:
            watcher = await cache.watch("/pods/", 0)
            done = [await store.write(f"/pods/a/{n}", template(n), expect=0) for n in range(4)]
            await store.compact(done[2].rev)
            gate.set()
            with pytest.raises(Gone, match="list again"):
                await watcher.next()
            assert cache.list("/pods/") == ([change.record() for change in done], done[-1].rev)
            await cache.write("/pods/a/0", None, expect=done[0].rev)
            with pytest.raises(Gone):
                await cache.watch("/pods/", done[1].rev)


async def test_leaving_ends_watchers_and_waits():
    async with MemoryStore() as store:
        async with WatchCache(store) as cache:
            watcher = await cache.watch("/pods/", 0)
            running = asyncio.create_task(cache.run())
            await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailable, match="shutting down"):
            await watcher.next()
        await asyncio.wait([running])
        assert running.cancelled()


async def test_a_delivery_shares_the_bytes():
    async with MemoryStore() as store, WatchCache(store) as cache:
        watchers = [await cache.watch("/pods/", 0) for _ in range(3)]
        made = await cache.write("/pods/a/x", template("y"), expect=0)
        assert made.value == stamp(template("y"), made.rev)
        seen = [(await watcher.next())[0].value for watcher in watchers]
        assert all(value is cache.get("/pods/a/x").value for value in seen)
