"""The dispatcher on both queues: at least once, in bounds, again with back-off, to an end that is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from minik8s.aio import background
from minik8s.clock import ManualClock
from minik8s.faas.queue.dispatcher import TELLING, Dispatcher, Terms
from minik8s.faas.queue.outcome import TOO_OLD, Answer, Destination, Policy
from minik8s.faas.queue.queue import DEAD, QUEUED, SUCCEEDED, Call, CallQueue, MemoryQueue, Record
from minik8s.faas.queue.sqlite_queue import SqliteQueue

GOOD = Answer(200, "", "application/json", b'{"x": 1}')
RAISED = Answer(500, "FunctionError", "application/json", b'{"error": "ValueError", "message": "no", "traceback": "T"}')
NOT_READY = Answer(503, "Unavailable", cause="nothing is ready")


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CallQueue]:
    if request.param == "memory":
        yield MemoryQueue()
        return
    async with SqliteQueue(tmp_path / "q.db") as made:
        yield made


class World:
    """Functions as Python ones from a call to an answer, a clock that is turned, and what happened."""

    def __init__(self, queue: CallQueue, clock: ManualClock | None = None) -> None:
        self.queue = queue
        self.clock = clock or ManualClock(1000.0)
        self.made: list[Call] = []
        self.answers: list[Answer] = []
        self.answer: Callable[[Call], Awaitable[Answer]] | None = None
        self.functions = {"ns/f": Terms()}
        self.texts: list[str] = []
        self.dispatcher = Dispatcher(queue, self.functions.get, self.make, clock=self.clock, chance=lambda: 1.0)
        self.dispatcher.given_up = lambda function, text: self.texts.append(text)

    async def make(self, call: Call) -> Answer:
        self.made.append(call)
        if self.answer is not None:
            return await self.answer(call)
        return self.answers.pop(0) if self.answers else GOOD

    async def put(self, id: str = "a", **more: Any) -> str:
        return await self.dispatcher.put(Call(id, more.pop("function", "ns/f"), self.clock(), **more))

    async def until(self, test: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not test():
                await asyncio.sleep(0)

    async def state(self, id: str, phase: str, attempts: int = 0) -> Record:
        """A call once it stands so."""
        async with asyncio.timeout(20):
            while True:
                record = await self.queue.find("ns/f", id) or await self.queue.find("ns/g", id)
                if record is not None and record.phase == phase and record.attempts >= attempts:
                    return record
                await asyncio.sleep(0)

    def is_idle(self) -> bool:
        lines = self.dispatcher._lines.values()
        return all(not line.under_way and (line.due is None or line.due > self.clock()) for line in lines)

    def turn(self, seconds: float) -> None:
        """Later."""
        self.clock.advance(seconds)
        self.dispatcher._wake.set()


@asynccontextmanager
async def running(queue: CallQueue, clock: ManualClock | None = None) -> AsyncIterator[World]:
    world = World(queue, clock)
    async with background(world.dispatcher.run()):
        yield world


async def test_a_call_is_made_and_its_result_kept(queue: CallQueue) -> None:
    async with running(queue) as it:
        assert await it.put(body=b"in", path="/p", headers={"x": "y"}) == "a"
        record = await it.state("a", SUCCEEDED)
        assert (it.made[0].body, it.made[0].path, it.made[0].headers) == (b"in", "/p", {"x": "y"})
        assert record.result is not None
        assert (record.result.code, record.result.body, record.attempts) == (200, b'{"x": 1}', 1)
        await it.until(lambda: it.dispatcher.waiting("ns/f") == 0)


async def test_failures_are_tried_again_ever_later_until_it_is_enough(queue: CallQueue) -> None:
    async with running(queue) as it:
        it.answers = [RAISED, Answer(502, "WorkerLost"), RAISED]
        await it.put(body=b"in")
        first = await it.state("a", QUEUED, 1)
        assert first.due == 1001.0
        it.turn(0.9)
        await asyncio.sleep(0.01)
        assert len(it.made) == 1
        it.turn(0.1)
        second = await it.state("a", QUEUED, 2)
        assert second.due == 1003.0
        it.turn(2.0)
        dead = await it.state("a", DEAD)
        assert (len(it.made), dead.attempts, dead.call.body) == (3, 3, b"in")
        assert dead.result is not None
        assert (dead.result.error, dead.result.cause) == ("ValueError", "no")
        await it.until(lambda: it.texts)
        assert it.texts == ["call a was given up after 3 attempts: ValueError: no"]
        assert await it.dispatcher.redrive("ns/f", ["a"]) == 1
        assert (await it.state("a", SUCCEEDED)).attempts == 1


@pytest.mark.parametrize(("answer", "phase"), [(Answer(400), DEAD), (Answer(404), DEAD), (Answer(429), QUEUED),
                                               (Answer(302), SUCCEEDED), (Answer(504, "Timeout"), QUEUED)])  # fmt: skip
async def test_what_would_be_the_same_again_is_not_tried_again(answer: Answer, phase: str) -> None:
    async with running(MemoryQueue()) as it:
        it.answers = [answer]
        await it.put()
        await it.state("a", phase, 1)


async def test_where_nothing_can_be_run_one_call_tries_for_all(queue: CallQueue) -> None:
    async with running(queue) as it:
        ready = False

        async def answer(call: Call) -> Answer:
            return GOOD if ready else NOT_READY

        it.answer = answer
        for number in range(50):
            await it.put(f"{number}")
        await it.until(lambda: it.made)
        for _ in range(20):
            it.turn(31.0)
            await asyncio.sleep(0.01)
        assert len(it.made) < 50
        assert it.dispatcher.waiting("ns/f") == 50
        ready = True
        it.dispatcher.nudge("ns/f")  # no waiting for the end of the pause
        for number in range(50):
            record = await it.state(f"{number}", SUCCEEDED)
            assert record.attempts == 1  # being refused was none


async def test_too_old_is_given_up_without_being_made(queue: CallQueue) -> None:
    async with running(queue) as it:
        it.functions["ns/f"] = Terms(Policy(age=100.0))
        it.answers = [NOT_READY, NOT_READY]
        await it.put()
        await it.until(lambda: it.made)
        it.turn(101.0)
        dead = await it.state("a", DEAD)
        assert dead.result is not None
        assert (dead.result.error, dead.attempts, len(it.made)) == (TOO_OLD, 0, 1)


async def test_so_many_at_once_and_no_more(queue: CallQueue) -> None:
    async with running(queue) as it:
        it.functions |= {"ns/f": Terms(at_once=3), "ns/g": Terms(at_once=2)}
        go, now = asyncio.Semaphore(0), {"ns/f": 0, "ns/g": 0}
        most = dict(now)

        async def answer(call: Call) -> Answer:
            now[call.function] += 1
            most[call.function] = max(most[call.function], now[call.function])
            await go.acquire()
            now[call.function] -= 1
            return GOOD

        it.answer = answer
        for number in range(20):
            await it.put(f"f{number}")
            await it.put(f"g{number}", function="ns/g")
        await it.until(lambda: now == {"ns/f": 3, "ns/g": 2})
        assert it.queue.is_taken("f0")
        for _ in range(40):
            go.release()
        for number in range(20):
            await it.state(f"f{number}", SUCCEEDED)
            await it.state(f"g{number}", SUCCEEDED)
        assert most == {"ns/f": 3, "ns/g": 2}
        assert len(it.made) == 40


async def test_large_payloads_are_not_all_taken_at_once(queue: CallQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minik8s.faas.queue.dispatcher.TOTAL_BYTES", 320)
    async with running(queue) as it:
        it.functions["ns/f"] = Terms(at_once=100)
        go = asyncio.Event()

        async def answer(call: Call) -> Answer:
            await go.wait()
            return GOOD

        it.answer = answer
        for number in range(50):
            await it.put(f"{number}", body=b"x" * 10)
        await it.until(lambda: len(it.made) == 32)
        await asyncio.sleep(0.02)
        assert len(it.made) == 32
        go.set()
        await it.until(lambda: len(it.made) == 50)


async def test_ends_are_told_to_destinations_and_to_who_asked(queue: CallQueue) -> None:
    async with running(queue) as it:
        it.functions |= {
            "ns/f": Terms(Policy(1), 1, Destination("ns/g"), Destination(url="http://alarm")), "ns/g": Terms(),
        }  # fmt: skip
        it.answers = [GOOD, GOOD, GOOD, RAISED, GOOD]
        await it.put("a", body=b'{"n": 1}', callback="http://back", headers={"traceparent": "00-1"})
        await it.until(lambda: len(it.made) == 3)
        told = {call.target or call.function: call for call in it.made[1:]}
        assert json.loads(told["ns/g"].body) == {
            "version": "1.0", "timestamp": "1970-01-01T00:16:40.000Z",
            "requestContext": {"requestId": "a", "function": "ns/f", "condition": "Success",
                               "approximateInvokeCount": 1},
            "requestPayload": {"n": 1}, "responseContext": {"statusCode": 200}, "responsePayload": {"x": 1},
        }  # fmt: skip
        back = told["http://back"]
        assert (back.body, back.headers["minik8s-call"], back.headers["minik8s-status"]) == (b'{"x": 1}', "a", "200")
        assert back.headers["traceparent"] == told["ns/g"].headers["traceparent"] == "00-1"
        await it.put("b")
        await it.until(lambda: len(it.made) == 5)
        alarm = json.loads(it.made[-1].body)
        assert it.made[-1].target == "http://alarm"
        assert alarm["requestContext"]["condition"] == "RetriesExhausted"
        assert alarm["responsePayload"] == {"error": "ValueError", "message": "no", "traceback": "T"}
        await it.until(lambda: not it.queue.waiting())


async def test_a_url_that_does_not_answer_is_tried_again_and_holds_up_nobody(queue: CallQueue) -> None:
    async with running(queue) as it:

        async def answer(call: Call) -> Answer:
            return Answer(0, cause="refused") if call.target else GOOD

        it.answer = answer
        for number in range(TELLING * 3):
            await it.put(f"{number}", callback="http://back")
        for number in range(TELLING * 3):
            await it.state(f"{number}", SUCCEEDED)
        for attempt in range(1, 7):
            told = TELLING * 3 * (1 + attempt)
            await it.until(lambda told=told: len(it.made) == told and it.is_idle())
            it.turn(40.0)
        assert not it.queue.waiting()
        letters = await it.queue.dead("ns/f")
        assert len(letters) == TELLING * 3
        assert letters[0].call.target == "http://back"
        assert letters[0].attempts == 6
        assert "to http://back was given up" in it.texts[0]


async def test_destinations_in_a_circle_come_to_an_end(queue: CallQueue) -> None:
    async with running(queue) as it:
        it.functions |= {"ns/f": Terms(on_success=Destination("ns/g")), "ns/g": Terms(on_success=Destination("ns/f"))}
        await it.put()
        await it.until(lambda: it.made and not it.queue.waiting())
        assert len(it.made) == 17


async def test_a_destination_that_is_not_there_is_told(queue: CallQueue) -> None:
    async with running(queue) as it:
        it.functions["ns/f"] = Terms(on_success=Destination("ns/never"))
        await it.put()
        await it.state("a", SUCCEEDED)
        assert it.texts == ["the destination ns/never of call a does not exist"]
        assert await it.queue.functions() == ["ns/f"]


async def test_calls_of_a_function_that_is_not_known_yet_wait_for_it(queue: CallQueue) -> None:
    async with running(queue) as it:
        await it.put("a", function="ns/g")
        await asyncio.sleep(0.02)
        it.functions["ns/g"] = Terms()
        it.dispatcher.nudge("ns/g")
        await it.state("a", SUCCEEDED)


async def test_what_was_under_way_is_made_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "q.db", ManualClock(1000.0)
    async with SqliteQueue(path) as queue, running(queue, clock) as it:
        never = asyncio.Event()

        async def answer(call: Call) -> Answer:
            await never.wait()
            return GOOD

        it.answer = answer
        for number in range(30):
            await it.put(f"{number}", key=f"k{number}")
        await it.until(lambda: len(it.made) == 10)
    async with SqliteQueue(path) as queue, running(queue, clock) as it:
        assert await it.put("again", key="k3") == "3"
        for number in range(30):
            await it.state(f"{number}", SUCCEEDED)
        assert len(it.made) == 30
