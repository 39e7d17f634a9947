"""The laws of the queue: one look per key at a time, many events one look, none lost, delays and back-off in time."""

from __future__ import annotations

import asyncio
from collections import Counter

import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s.client.workqueue import BASE_DELAY, MAX_DELAY, WorkQueue

KEYS = st.sampled_from("abc")
STEPS = st.one_of(
    st.tuples(st.just("add"), KEYS),
    st.tuples(st.just("later"), KEYS, st.integers(0, 3)),
    st.tuples(st.just("fail"), KEYS),
    st.tuples(st.just("work"), st.integers(0, 3)),  # a worker that needs so long
    st.tuples(st.just("quit"), st.none()),  # a worker that is cut while it waits
    st.tuples(st.just("pass"), st.integers(0, 4)),
)


@given(steps=st.lists(STEPS, max_size=30))
@settings(max_examples=60, deadline=None)
def test_no_key_is_worked_on_twice_at_once_and_none_is_lost(steps: list[tuple]) -> None:
    """Every key that was asked for is looked at after it was last asked for, whatever comes between."""
    loop = looptime.new_event_loop(start=0)
    loop.run_until_complete(_play(steps))
    loop.close()


async def _play(steps: list[tuple]) -> None:
    queue, working, asked, looked = WorkQueue(), set[str](), dict[str, float](), dict[str, float]()
    loop, workers, clock = asyncio.get_running_loop(), [], iter(range(10**6))

    async def work(seconds: float) -> None:
        while True:
            key = await queue.get()
            assert key not in working
            working.add(key)
            looked[key] = next(clock)
            await asyncio.sleep(seconds)
            working.discard(key)
            queue.done(key)

    for kind, *args in steps:
        match kind:
            case "add":
                asked[args[0]] = next(clock)
                queue.add(args[0])
            case "later":
                asked[args[0]] = next(clock)
                queue.add_after(args[0], args[1])
            case "fail":
                asked[args[0]] = next(clock)
                queue.add_rate_limited(args[0])
            case "work":
                workers.append(loop.create_task(work(args[0])))
            case "quit":
                waiter = loop.create_task(queue.get())
                await asyncio.sleep(0)
                if waiter.done():
                    queue.add(waiter.result())
                    queue.done(waiter.result())
                waiter.cancel()
                if not waiter.done():
                    await asyncio.wait([waiter])
                if not waiter.cancelled():
                    queue.add(waiter.result())
                    queue.done(waiter.result())
            case "pass":
                await asyncio.sleep(args[0])
    workers.append(loop.create_task(work(1)))
    await asyncio.sleep(300)
    assert queue.idle
    assert len(queue) == 0
    assert {key: looked.get(key, -1) > since for key, since in asked.items()} == dict.fromkeys(asked, True)
    for worker in workers:
        worker.cancel()
    for result in await asyncio.gather(*workers, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError), result


async def test_many_events_are_one_look() -> None:
    queue = WorkQueue()
    for _ in range(5):
        queue.add("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0, "it is being worked on"
    assert not queue.idle
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.idle


async def test_first_come_first_served() -> None:
    queue = WorkQueue()
    for key in "cab":
        queue.add(key)
    assert [await queue.get() for _ in range(3)] == ["c", "a", "b"]


async def test_a_waiter_that_is_cut_when_woken_wakes_the_next() -> None:
    queue = WorkQueue()
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 1) == "a"


@pytest.mark.looptime
async def test_delays() -> None:
    queue, loop = WorkQueue(), asyncio.get_running_loop()
    queue.add_after("a", 10)
    queue.add_after("a", 3)
    queue.add_after("a", 7)
    queue.add_after("b", 5)
    queue.add_after("now", 0)
    times = {await queue.get(): loop.time() for _ in range(3)}
    assert times == {"now": pytest.approx(0), "a": pytest.approx(3), "b": pytest.approx(5)}
    for key in times:
        queue.done(key)
    await asyncio.sleep(20)
    assert queue.idle, "only the earliest of several delays counts"


@pytest.mark.looptime
async def test_back_off_doubles_and_is_forgotten() -> None:
    queue = WorkQueue()
    delays = [queue.add_rate_limited("a") for _ in range(40)]
    for number, delay in enumerate(delays):
        step = min(BASE_DELAY * 2**number, MAX_DELAY)
        assert 0.75 * step <= delay <= step
    assert queue.failures("a") == 40
    queue.forget("a")
    assert queue.failures("a") == 0
    assert queue.add_rate_limited("a") <= BASE_DELAY
    assert await queue.get() == "a"


async def test_many_workers_share_many_keys() -> None:
    queue, done, over = WorkQueue(), Counter[str](), asyncio.Event()

    async def work() -> None:
        while True:
            key = await queue.get()
            await asyncio.sleep(0)
            done[key] += 1
            queue.done(key)
            if len(done) == 200:
                over.set()

    workers = [asyncio.create_task(work()) for _ in range(8)]
    for number in range(200):
        queue.add(str(number))
    async with asyncio.timeout(5):
        await over.wait()
    for worker in workers:
        worker.cancel()
    assert max(done.values()) == 1
