"""The runner on the real log: cut behind any event a run ends the same; nothing is begun that is not durable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from minik8s.aio import background, wait_any
from minik8s.faas.run_log import Entry, Header, MemoryLog, RunLog
from minik8s.faas.runner import Runner, digest
from minik8s.faas.sqlite_log import SqliteLog
from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.execution import Task

Json = dict[str, Any]
EACH = {"StartAt": "S", "States": {"S": {"Type": "Task", "Resource": "square", "End": True}}}
SAGA: Json = {
    "StartAt": "Squares",
    "States": {
        "Squares": {
            "Type": "Map", "ItemsPath": "$.items", "MaxConcurrency": 2, "ResultPath": "$.squares", "Next": "Try",
            "ItemProcessor": EACH,
        },
        "Try": {
            "Type": "Task", "Resource": "broken", "Next": "Never",
            "Retry": [{"ErrorEquals": ["Now"], "IntervalSeconds": 1, "MaxAttempts": 1, "BackoffRate": 1}],
            "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.why", "Next": "Undo"}],
        },
        "Never": {"Type": "Fail"},
        "Undo": {"Type": "Task", "Resource": "undo", "ResultPath": "$.undone", "Next": "Pause"},
        "Pause": {"Type": "Wait", "Seconds": 1, "End": True},
    },
}  # fmt: skip


class Perform:
    """Tasks by name; keeps what was begun, and with which keys."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.check: Callable[[Task], None] = lambda task: None

    async def __call__(self, run: Header, task: Task) -> Any:
        self.check(task)
        self.begun.append((task.resource, task.id))
        if task.resource == "broken":
            raise StateError("Now", "as told")
        return task.parameters**2 if task.resource == "square" else "undone"


def header(uid: str = "u", input: Any = None, definition: Json = SAGA) -> Header:
    return Header(uid, "ns", f"run-{uid}", "w", 1, digest(definition), "default", b"secret", input)


class Fast:
    """A clock that goes a hundred times as fast."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self) -> float:
        return 1_700_000_000.0 + (time.monotonic() - self._begun) * 100


@asynccontextmanager
async def running(log: RunLog, perform: Any = None) -> AsyncIterator[tuple[Runner, asyncio.Event]]:
    """A runner, and what is set at each change."""
    runner, moved = Runner(log, perform or Perform(), clock=Fast()), asyncio.Event()
    runner.changed = lambda key: moved.set()
    async with background(runner.run()):
        await runner.ready.wait()
        yield runner, moved


async def ended(log: RunLog, runner: Runner, moved: asyncio.Event, uid: str = "u") -> Any:
    async with asyncio.timeout(20):
        while runner.get(uid) is not None:
            moved.clear()
            await wait_any(moved, timeout=0.02)
            runner._wake.set()  # the fast clock has gone on
    found = await log.find(uid)
    assert found is not None
    return found.end


async def test_cut_behind_any_event_a_run_ends_the_same(tmp_path: Path) -> None:
    whole = MemoryLog()
    async with running(whole) as (runner, moved):
        runner.begin(header(input={"items": [1, 2, 3]}), SAGA)
        end = await ended(whole, runner, moved)
    assert end.output["squares"] == [1, 4, 9]
    assert end.output["undone"] == "undone"
    events = await whole.read("u")
    found = await whole.find("u")
    assert found is not None
    for cut in range(1, len(events)):
        async with SqliteLog(tmp_path / f"{cut}.db") as log:
            await log.write([Entry("u", events[:cut], found.header, found.definition)])
            async with running(log) as (runner, moved):
                again = await ended(log, runner, moved)
            assert (again.status, again.output) == ("SUCCEEDED", end.output), cut
            kinds = [event.type for event in await log.read("u")]
            assert kinds.count("MapIterationSucceeded") == 3, cut
            assert kinds.count("ExecutionSucceeded") == 1, cut
            assert [event.id for event in await log.read("u")] == list(range(1, len(kinds) + 1)), cut


async def test_no_task_begins_before_its_event_is_durable() -> None:
    class Slow(MemoryLog):
        durable = 0

        async def write(self, entries: Sequence[Entry]) -> None:
            await asyncio.sleep(0.005)
            await super().write(entries)
            self.durable = max([self.durable, *(event.id for entry in entries for event in entry.events)])

    log, perform, early = Slow(), Perform(), []
    perform.check = lambda task: early.append(task.id) if task.id > log.durable else None
    async with running(log, perform) as (runner, moved):
        runner.begin(header(input={"items": [1, 2, 3]}), SAGA)
        await ended(log, runner, moved)
    assert perform.begun
    assert early == []


async def test_a_task_that_breaks_in_an_unforeseen_way_harms_only_its_run() -> None:
    async def broken(run: Header, task: Task) -> Any:
        raise ZeroDivisionError

    log = MemoryLog()
    async with running(log, broken) as (runner, moved):
        runner.begin(header(definition=EACH), EACH)
        end = await ended(log, runner, moved)
        assert (end.status, end.error) == ("FAILED", "States.Runtime")
        runner.begin(header("v", definition=EACH), EACH)
        assert (await ended(log, runner, moved, "v")).status == "FAILED"


async def test_a_history_of_another_definition_ends_the_run() -> None:
    log = MemoryLog()
    async with running(log) as (runner, moved):
        runner.begin(header(input={"items": [1]}), SAGA)
        await ended(log, runner, moved)
    events = await log.read("u")
    strange = MemoryLog()
    await strange.write([Entry("u", events[:6], header(), b'{"StartAt":"P","States":{"P":{"Type":"Succeed"}}}')])
    async with running(strange):
        found = await strange.find("u")
    assert found is not None
    assert found.end is not None
    assert (found.end.status, found.end.error) == ("FAILED", "States.Runtime")


@pytest.mark.parametrize("count", [1000])
async def test_runs_that_wait_cost_nothing(count: int) -> None:
    wait: Json = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1e6, "End": True}}}
    log = MemoryLog()
    async with running(log) as (runner, _):
        for number in range(count):
            runner.begin(header(str(number), definition=wait), wait)
        async with asyncio.timeout(20):
            while len(await log.all()) < count:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        began = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - began < 0.02
        assert len(runner.running()) == count
