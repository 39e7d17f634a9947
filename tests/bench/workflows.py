"""What workflows cost: transitions of states through the durable log, runs that wait, and taking runs up again."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from minik8s.aio import background
from minik8s.faas.run_log import Header
from minik8s.faas.runner import Runner, digest
from minik8s.faas.sqlite_log import SqliteLog
from minik8s.faas.workflow.execution import Task
from tests.bench.report import Result, number

NAMES = ("workflow-transitions", "workflow-waiting")
LOOP = {
    "StartAt": "Add",
    "States": {
        "Add": {"Type": "Pass", "Parameters": {"n.$": "States.MathAdd($.n, 1)", "of.$": "$.of"}, "Next": "Enough"},
        "Enough": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.n", "NumericLessThanPath": "$.of", "Next": "Add"}],
            "Default": "Done",
        },
        "Done": {"Type": "Succeed"},
    },
}
WAIT = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 10_000_000, "End": True}}}


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    with tempfile.TemporaryDirectory(prefix="minik8s-bench-") as folder:
        if "workflow-transitions" in names:
            yield await transitions(Path(folder) / "moving.db", runs=5 if quick else 20, rounds=1000)
        if "workflow-waiting" in names:
            async for result in waiting(Path(folder) / "waiting.db", runs=1000, seconds=1.0 if quick else 5.0):
                yield result


async def _nobody(run: Header, task: Task) -> Any:
    raise AssertionError("there are no tasks")


def header(number: int, definition: Any, input: Any = None) -> Header:
    return Header(f"u{number}", "default", f"r{number}", "w", 1, digest(definition), "default", b"secret", input)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


async def transitions(path: Path, *, runs: int, rounds: int) -> Result:
    """Pass and Choice by turns, in several runs at once; counted when their ends are durable."""
    async with SqliteLog(path) as log:
        runner, done, left = Runner(log, _nobody), asyncio.Event(), runs

        def changed(key: str) -> None:
            if not runner.running():
                done.set()

        runner.changed = changed
        async with background(runner.run()):
            await runner.ready.wait()
            began, used = time.perf_counter(), time.process_time()
            for each in range(left):
                runner.begin(header(each, LOOP, {"n": 0, "of": rounds}), LOOP)
            await done.wait()
            took, used = time.perf_counter() - began, time.process_time() - used
    moved = runs * (2 * rounds + 1)
    beside = f"{number(moved / used)}/s of CPU; {_size(path) / moved:.0f} bytes each"
    return Result("workflow-transitions", moved / took, "/s", 10_000, more=True, beside=beside)


async def waiting(path: Path, *, runs: int, seconds: float) -> AsyncIterator[Result]:
    async with SqliteLog(path) as log:
        runner = Runner(log, _nobody)
        async with background(runner.run()):
            await runner.ready.wait()
            for each in range(runs):
                runner.begin(header(each, WAIT), WAIT)
            while len(await log.all()) < runs:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.1)
            used = time.process_time()
            await asyncio.sleep(seconds)
            used = time.process_time() - used
            yield Result("workflow-waiting", 1000 * used / seconds, "ms CPU/s", 1, beside=f"{runs} runs that wait")
    async with SqliteLog(path) as log:
        runner = Runner(log, _nobody)
        began = time.process_time()
        async with background(runner.run()):
            await runner.ready.wait()
            took = time.process_time() - began
            yield Result("workflow-resuming", 1000 * took, "ms CPU", beside=f"{runs} runs taken up at the start")
