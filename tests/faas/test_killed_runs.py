"""One run, killed with the whole control plane at every index of its history: it ends as if nothing had been."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from minik8s.faas.chain import definition

# Lives one after the other, each a process of its own that is killed once its first group of events is durable, or
# (every other time, at first) when it is on its way. Forked, so that what takes long is read once.
LIVES = """
import asyncio, json, os, signal, sys
from pathlib import Path
from minik8s.api.kinds.workflow import Workflow
from minik8s.api.kinds.workflowrun import ENDED, WorkflowRun
from minik8s.faas.sqlite_log import SqliteLog
from minik8s.faas.workflow.errors import StateError
from minik8s.testing import cluster

folder, definition, payload = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
write = SqliteLog.write

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def deadly(early):
    def killed(self, entries):
        future = write(self, entries)
        if any(entry.events for entry in entries):
            if early:
                asyncio.get_running_loop().call_soon(die)
            else:
                future.add_done_callback(die)
        return future
    return killed

class Functions:
    async def invoke(self, namespace, name, payload, key):
        with open(folder / "calls", "a") as calls:
            calls.write(f"{name} {key}\\n")
        if name == "broken":
            raise StateError("Now", "as told")
        return payload ** 2

    async def hop(self, namespace, name, payload, key):
        said = await self.invoke(namespace, name, payload, key)
        return ({"a": "b", "b": "c"}.get(name, ""), said)

async def live():
    async with cluster(nodes=0, store="sqlite", data_dir=folder / "data", gpu_jobs=False) as it:
        it.master.workflows.performer.functions = Functions()
        if not (await it.client.list(Workflow, "default")).items:
            await it.client.create(Workflow, {"metadata": {"name": "w"}, "spec": {"definition": definition}}, "default")
        if not (await it.client.list(WorkflowRun, "default")).items:
            body = {"metadata": {"name": "r"}, "spec": {"workflowRef": {"name": "w"}, "input": payload}}
            await it.client.create(WorkflowRun, body, "default")
        done = await it.until(WorkflowRun, lambda run: run.status.phase in ENDED, seconds=60)
        events = await it.master.workflows.runner.history.read(done.metadata.uid)
        told = {"phase": done.status.phase, "output": done.status.output, "events": [event.type for event in events],
                "ids": [event.id for event in events]}
        (folder / "end").write_text(json.dumps(told))

lives = 0
while True:
    lives += 1
    child = os.fork()
    if child == 0:
        if sys.argv[4] == "kill":
            SqliteLog.write = deadly(early=lives % 3 == 0)
        asyncio.run(live())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        break
print(lives)
sys.exit(os.waitstatus_to_exitcode(status))
"""
EACH = {"StartAt": "S", "States": {"S": {"Type": "Task", "Resource": "square", "End": True}}}
DEFINITION: dict[str, Any] = {
    "StartAt": "Squares",
    "States": {
        "Squares": {
            "Type": "Map", "ItemsPath": "$.items", "MaxConcurrency": 1, "ResultPath": "$.squares", "Next": "Try",
            "ItemProcessor": EACH,
        },
        "Try": {
            "Type": "Task", "Resource": "broken", "Next": "Never",
            "Retry": [{"ErrorEquals": ["Now"], "IntervalSeconds": 1, "MaxAttempts": 1, "BackoffRate": 1}],
            "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.why", "Next": "Undo"}],
        },
        "Never": {"Type": "Fail"},
        "Undo": {
            "Type": "Task", "Resource": "square", "InputPath": "$.undo", "ResultPath": "$.undone", "Next": "Pause",
        },
        "Pause": {"Type": "Wait", "Seconds": 1, "End": True},
    },
}  # fmt: skip
GIVEN = {"items": [2, 3], "undo": 4}


CHAIN = definition("a", {"a": ("b", "c"), "b": ("c",), "c": ()})


def live(
    folder: Path, mode: str, definition: Any = DEFINITION, given: Any = GIVEN
) -> tuple[int, dict[str, Any], list[str]]:
    """(lives, how the run ended, calls of functions)."""
    folder.mkdir()
    command = [sys.executable, "-c", LIVES, str(folder), json.dumps(definition), json.dumps(given), mode]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    lives = int(done.stdout.splitlines()[-1])
    return lives, json.loads((folder / "end").read_text()), (folder / "calls").read_text().splitlines()


def test_killed_at_every_index_a_run_ends_the_same(tmp_path: Path) -> None:
    once, whole, calls = live(tmp_path / "whole", "let")
    assert (once, whole["phase"], len(calls)) == (1, "Succeeded", 5)
    assert (whole["output"]["squares"], whole["output"]["undone"]) == ([4, 9], 16)
    lives, end, again = live(tmp_path / "killed", "kill")
    assert lives > 8  # one for each group of events that became durable, and the last; more where one was lost
    assert end == whole  # each completed state once, in the same order, under the same numbers
    assert set(calls) != set(again)  # of another run, with keys of its own
    assert len(set(again)) == 5  # however often a call was made, its key was the same


def test_killed_at_every_hop_a_chain_of_invokes_ends_the_same(tmp_path: Path) -> None:
    _, whole, calls = live(tmp_path / "whole", "let", CHAIN, 2)
    assert (whole["phase"], whole["output"], len(calls)) == ("Succeeded", 256, 3)
    lives, end, again = live(tmp_path / "killed", "kill", CHAIN, 2)
    assert lives > 4  # one for the beginning, one for each hop, and the last
    assert end == whole
    assert len(set(again)) == 3
    assert [name[0] for name in again] == sorted(name[0] for name in again)  # none again once the next was called
