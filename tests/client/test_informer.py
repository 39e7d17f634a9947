"""A copy that stays true: through cut connections, lost history, objects that cannot be read, names given again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from minik8s.aio import background
from minik8s.api.errors import Gone, ServiceUnavailable, Timeout
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.pod import Pod
from minik8s.api.scheme import SCHEME
from minik8s.client.base import Client
from minik8s.client.informer import LONGEST_DELAY, Informer, Informers
from tests.client.wire import Wire, Wired, wired

RESOURCE = SCHEME.of(ConfigMap)


class Seen:
    """What handlers were told, as `+a`, `~a`, `-a`; `until` waits for the state that a test names."""

    def __init__(self, informer: Informer[ConfigMap]) -> None:
        self.words: list[str] = []
        self._changed = asyncio.Event()
        informer.on_change(self._note)

    def _note(self, old: ConfigMap | None, new: ConfigMap | None) -> None:
        some = new or old
        assert some is not None
        self.words.append(("+" if old is None else "-" if new is None else "~") + some.metadata.name)
        self._changed.set()

    async def until(self, *words: str) -> None:
        async with asyncio.timeout(5):
            while self.words[-len(words) :] != list(words):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def following(**scope: str) -> AsyncIterator[tuple[Wired, Informer[ConfigMap], Seen]]:
    async with wired() as it:
        informer = Informer(it.client, RESOURCE, ConfigMap, **scope)
        seen = Seen(informer)
        async with background(informer.run()):
            await informer.synced()
            await it.wire.opened.wait()
            yield it, informer, seen


async def put(client: Client, name: str, **labels: str) -> ConfigMap:
    return await client.create(ConfigMap, {"metadata": {"name": name, "labels": labels}}, "default")


async def change(client: Client, name: str, **data: str) -> ConfigMap:
    return await client.patch(ConfigMap, name, "default", {"data": data})


async def remove(client: Client, name: str) -> None:
    await client.delete(ConfigMap, name, "default")


async def test_handlers_are_told_of_each_change_in_order() -> None:
    async with following() as (it, informer, seen):
        await put(it.direct, "a")
        await change(it.direct, "a", x="1")
        await put(it.direct, "b")
        await remove(it.direct, "a")
        await seen.until("+a", "~a", "+b", "-a")
        assert [found.metadata.name for found in informer.list("default")] == ["b"]
        assert informer.get("default", "a") is None
        assert informer.by_key("default/b") is informer.get("default", "b")
        assert informer.list("elsewhere") == []
        assert len(informer) == 1


async def test_a_late_handler_is_given_what_is_there() -> None:
    async with following() as (it, informer, seen):
        await put(it.direct, "a")
        await seen.until("+a")
        assert Seen(informer).words == ["+a"]


async def test_a_cut_watch_goes_on_where_it_was_and_tells_nothing_twice() -> None:
    async with following() as (it, _informer, seen):
        await put(it.direct, "a")
        await remove(it.direct, "a")
        await seen.until("+a", "-a")
        lists = it.wire.lists
        it.wire.cut()
        await put(it.direct, "b")
        await seen.until("+b")
        assert seen.words == ["+a", "-a", "+b"]
        assert it.wire.lists == lists, "there was no need to list again"


async def test_lost_history_means_listing_again_and_no_deletion_is_missed() -> None:
    async with following() as (it, informer, seen):
        for name in ("a", "b", "c"):
            await put(it.direct, name)
        await seen.until("+c")
        it.wire.refusals = [Gone("too old")]
        it.wire.cut()
        await remove(it.direct, "b")
        await change(it.direct, "c", x="1")
        await put(it.direct, "d")
        await seen.until("+d")
        assert sorted(seen.words[3:]) == ["+d", "-b", "~c"]
        assert {found.metadata.name for found in informer.list()} == {"a", "c", "d"}


async def test_a_name_that_was_given_again_is_another_object() -> None:
    async with following() as (it, informer, seen):
        first = await put(it.direct, "a")
        await seen.until("+a")
        it.wire.refusals = [Gone("too old")]
        it.wire.cut()
        await remove(it.direct, "a")
        second = await put(it.direct, "a")
        await seen.until("+a", "-a", "+a")
        assert first.metadata.uid != second.metadata.uid == informer.list()[0].metadata.uid


async def test_indexes_follow_changes_and_forget_what_is_empty() -> None:
    async with following() as (it, informer, seen):
        informer.add_index("team", lambda found: [found.metadata.labels.get("team", "")])
        await put(it.direct, "a", team="x")
        await put(it.direct, "b", team="x")
        await seen.until("+b")
        assert {found.metadata.name for found in informer.by_index("team", "x")} == {"a", "b"}
        await it.direct.patch(ConfigMap, "a", "default", {"metadata": {"labels": {"team": "y"}}})
        await remove(it.direct, "b")
        await seen.until("~a", "-b")
        assert informer.by_index("team", "x") == ()
        assert [found.metadata.name for found in informer.by_index("team", "y")] == ["a"]
        informer.add_index("late", lambda found: [found.metadata.name])
        assert len(informer.by_index("late", "a")) == 1
        await remove(it.direct, "a")
        await seen.until("-a")
        assert informer._by_namespace == {}
        assert all(entries == {} for _, entries in informer._indexes.values())


async def test_a_selector_narrows_the_copy_and_what_leaves_it_is_deleted() -> None:
    async with following(labels="team=x") as (it, _informer, seen):
        await put(it.direct, "other", team="y")
        await put(it.direct, "a", team="x")
        await seen.until("+a")
        await it.direct.patch(ConfigMap, "a", "default", {"metadata": {"labels": {"team": "y"}}})
        await seen.until("-a")


async def test_waiting_for_ones_own_write() -> None:
    async with following() as (it, informer, _seen):
        made = await put(it.direct, "a")
        await informer.caught_up(made.metadata.resourceVersion)
        assert informer.get("default", "a") is not None
        await informer.caught_up("1")


@pytest.mark.looptime
async def test_waiting_for_what_does_not_come_ends() -> None:
    async with following() as (_it, informer, _seen):
        began = asyncio.get_running_loop().time()
        with pytest.raises(Timeout, match="configmaps is behind revision 1000000"):
            await informer.caught_up("1000000", timeout=7)
        assert asyncio.get_running_loop().time() - began == pytest.approx(7)
        assert not informer._waiters


def frame(type: str, **obj: Any) -> bytes:
    return msgspec.json.encode({"type": type, "object": obj})


async def test_an_object_that_cannot_be_read_is_left_out_and_its_end_is_seen() -> None:
    async with following() as (it, informer, seen):
        made = await put(it.direct, "a")
        await seen.until("+a")
        meta = {"name": "a", "namespace": "default", "resourceVersion": made.metadata.resourceVersion}
        it.wire.lies = [frame("MODIFIED", metadata=meta, data=7), frame("DELETED", metadata=meta, data=7)]
        it.wire.cut()
        await seen.until("-a")
        assert len(informer) == 0
        assert seen.words == ["+a", "-a"]


@pytest.mark.looptime
async def test_attempts_become_rare_and_are_frequent_again_after_a_good_time() -> None:
    async with following() as (it, _informer, _seen):
        loop = asyncio.get_running_loop()
        await asyncio.sleep(10)
        for round in (1, 2):
            it.wire.refusals = [ServiceUnavailable("away")] * 12
            tries = len(it.wire.watched_from)
            it.wire.cut()
            began = loop.time()
            await it.wire.opened.wait()
            waited = loop.time() - began
            assert len(it.wire.watched_from) - tries == 13, f"round {round}"
            assert 15 < waited < 60, "delays grow to some seconds"
            await asyncio.sleep(600)
            it.wire.refusals = [ServiceUnavailable("away")]
            it.wire.cut()
            began = loop.time()
            await it.wire.opened.wait()
            assert loop.time() - began < 1, "the first attempts after a good time are quick"
            await asyncio.sleep(600)


@pytest.mark.looptime
async def test_a_server_that_forgets_all_the_time_is_not_listed_all_the_time() -> None:
    async with following() as (it, _informer, _seen):
        it.wire.refusals = [Gone("too old")] * 12
        began, real = asyncio.get_running_loop().time(), time.monotonic()
        it.wire.cut()
        await it.wire.opened.wait()
        assert asyncio.get_running_loop().time() - began > 10
        assert time.monotonic() - real < 10


async def test_components_share_a_copy_and_may_ask_late() -> None:
    async with wired() as it:
        informers = Informers(it.client)
        first = informers.of(ConfigMap)
        async with background(informers.run()):
            await informers.synced()
            assert informers.of(ConfigMap) is first
            late = informers.of(ConfigMap, labels="a=b")
            assert late is not first
            assert not informers.has_synced
            await informers.synced()
            assert informers.has_synced
            assert informers.metadata(RESOURCE) is first


def test_a_wire_is_a_transport() -> None:
    from minik8s.client.base import Transport

    assert {name for name in vars(Transport) if not name.startswith("_")} <= set(dir(Wire))


class Herd:
    """A server that is away until `back`, and counts who knocks when (seconds of the loop)."""

    def __init__(self, back: float) -> None:
        self.back = back
        self.knocks: list[float] = []
        self.lists: list[float] = []

    async def request(self, method: str, path: str, **more: Any) -> bytes:
        now = asyncio.get_running_loop().time()
        self.knocks.append(now)
        if now < self.back:
            raise ServiceUnavailable("nobody is here")
        self.lists.append(now)
        return b'{"metadata": {"resourceVersion": "7"}, "items": []}'

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[Sequence[bytes]]]:
        async def never() -> AsyncIterator[Sequence[bytes]]:
            await asyncio.Event().wait()
            yield ()

        yield never()


@pytest.mark.looptime
async def test_two_hundred_nodes_do_not_come_back_as_a_herd() -> None:
    """Without a master nobody gives up, and nobody hurries; with it all are back soon, spread over seconds."""
    herd = Herd(back=90.0)
    client = Client(herd)
    informers = [Informer(client, client.resource(Pod), Pod, fields=f"spec.nodeName=n{i}") for i in range(200)]
    async with background(*(informer.run() for informer in informers)):
        for informer in informers:
            await informer.synced()
    assert len(herd.lists) == 200
    assert max(herd.lists) - herd.back <= LONGEST_DELAY
    waiting = [knock for knock in herd.knocks if 30 < knock < herd.back]
    assert len(waiting) <= 60 * 200 / (LONGEST_DELAY / 2)
    for knocks in (herd.lists, waiting):
        busiest = Counter(int(knock * 10) for knock in knocks).most_common(1)[0][1]
        assert busiest <= 30, f"{busiest} of 200 in a tenth of a second"
