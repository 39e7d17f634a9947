"""One run of a workflow, without any I/O: what the world reports goes in, events and tasks to be done come out.

What follows from a report is worked out at once, up to the point where the run has to wait: for tasks, for timers, or
for nothing more. A run is therefore repeated exactly from its events: `resume` reports to a new execution what the
events say was reported, in the same order, and compares what follows with what is recorded. Where the record breaks
off (the process was killed between two events) the rest follows anew, and is handed out to be recorded. Chance is
drawn from the run's id and the event's number, so that it falls the same way again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from minik8s.faas.workflow import data, errors
from minik8s.faas.workflow.core import Frame, HistoryMismatch, Identity, Outcome, Task, task_kind
from minik8s.faas.workflow.data import MAX_DATA, Json
from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.history import Event
from minik8s.faas.workflow.states import SAME, Machine

__all__ = ["MAX_DATA", "Execution", "HistoryMismatch", "Identity", "Outcome", "Task"]


class Execution(Machine):
    """One run. After each report, `run` until it says False before the next report."""

    # -- what the world reports

    def start(self, now: float) -> None:
        self._now = self.started_at = now
        self._emit(self._root, "ExecutionStarted", {"input": self._input})
        self._limit_whole()
        self._begin(self._root, self._input)

    def resume(self, events: Iterable[Event]) -> None:
        """Be where a run with these events was. Raises HistoryMismatch."""
        self._recorded.extend(events)
        self.start(self._recorded[0].timestamp)
        self._run_all()
        while self._recorded:
            self._repeat(self._recorded[0])
            self._run_all()
        self._abandoned.clear()
        # Those that follow from the record; new ones, from events that nobody has recorded yet, are among them.
        recorded = self._count - len(self._fresh)
        self._new = [
            frame.task._replace(again=id <= recorded) for id, frame in self._tasks.items() if frame.task is not None
        ]

    def succeed(self, task: int, output: Any, now: float) -> bool:
        """A task has a result. False if nobody waits for it any more, here and below."""
        try:
            data.bounded(output, "the result")
        except StateError as error:
            return self.fail(task, error.error, error.cause, now)
        frame = self._reported(task, now)
        if frame is None:
            return False
        prefix = task_kind(frame)
        self._wake(frame)
        self._emit(frame, f"{prefix}Succeeded", {"output": output})
        self._soon(frame, lambda frame: self._leave(frame, output))
        return True

    def fail(self, task: int, error: str, cause: str, now: float) -> bool:
        """A task has failed with an error's name, of the language or its own, and a sentence."""
        frame = self._reported(task, now)
        if frame is None:
            return False
        prefix = task_kind(frame)
        self._wake(frame)
        self._emit(frame, f"{prefix}Failed", {"error": error, "cause": cause})
        self._soon(frame, lambda frame: self._failed(frame, StateError(error, cause)))
        return True

    def submitted(self, task: int, output: Any, now: float) -> bool:
        """The resource of a task that waits for its token has taken it."""
        return self._noted(task, "TaskSubmitted", {"output": output}, now)

    def taken(self, task: int, worker: str, now: float) -> bool:
        """A worker has fetched a task of an activity."""
        if not self._noted(task, "ActivityStarted", {"workerName": worker}, now):
            return False
        self._expect_beat(self._tasks[task])
        return True

    def heartbeat(self, task: int, now: float) -> bool:
        """Somebody works on a task. Not recorded: after a restart `renew` lets its time begin anew."""
        frame = self._tasks.get(task)
        if frame is None or frame.task is None:
            return False
        if frame.task.heartbeat is not None:
            frame.beat = now + frame.task.heartbeat
        return True

    def renew(self, now: float) -> None:
        """Nobody could send a heartbeat while no process was there to take it: all are due as if one came now."""
        for task in self._tasks:
            self.heartbeat(task, now)

    def tick(self, now: float) -> None:
        """Time has passed: the earliest timer that is due fires. Call again while `next_due` is not in the future."""
        self._assert_idle()
        due = self.next_due
        if due is None or due > now:
            return
        self._now = max(self._now, now)
        if due == self._deadline:
            self._time_out()
        else:
            _, _, kind, frame, _ = heapq.heappop(self._timers)
            self._fire(frame, kind)

    def abort(self, error: str, cause: str, now: float) -> None:
        """Somebody stops the run."""
        if self.status == "RUNNING":
            self._assert_idle()
            self._now = max(self._now, now)
            self._end("ABORTED", "ExecutionAborted", error, cause)

    def redrive(self, now: float) -> None:
        """Go on with a run that failed, timed out or was aborted: where it broke off, with the same input."""
        if self.status in ("RUNNING", "SUCCEEDED"):
            raise ValueError(f"a run that is {self.status} cannot be redriven")
        self._now = max(self._now, now)
        self.status, self.error, self.cause = "RUNNING", "", ""
        self._redrives += 1
        self._redriven_at = self._now
        self._emit(self._root, "ExecutionRedriven", {"redriveCount": self._redrives})
        self._limit_whole()
        self._revive(self._root)

    # -- repeating

    def _repeat(self, event: Event) -> None:
        """Report what must have been reported for `event` to follow."""
        now, details = event.timestamp, event.details
        if event.type == "ExecutionAborted":
            return self.abort(details["error"], details["cause"], now)
        if event.type == "ExecutionRedriven":
            return self.redrive(now)
        self._now = max(self._now, now)
        if event.type == "ExecutionTimedOut":
            return self._time_out()
        frame = self._waiting.get(event.previousEventId)
        if frame is None:
            raise HistoryMismatch(f"event {event.id} ({event.type}) follows from nothing that the run waits for")
        task = frame.task.id if frame.task is not None else 0
        match event.type:
            case "TaskSucceeded" | "ActivitySucceeded":
                self.succeed(task, details["output"], now)
            case "TaskFailed" | "ActivityFailed":
                self.fail(task, details["error"], details["cause"], now)
            case "TaskSubmitted":
                self.submitted(task, details["output"], now)
            case "ActivityStarted":
                self.taken(task, details["workerName"], now)
            case "TaskTimedOut" | "ActivityTimedOut" if details["error"] == errors.HEARTBEAT_TIMEOUT:
                self._fire(frame, "beat")
            case _:
                self._fire(frame, "due")
        return None

    def _run_all(self) -> None:
        while self.run():
            pass

    def _fire(self, frame: Frame, kind: str) -> None:
        phase, task = frame.phase, frame.task
        prefix = task_kind(frame) if task is not None else ""
        self._wake(frame)
        if phase == "wait":
            self._soon(frame, lambda frame: self._leave(frame, SAME))
        elif phase == "retry":
            self._soon(frame, self._work)
        elif task is not None:
            self._abandoned.append(task.id)
            error = StateError(errors.TIMEOUT, "the task took longer than its TimeoutSeconds")
            if kind == "beat":
                error = StateError(errors.HEARTBEAT_TIMEOUT, "no heartbeat came within HeartbeatSeconds")
            self._emit(frame, f"{prefix}TimedOut", {"error": error.error, "cause": error.cause})
            self._soon(frame, lambda frame: self._failed(frame, error))

    def _reported(self, task: int, now: float) -> Frame | None:
        self._assert_idle()
        frame = self._tasks.get(task)
        if frame is not None:
            self._now = max(self._now, now)
        return frame

    def _noted(self, task: int, type: str, details: Json, now: float) -> bool:
        frame = self._reported(task, now)
        if frame is None:
            return False
        assert frame.task is not None
        frame.task = frame.task._replace(noted=True)
        self._waiting.pop(frame.last, None)
        self._emit(frame, type, details)
        self._wait(frame, "task")
        return True

    def _assert_idle(self) -> None:
        assert not self._ready, "run() until it returns False before the next report"
