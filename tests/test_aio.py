"""Tasks have owners: faults come out, nothing is left behind, delays grow as they say."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from minik8s.aio import Stopped, background, backoff, periodic, supervise, wait_any
from minik8s.clock import ManualClock, parse_time, rfc3339, rfc3339_micro


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_an_eternal_activity_that_returns_is_a_fault_with_a_name() -> None:
    async def brief() -> None:
        return

    with pytest.raises(ExceptionGroup) as told:
        await supervise([("clock", for_ever()), ("bell", brief())])
    assert told.group_contains(Stopped, match="bell has ended by itself")


async def test_the_fault_of_one_ends_the_others() -> None:
    ended = asyncio.Event()

    async def other() -> None:
        try:
            await for_ever()
        finally:
            ended.set()

    async def bad() -> None:
        await asyncio.sleep(0)
        raise ValueError("bad")

    with pytest.raises(ExceptionGroup) as told:
        await supervise([("other", other()), ("bad", bad())])
    assert told.group_contains(ValueError, match="bad")
    assert ended.is_set()


async def test_background_lives_as_long_as_the_body() -> None:
    before = asyncio.all_tasks()
    async with background(for_ever(), for_ever()):
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks() - before) == 2
    assert asyncio.all_tasks() == before


async def test_a_fault_in_the_background_cancels_the_body() -> None:
    async def bad() -> None:
        raise ValueError("bad")

    with pytest.raises(ExceptionGroup) as told:
        async with background(bad()):
            await for_ever()
    assert told.group_contains(ValueError)


@pytest.mark.looptime
async def test_periodic_work_keeps_its_interval() -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def act() -> None:
        times.append(loop.time())
        await asyncio.sleep(1)

    async with background(periodic(10, act)):
        await asyncio.sleep(60)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) >= 5
    assert all(11 <= gap <= 12 for gap in gaps)


def test_delays_double_up_to_the_last_and_differ() -> None:
    delays = list(itertools.islice(backoff(1, 8), 40))
    for number, delay in enumerate(delays):
        step = min(2.0**number, 8)
        assert step / 2 <= delay <= step
    assert len(set(delays)) > 20


@pytest.mark.looptime
async def test_waiting_for_the_first_of_several() -> None:
    loop, first, second = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    before = asyncio.all_tasks()
    await wait_any(first, second, timeout=3)
    assert loop.time() == pytest.approx(3)
    loop.call_later(2, second.set)
    await wait_any(first, second)
    assert loop.time() == pytest.approx(5)
    assert asyncio.all_tasks() == before


def test_times() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert rfc3339_micro(1.5) == "1970-01-01T00:00:01.500000Z"
    assert parse_time("") == 0
    assert parse_time("1970-01-01T01:00:00.25+01:00") == 0.25
    assert parse_time(rfc3339(1_700_000_000)) == 1_700_000_000
    with pytest.raises(ValueError):
        parse_time("soon")
    clock = ManualClock(5)
    clock.advance(2.5)
    assert clock() == 7.5
