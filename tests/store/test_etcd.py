"""What only etcd can do: serve several masters, go away and come back, hold other people's data."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from minik8s.api.errors import RequestEntityTooLarge
from minik8s.store import etcd as driver
from minik8s.store.base import CasFailed, Change, StoreCorrupt, StoreUnavailable
from minik8s.store.etcd import EtcdStore
from minik8s.store.watch_cache import WatchCache

pytestmark = pytest.mark.etcd


def template(text: object = "") -> bytes:
    return b'{"metadata":{"resourceVersion":"","name":"x"},"data":"%s"}' % str(text).encode()


async def test_two_masters_share_one_truth(etcd):
    async with AsyncExitStack() as stack:
        masters: list[WatchCache] = []
        for _ in range(2):
            store = await stack.enter_async_context(EtcdStore([("127.0.0.1", etcd.port)]))
            masters.append(await stack.enter_async_context(WatchCache(store)))
        begin = masters[1].revision
        watchers = [await master.watch("/counters/", begin) for master in masters]

        async def count(master: WatchCache) -> None:
            for _ in range(10):
                while True:
                    seen = master.get("/counters/a")
                    number = int(seen.value.split(b'"')[-2]) if seen else 0
                    try:
                        await master.write("/counters/a", template(number + 1), expect=seen.rev if seen else 0)
                        break
                    except CasFailed:
                        pass

        await asyncio.gather(*(count(master) for master in masters * 4))
        last = await masters[0].write("/counters/a", None, expect=None)
        await masters[1].wait(last.rev)
        assert masters[1].get("/counters/a") is None
        seen = [await _take(watcher, 81) for watcher in watchers]
        assert seen[0] == seen[1]
        assert [change.prev for change in seen[0][1:]] == [change.record() for change in seen[0][:-1]]


async def _take(watcher, count: int) -> list[Change]:
    seen: list[Change] = []
    async with asyncio.timeout(30):
        while len(seen) < count:
            seen += await watcher.next()
    return seen


async def test_after_a_lost_connection_the_watch_goes_on_where_it_was(etcd):
    loop = asyncio.get_running_loop()
    async with EtcdStore([("127.0.0.1", etcd.port)]) as store, WatchCache(store) as cache:
        watcher = await cache.watch("/pods/", cache.revision)
        done = [await cache.write(f"/pods/a/{n}", template(n), expect=0) for n in range(3)]
        for n in range(3, 6):
            await loop.run_in_executor(None, etcd.kill)
            await asyncio.sleep(0.05)
            await loop.run_in_executor(None, etcd.start)
            async with EtcdStore([("127.0.0.1", etcd.port)]) as other:
                done.append(await other.write(f"/pods/a/{n}", template(n), expect=0))
        done.append(await cache.write("/pods/a/0", None, expect=None))
        assert await _take(watcher, len(done)) == done
        assert len(cache.list("/pods/")[0]) == 5


async def test_cut_off_beyond_a_compaction_the_head_loads_anew(etcd):
    loop = asyncio.get_running_loop()
    async with EtcdStore([("127.0.0.1", etcd.port)]) as store, WatchCache(store) as cache:
        await cache.write("/pods/a/0", template(), expect=0)
        watcher = await cache.watch("/pods/", cache.revision)
        await loop.run_in_executor(None, etcd.kill)
        real, etcd.port = etcd.port, etcd.spare_port()  # it comes back where only another master finds it
        await loop.run_in_executor(None, etcd.start)
        async with EtcdStore([("127.0.0.1", etcd.port)]) as other:
            await other.load()
            done = [await other.write(f"/pods/a/{n}", template(n), expect=None) for n in range(4)]
            await other.compact(done[-1].rev)
        await loop.run_in_executor(None, etcd.kill)
        etcd.port = real
        await loop.run_in_executor(None, etcd.start)
        with pytest.raises(Exception, match="list again"):
            await _take(watcher, 5)
        assert cache.list("/pods/")[0] == [change.record() for change in done]
        await cache.write("/pods/a/0", None, expect=done[0].rev)


async def test_an_etcd_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(driver, "TIMEOUT", 0.3)
    async with EtcdStore([("127.0.0.1", 1)]) as store:
        for attempt in (store.load(), store.write("/pods/a/x", template(), expect=0), store.check(), store.compact(5)):
            if attempt.__name__ == "compact":
                await attempt  # nothing is known to be there, so there is nothing to do
                continue
            with pytest.raises(StoreUnavailable, match=r"etcd at 127.0.0.1:1 cannot be reached"):
                await attempt
    with pytest.raises(StoreUnavailable, match=r"no\.such\.host\.invalid cannot be resolved"):
        await EtcdStore([("no.such.host.invalid", 2379)]).__aenter__()


async def test_the_second_endpoint_serves_when_the_first_is_down(etcd):
    async with EtcdStore([("127.0.0.1", 1), ("localhost", etcd.port)]) as store:
        await store.load()
        await store.write("/pods/a/x", template(), expect=0)
        assert len((await store.load())[1]) == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [(b"/minik8s/.mark", b"99", "format b'99'"), (b"/minik8s/pods/a/x", b"{}", "did not write")],
)
async def test_foreign_or_newer_data_is_refused_and_left_alone(etcd, key: bytes, value: bytes, message: str):
    import aetcd

    async with aetcd.Client("127.0.0.1", etcd.port) as client:
        await client.put(key, value)
        async with EtcdStore([("127.0.0.1", etcd.port)]) as store:
            with pytest.raises(StoreCorrupt, match=message):
                await store.load()
        left = await client.get_prefix(b"/minik8s/")
        assert [(kv.key, kv.value) for kv in left] == [(key, value)]


async def test_an_object_larger_than_etcd_takes(etcd):
    async with EtcdStore([("127.0.0.1", etcd.port)]) as store, WatchCache(store) as cache:
        with pytest.raises(RequestEntityTooLarge, match="larger than etcd"):
            await cache.write("/pods/a/x", template("x" * 2_000_000), expect=0)
        await cache.write("/pods/a/x", template(), expect=0)


async def test_other_peoples_keys_in_the_same_etcd_do_no_harm(etcd):
    import aetcd

    async with aetcd.Client("127.0.0.1", etcd.port) as client:
        async with EtcdStore([("127.0.0.1", etcd.port)]) as store, WatchCache(store) as cache:
            await client.put(b"/minik8s-other", b"x")
            made = await cache.write("/pods/a/x", template(), expect=0)
            await client.put(b"/minik8", b"y")
            with pytest.raises(CasFailed):
                await cache.write("/pods/a/x", template(), expect=0)
            gone = await cache.write("/pods/a/x", None, expect=made.rev)
            assert await store.history("", made.rev - 1, gone.rev) == [made, gone]
        async with EtcdStore([("127.0.0.1", etcd.port)]) as store:
            assert (await store.load())[1] == []


async def test_leaving_the_store_first_does_not_look_like_a_cancellation(etcd):
    async with EtcdStore([("127.0.0.1", etcd.port)]) as store:
        revision, _ = await store.load()
        following = asyncio.create_task(_follow(store, revision))
        await store.write("/pods/a/x", template(), expect=0)
        await asyncio.sleep(0.05)
    with pytest.raises(StoreUnavailable, match="closed"):
        await following


async def _follow(store: EtcdStore, after: int) -> None:
    async for _ in store.changes(after):
        pass
