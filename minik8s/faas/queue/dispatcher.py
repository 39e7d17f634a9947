"""The dispatcher makes the calls that are due: so many of a function at once, again where they fail, to their end.

A line is what waits behind one another: the calls of a function, or what is told of their ends. A line whose calls
cannot be run at all (nothing is ready, or too much is going on) pauses as a whole, and is then tried by one call, so
that ten thousand waiting calls cost no more than one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from minik8s.aio import wait_any
from minik8s.clock import Clock, system_clock
from minik8s.faas.queue.outcome import TOLD, Answer, Destination, Policy, followers, outcome, pause, too_old
from minik8s.faas.queue.queue import DEAD, SUCCEEDED, Call, CallQueue, Ended, Record, new_id
from minik8s.log import get_logger
from minik8s.metrics import Counter

TOTAL, TOTAL_BYTES = 512, 32 * 2**20  # calls under way at once, and their payloads
TELLING = 8  # requests at once to the URLs that one function's calls tell of their ends
LONGEST_SLEEP = 60.0  # seconds: somebody may set the clock
TRIM = 60.0  # seconds between two looks at what is kept too long
OUTCOMES = {(False, SUCCEEDED): "succeeded", (False, DEAD): "dead_letter",
            (True, SUCCEEDED): "told", (True, DEAD): "not_told"}  # fmt: skip
CALLS = Counter("faas_asynchronous_calls_total", "Asynchronous calls that have ended, and URLs that were told of it.",
                ("namespace", "function", "outcome"))  # fmt: skip
log = get_logger("calls")


class Terms(NamedTuple):
    """What a function says of its asynchronous calls; `at_once` of them may be under way."""

    policy: Policy = Policy()
    at_once: int = 10
    on_success: Destination | None = None
    on_failure: Destination | None = None


class Make(Protocol):
    """Makes a call, of a function or to a URL, and returns what came of it. Never raises but for cancellation."""

    def __call__(self, call: Call) -> Awaitable[Answer]: ...


class _Line:
    def __init__(self) -> None:
        self.due: float | None = 0.0
        self.under_way: set[str] = set()
        self.refusals = 0
        self.paused = 0.0  # until then


class Dispatcher:
    """`terms(function)` is None for a function that does not exist. `given_up(function, text)` tells people.

    `put` is for all who have calls to be made later. `run()` is eternal.
    """

    def __init__(
        self,
        queue: CallQueue,
        terms: Callable[[str], Terms | None],
        make: Make,
        *,
        clock: Clock = system_clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.queue = queue
        self.clock = clock
        self.given_up: Callable[[str, str], None] = lambda function, text: None
        self._terms = terms
        self._make = make
        self._chance = chance
        self._lines: dict[str, _Line] = {line: _Line() for line in queue.waiting()}
        self._sizes: dict[str, int] = {}  # of the payloads of calls that are under way
        self._wake = asyncio.Event()

    async def put(self, call: Call) -> str:
        """The id of a call that will be made: durable. Raises StoreError."""
        (id,) = await self.queue.put([call])
        self._look(call.line, call.accepted)
        return id

    async def redrive(self, function: str, ids: Sequence[str] | None) -> int:
        now = self.clock()
        lines = await self.queue.redrive(function, ids, now)
        for line in lines:
            self._look(line, now)
        return len(lines)

    def nudge(self, function: str) -> None:
        """A function has changed: what could not be run may be run now."""
        line = self._lines.get(function)
        if line is not None:
            line.paused = 0.0
            self._wake.set()

    def waiting(self, function: str) -> int:
        """Calls of a function that have not ended."""
        found = self.queue.waiting().get(function)
        return found.calls if found is not None else 0

    def _look(self, name: str, at: float) -> None:
        line = self._lines.setdefault(name, _Line())
        line.due = at if line.due is None else min(line.due, at)
        self._wake.set()

    # -- the loop

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._trim_for_ever())
            while True:
                self._wake.clear()
                for name, line in list(self._lines.items()):
                    await self._fill(name, line, tasks)
                await self._sleep()

    async def _fill(self, name: str, line: _Line, tasks: asyncio.TaskGroup) -> None:
        """Begin what is due, as far as there is room."""
        now = self.clock()
        room, most = min(self._room(name, line), TOTAL - len(self._sizes)), TOTAL_BYTES - sum(self._sizes.values())
        if line.due is None or line.due > now or line.paused > now or room <= 0 or most <= 0:
            if line.due is None and not line.under_way and name not in self.queue.waiting():
                del self._lines[name]
            return
        line.due = None
        records, next_due = await self.queue.take(name, now, room, most)
        if next_due is not None:
            self._later(line, next_due)
        for record in records:
            line.under_way.add(record.call.id)
            self._sizes[record.call.id] = len(record.call.body)
            tasks.create_task(self._see_through(line, record), name=f"call {record.call.id}")

    def _room(self, name: str, line: _Line) -> int:
        terms = self._terms(name.removesuffix(">"))
        limit = TELLING if name.endswith(">") else terms.at_once if terms is not None else TELLING
        return (1 if line.refusals else limit) - len(line.under_way)

    @staticmethod
    def _later(line: _Line, due: float) -> None:
        line.due = due if line.due is None else min(line.due, due)

    async def _sleep(self) -> None:
        now = self.clock()
        times = [max(line.due, line.paused) for name, line in self._lines.items()
                 if line.due is not None and self._room(name, line) > 0]  # fmt: skip
        wait = min([LONGEST_SLEEP, *(max(time - now, 0.0) for time in times)]) if times else None
        if wait == 0.0 and (len(self._sizes) >= TOTAL or sum(self._sizes.values()) >= TOTAL_BYTES):
            wait = None  # whatever ends first wakes us
        await wait_any(self._wake, timeout=wait)

    async def _trim_for_ever(self) -> None:
        while True:
            if dropped := await self.queue.trim(self.clock()):
                remedy = "look at them sooner: 'minik8s func dlq list'"
                log.warning("dead letters were dropped: too many, or too old", number=dropped, remedy=remedy)
            await asyncio.sleep(TRIM)

    # -- one call

    async def _see_through(self, line: _Line, record: Record) -> None:
        call = record.call
        try:
            await self._attempt(line, record)
        finally:
            self.queue.give_back(call.id)  # of no effect when it has been settled
            line.under_way.discard(call.id)
            del self._sizes[call.id]
            self._wake.set()

    async def _attempt(self, line: _Line, record: Record) -> None:
        call = record.call
        terms = self._terms(call.function)
        if terms is None:  # it is not known yet, or will be forgotten together with its calls
            self._pause(line, record)
            return
        policy = TOLD if call.target else terms.policy
        if (end := too_old(record, policy, self.clock())) is not None:
            await self._end(record, end, terms)
            return
        answer = await self._make(call)
        if answer.not_run and not call.target:
            self._pause(line, record)
            log.debug("call cannot be made now", function=call.function, reason=answer.reason, cause=answer.cause)
            return
        line.refusals, line.paused = 0, 0.0
        then = outcome(record, answer, policy, self.clock(), self._chance())
        if isinstance(then, Ended):
            await self._end(record, then, terms)
        else:
            await self.queue.settle(call.id, then)
            self._later(line, then.due)

    def _pause(self, line: _Line, record: Record) -> None:
        now = self.clock()
        if line.paused <= now:  # else several at once were refused
            line.refusals += 1
            line.paused = now + pause(line.refusals, self._chance())
        self._later(line, record.due)

    async def _end(self, record: Record, end: Ended, terms: Terms) -> None:
        call = record.call
        destination = terms.on_success if end.phase == SUCCEEDED else terms.on_failure
        if destination is not None and destination.function and self._terms(destination.function) is None:
            self.given_up(call.function, f"the destination {destination.function} of call {call.id} does not exist")
            destination = None
        then = followers(record, end, destination, (new_id(), new_id()))
        await self.queue.settle(call.id, end._replace(then=then))
        for follower in then:
            self._look(follower.line, follower.accepted)
        CALLS.labels(*call.function.split("/", 1), OUTCOMES[bool(call.target), end.phase]).inc()
        if end.phase == DEAD:
            said = ": ".join(filter(None, (end.result.error, end.result.cause)))
            to = f" to {call.target}" if call.target else ""
            text = f"call {call.id}{to} was given up after {end.attempts} attempts: {said}"
            self.given_up(call.function, text[:1000])
