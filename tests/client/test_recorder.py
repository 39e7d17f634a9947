"""Events are counted instead of repeated, by however many writers, and never in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from minik8s.aio import background
from minik8s.api.errors import ServiceUnavailable
from minik8s.api.kinds.event import Event
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import ObjectMeta
from minik8s.client.informer import Informers
from minik8s.client.recorder import BACKLOG, MESSAGE_LIMIT, Recorder
from minik8s.clock import ManualClock
from tests.client.wire import Wired, wired

POD = Pod(metadata=ObjectMeta(name="web", namespace="default", uid="u-1", resourceVersion="7"))
NODE = Node(metadata=ObjectMeta(name="n1", uid="u-2"))


@asynccontextmanager
async def recording() -> AsyncIterator[tuple[Wired, Recorder, ManualClock]]:
    async with wired() as it:
        clock = ManualClock()
        recorder = Recorder(it.client, "kubelet", host="n1", clock=clock)
        async with background(recorder.run()):
            yield it, recorder, clock


async def until(it: Wired, test: Callable[[list[Event]], object]) -> list[Event]:
    """The events, as soon as they are as the test says."""
    informers = Informers(it.direct)
    events, right = informers.of(Event), asyncio.Event()
    events.on_change(lambda old, new: right.set() if test(events.list()) else None)
    async with background(informers.run()), asyncio.timeout(10):
        await right.wait()
    return events.list()


async def test_an_event_says_who_tells_what_of_whom() -> None:
    async with recording() as (it, recorder, _):
        recorder.event(POD, "Warning", "BackOff", "Back-off restarting", field_path="spec.containers{web}")
        (event,) = await until(it, len)
        involved = event.involvedObject
        assert (involved.kind, involved.apiVersion, involved.name, involved.uid) == ("Pod", "v1", "web", "u-1")
        assert (involved.fieldPath, event.type, event.reason) == ("spec.containers{web}", "Warning", "BackOff")
        assert (event.source.component, event.source.host, event.count) == ("kubelet", "n1", 1)
        assert event.metadata.namespace == "default"


async def test_what_has_no_namespace_is_told_in_default() -> None:
    async with recording() as (it, recorder, _):
        recorder.event(NODE, "Normal", "NodeReady", "Node is ready")
        (event,) = await until(it, len)
        assert (event.metadata.namespace, event.involvedObject.namespace) == ("default", "")


async def test_repetition_is_counted_even_by_several_writers_at_once() -> None:
    async with recording() as (it, recorder, clock):
        twin = Recorder(it.direct, "kubelet", host="n1", clock=clock)
        async with background(twin.run()):
            for number in range(30):
                clock.advance(1)
                (recorder if number % 2 else twin).event(POD, "Normal", "Pulled", "Image is there")
            (event,) = await until(it, lambda events: sum(event.count for event in events) == 30)
        assert event.firstTimestamp <= event.lastTimestamp


async def test_other_words_are_another_event() -> None:
    async with recording() as (it, recorder, _):
        recorder.event(POD, "Normal", "Pulled", "one")
        recorder.event(POD, "Normal", "Pulled", "two")
        assert {event.count for event in await until(it, lambda events: len(events) == 2)} == {1}


async def test_long_names_and_messages_fit() -> None:
    async with recording() as (it, recorder, _):
        recorder.event(Pod(metadata=ObjectMeta(name="x" * 253, namespace="default")), "Normal", "R", "m" * 5000)
        (event,) = await until(it, len)
        assert (len(event.metadata.name), len(event.message)) == (253, MESSAGE_LIMIT)


async def test_a_burst_beyond_the_backlog_is_dropped_and_the_rest_is_told() -> None:
    async with wired() as it:
        recorder = Recorder(it.client, "kubelet")
        for number in range(BACKLOG + 50):
            recorder.event(POD, "Normal", "R", str(number))
            recorder.event(POD, "Normal", "R", "0")
        assert recorder._dropped == 50
        async with background(recorder.run()):
            events = await until(it, lambda events: len(events) == BACKLOG)
        assert next(event.count for event in events if event.message == "0") == 1 + BACKLOG + 50
        recorder.event(POD, "Normal", "R", "again")
        async with background(recorder.run()):
            await until(it, lambda events: len(events) == BACKLOG + 1)
        assert recorder._dropped == 0


async def test_a_server_that_is_away_stops_nothing() -> None:
    async with recording() as (it, recorder, _):
        genuine, failures = it.wire.request, iter(range(1))

        async def request(method: str, path: str, **more: object) -> bytes:
            if next(failures, None) is not None:
                raise ServiceUnavailable("away")
            return await genuine(method, path, **more)

        it.wire.request = request  # type: ignore[method-assign]
        recorder.event(POD, "Normal", "R", "lost")
        recorder.event(NODE, "Normal", "R", "kept")
        (event,) = await until(it, len)
        assert event.message == "kept"
