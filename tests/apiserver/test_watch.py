"""Watches: order, no gaps, no repetition, selectors, bookmarks, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing

import msgspec
import pytest
from api_harness import ADMIN, TABLE, Api, config_map

from minik8s.apiserver import watch
from minik8s.apiserver.request import ApiRequest

CMS = "/api/v1/namespaces/default/configmaps"


def told(events: list[dict]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in events]


async def test_changes_after_a_list(api: Api) -> None:
    await api.post(CMS, config_map("before"))
    version = (await api.get(CMS))["metadata"]["resourceVersion"]
    await api.post(CMS, config_map("a"))
    await api.post("/api/v1/namespaces/other/configmaps", config_map("elsewhere"))
    await api.patch(f"{CMS}/a", {"data": {"k": "v"}})
    gone = await api.delete(f"{CMS}/a")
    assert gone.code == 200
    events = await api.watch(f"{CMS}?watch=true&resourceVersion={version}", 3)
    assert told(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    assert versions[0] > int(version)
    everywhere = await api.watch(f"/api/v1/configmaps?watch=1&resourceVersion={version}", 4)
    assert told(everywhere)[1] == ("ADDED", "elsewhere")


@pytest.mark.parametrize("version", ["", "&resourceVersion=0"])
async def test_without_a_version_it_begins_with_what_is_there(api: Api, version: str) -> None:
    await api.post(CMS, config_map("b"))
    await api.post(CMS, config_map("a"))
    assert told(await api.watch(f"{CMS}?watch=true{version}", 2)) == [("ADDED", "a"), ("ADDED", "b")]


async def test_send_initial_events(api: Api) -> None:
    await api.post(CMS, config_map("a"))
    query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    added, mark = await api.watch(f"{CMS}?{query}", 2)
    assert added["type"] == "ADDED"
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert mark["object"]["metadata"]["resourceVersion"] == str(api.cache.revision)
    assert (await api.get(f"{CMS}?watch=true&sendInitialEvents=true")).code == 422


async def test_what_leaves_a_selection_is_deleted_for_its_watchers(api: Api) -> None:
    version = api.cache.revision
    await api.post(CMS, config_map("a", metadata={"labels": {"on": "no"}}))
    await api.patch(f"{CMS}/a", {"metadata": {"labels": {"on": "yes"}}})
    await api.patch(f"{CMS}/a", {"data": {"k": "v"}})
    last = await api.patch(f"{CMS}/a", {"metadata": {"labels": {"on": "no"}}})
    await api.delete(f"{CMS}/a")
    await api.post(CMS, config_map("end", metadata={"labels": {"on": "yes"}}))
    events = await api.watch(f"{CMS}?watch=true&resourceVersion={version}&labelSelector=on=yes", 4)
    assert told(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "end")]
    left = events[2]["object"]
    assert left["metadata"]["labels"] == {"on": "yes"}
    assert left["metadata"]["resourceVersion"] == last["metadata"]["resourceVersion"]


async def test_of_one_name(api: Api) -> None:
    version = api.cache.revision
    for name in ("a", "ab", "b"):
        await api.post(CMS, config_map(name))
    await api.delete(f"{CMS}/a")
    events = await api.watch(f"{CMS}?watch=true&resourceVersion={version}&fieldSelector=metadata.name=a", 2)
    assert told(events) == [("ADDED", "a"), ("DELETED", "a")]
    legacy = await api.watch(f"/api/v1/watch/namespaces/default/configmaps/ab?resourceVersion={version}", 1)
    assert told(legacy) == [("ADDED", "ab")]
    spread = await api.watch(
        f"/api/v1/configmaps?watch=true&resourceVersion={version}&fieldSelector=metadata.name=b", 1
    )
    assert told(spread) == [("ADDED", "b")]
    assert told(await api.watch("/api/v1/namespaces?watch=1&fieldSelector=metadata.name=other", 1)) == [
        ("ADDED", "other")
    ]


async def test_old_versions_are_gone(api: Api) -> None:
    await api.cache._store.compact(api.cache.revision)
    api.cache._ring_floor = api.cache.revision
    (event,) = await api.watch(f"{CMS}?watch=true&resourceVersion=1", 1)
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


async def test_bookmarks_and_the_end(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "BOOKMARK_INTERVAL", 0.02)
    await api.post("/api/v1/namespaces/other/configmaps", config_map("a"))
    path = f"{CMS}?watch=true&resourceVersion=1&allowWatchBookmarks=true"
    (mark,) = await api.watch(path, 1)
    assert mark == {
        "type": "BOOKMARK",
        "object": {
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"resourceVersion": str(api.cache.revision), "creationTimestamp": None},
        },
    }  # fmt: skip
    assert await api.watch(f"{CMS}?watch=true&resourceVersion=1&timeoutSeconds=0.05", 1) == []


async def test_cancellation_frees_everything(api: Api) -> None:
    answer = await api.get(f"{CMS}?watch=true&resourceVersion={api.cache.revision}")
    stream = answer.raw.stream
    assert stream is not None

    async def follow() -> None:
        async with aclosing(stream) as batches:
            async for _ in batches:
                pass

    task = asyncio.create_task(follow())
    while not api.cache._watchers:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert not api.cache._watchers


async def test_watchers_share_frames(api: Api) -> None:
    version = api.cache.revision
    await api.post(CMS, config_map("a"))
    frames = []
    for _ in range(2):
        answer = await api.get(f"{CMS}?watch=true&resourceVersion={version}")
        assert answer.raw.stream is not None
        async with aclosing(answer.raw.stream) as batches:
            frames.append((await anext(batches))[0])
    assert frames[0] is frames[1]
    assert msgspec.json.decode(frames[0])["type"] == "ADDED"


async def test_changes_are_pushed_past_a_stream_that_waits(api: Api) -> None:
    """In order, each once, whether the connection takes them or not, and made once for all connections."""
    rng, names, told_by = random.Random(4), [], []
    chunks: list[list[bytes]] = [[], [], []]
    tasks = []

    async def follow(index: int, selector: str) -> None:
        def push(chunk: bytes) -> bool:
            taken = index < 2 or rng.random() < 0.5
            if taken:
                chunks[index].append(chunk)
                seen[index] += told([msgspec.json.decode(f) for f in chunk.split(b"\r\n")[1].splitlines()])
            return taken

        query = {"watch": "1", "resourceVersion": str(version), "labelSelector": selector}
        answer = await api.handler.handle(ApiRequest("GET", CMS, query, user=ADMIN, push=push))
        assert answer.stream is not None
        async with aclosing(answer.stream) as batches:
            async for batch in batches:
                told_by.append(index)
                seen[index] += told([msgspec.json.decode(frame) for frame in batch])
                await asyncio.sleep(0)

    version = api.cache.revision
    seen: list[list[tuple[str, str]]] = [[], [], []]
    for index, selector in enumerate(("", "", "on=yes")):
        tasks.append(asyncio.create_task(follow(index, selector)))
    await asyncio.sleep(0)
    for number in range(60):
        labels = {"on": "yes" if number % 3 else "no"}
        names.append(f"c{number:02}")
        await asyncio.gather(api.post(CMS, config_map(names[-1], metadata={"labels": labels})))
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
    await until(lambda: seen[2][-1:] == [("ADDED", "c59")])
    await until(lambda: len(seen[0]) == len(seen[1]) == 60)
    assert seen[0] == seen[1] == [("ADDED", name) for name in names]
    assert seen[2] == [("ADDED", name) for name in names if int(name[1:]) % 3]
    assert chunks[0][-1] is chunks[1][-1]
    assert len(chunks[0]) > 50  # nearly all of them, and the stream tells what its reader was too slow for
    assert 2 in told_by
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not api.cache._watchers


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.001)


async def test_tables_and_metadata(api: Api) -> None:
    version = api.cache.revision
    await api.post(CMS, config_map("a"))
    (event,) = await api.watch(f"{CMS}?watch=true&resourceVersion={version}", 1, accept=TABLE)
    assert event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][0] == "a"
    accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    (event,) = await api.watch(f"{CMS}?watch=true&resourceVersion={version}", 1, accept=accept)
    assert event["object"]["kind"] == "PartialObjectMetadata"
    assert "data" not in event["object"]


async def test_the_future_is_refused(api: Api) -> None:
    from minik8s.store import watch_cache

    api.cache.wait.__func__.__kwdefaults__["limit"] = 0.01
    try:
        answer = await api.get(f"{CMS}?watch=true&resourceVersion=999999")
        assert (answer.code, answer.reason) == (504, "Timeout")
        assert "Too large resource version" in answer.message
    finally:
        api.cache.wait.__func__.__kwdefaults__["limit"] = watch_cache.WAIT
