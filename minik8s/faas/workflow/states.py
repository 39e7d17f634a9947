"""What the states of the Amazon States Language do, and where a line of execution goes from them."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from minik8s.clock import rfc3339_milli
from minik8s.faas.workflow import choice, data, errors
from minik8s.faas.workflow.core import Core, Frame, Task, task_kind
from minik8s.faas.workflow.data import Json, Scope
from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.history import encoder

DEFAULT_ATTEMPTS = 3
LONGEST_DELAY = 31_622_400.0  # seconds before another attempt: the most that MaxDelaySeconds may say
WAITING = ".waitForTaskToken"
SAME = object()  # stands for a result that is the state's own input


class Machine(Core):
    """`_STATES` names the method for each type of state: it does what such a state is there for."""

    def _begin(self, frame: Frame, input: Any) -> None:
        self._goto(frame, frame.machine["StartAt"], input)

    def _goto(self, frame: Frame, name: str, input: Any) -> None:
        frame.name, frame.raw, frame.retries, frame.attempts = name, input, 0, {}
        frame.children, frame.results, frame.todo = [], [], []
        self._soon(frame, self._enter)

    def _enter(self, frame: Frame) -> None:
        self._emit(frame, f"{frame.state['Type']}StateEntered", {"name": frame.name, "input": frame.raw})
        frame.entered = self._now
        self._work(frame)

    def _work(self, frame: Frame) -> None:
        """Do what the state is there for; after a retry once more."""
        state = frame.state
        scope = self._scope(frame, frame.raw)
        scope = scope.on(data.filtered(state, "InputPath", scope))
        if "Parameters" in state and state["Type"] not in ("Map", "Task"):  # these show more to their parameters
            scope = scope.on(data.built(state["Parameters"], scope))
        _STATES[state["Type"]](self, frame, state, scope)

    def _pass(self, frame: Frame, state: Json, scope: Scope) -> None:
        self._leave(frame, state.get("Result", scope.data))

    def _succeed(self, frame: Frame, state: Json, scope: Scope) -> None:
        self._leave(frame, scope.data)

    def _fail(self, frame: Frame, state: Json, scope: Scope) -> None:
        texts = {}
        for field in ("Error", "Cause"):
            path = state.get(f"{field}Path")
            texts[field] = scope.value(path) if path is not None else state.get(field, "")
            if not isinstance(texts[field], str):
                raise StateError(errors.RUNTIME, f"{field}Path must lead to a string: {path} does not")
        self._failed(frame, StateError(texts["Error"], texts["Cause"]))

    def _choice(self, frame: Frame, state: Json, scope: Scope) -> None:
        name = choice.choose(state, scope)
        self._exit(frame, data.filtered(state, "OutputPath", scope), name)

    def _sleep(self, frame: Frame, state: Json, scope: Scope) -> None:
        try:
            if "Timestamp" in state or "TimestampPath" in state:
                text = state.get("Timestamp") or scope.read(state["TimestampPath"])
                due = choice.timestamp(str(text))
            else:
                seconds = state["Seconds"] if "Seconds" in state else scope.read(state["SecondsPath"])
                due = frame.entered + _seconds(seconds, "SecondsPath")
        except ValueError as error:
            raise StateError(errors.RUNTIME, str(error)) from None
        if due <= self._now:
            self._leave(frame, scope.data)
            return
        self._wait(frame, "wait")
        self._at(due, "due", frame)

    def _task(self, frame: Frame, state: Json, scope: Scope) -> None:
        resource: str = state["Resource"]
        limits = {field: _limit(state, f"{field}Seconds", scope) for field in ("Timeout", "Heartbeat")}
        id = self._count + 1
        token = self._token(id)
        parameters = scope.data
        if "Parameters" in state:
            shown = scope._replace(context=partial(self._context, frame, token=token))
            parameters = data.bounded(data.built(state["Parameters"], shown), "what Parameters make")
        details: Json = {"resource": resource, "parameters": parameters}
        details |= {f"{field.lower()}InSeconds": limit for field, limit in limits.items() if limit is not None}
        timeout, beat = limits["Timeout"], limits["Heartbeat"]
        waits = resource.endswith(WAITING)
        frame.task = Task(id, frame.name, resource, parameters, token, timeout, beat, waits)
        self._emit(frame, f"{task_kind(frame)}Scheduled", details)
        if task_kind(frame) == "Task":  # an activity starts when a worker fetches it
            self._emit(frame, "TaskStarted", {})
        self._tasks[id] = frame
        self._new.append(frame.task)
        self._wait(frame, "task")
        if timeout is not None:
            self._at(self._now + timeout, "due", frame)
        if task_kind(frame) == "Task":  # of an activity they are waited for when a worker has fetched it
            self._expect_beat(frame)

    def _parallel(self, frame: Frame, state: Json, scope: Scope) -> None:
        self._emit(frame, "ParallelStateStarted", {})
        self._branch(frame, [(branch, scope.data, None) for branch in state["Branches"]])

    def _map(self, frame: Frame, state: Json, scope: Scope) -> None:
        items = scope.read(state["ItemsPath"]) if "ItemsPath" in state else scope.data
        if not isinstance(items, list):
            raise StateError(errors.RUNTIME, "what a Map goes through must be an array: see ItemsPath")
        template = state.get("ItemSelector", state.get("Parameters"))
        self._emit(frame, "MapStateStarted", {"length": len(items)})
        branches = []
        machine = state["ItemProcessor"] if "ItemProcessor" in state else state["Iterator"]
        for index, value in enumerate(items):
            item = {"Index": index, "Value": value}
            input = value
            if template is not None:
                input = data.built(template, scope._replace(context=partial(self._context, frame, item=item)))
            branches.append((machine, input, item))
        limit = state.get("MaxConcurrency", 0)
        if "MaxConcurrencyPath" in state:
            limit = _seconds(scope.read(state["MaxConcurrencyPath"]), "MaxConcurrencyPath")
        self._branch(frame, branches, int(limit))

    # -- branches

    def _branch(self, frame: Frame, branches: list[tuple[Json, Any, Any]], limit: int = 0) -> None:
        """Let branches begin, `limit` of them at a time (0: all)."""
        frame.phase = "children"
        frame.children = []
        frame.results = [None] * len(branches)
        frame.todo = list(enumerate(branches))[::-1]
        if not branches:
            self._joined(frame)
        for _ in range(min(limit, len(branches)) or len(branches)):
            self._next_branch(frame)

    def _next_branch(self, frame: Frame) -> None:
        if not frame.todo:
            return
        index, (machine, input, item) = frame.todo.pop()
        child = Frame(machine, frame, index, frame.last, item)
        frame.children.append(child)
        if item is not None:
            self._emit(child, "MapIterationStarted", {"name": frame.name, "index": index})
        self._begin(child, input)

    def _finish(self, frame: Frame, output: Any) -> None:
        """The last state of a run or of a branch has been left."""
        frame.phase = "done"
        parent = frame.parent
        if parent is None and data.too_deep(output):
            cause = f"the output is nested more than {data.DEEPEST} levels deep"
            self._end("FAILED", "ExecutionFailed", errors.DATA_LIMIT, cause)
            return
        if parent is None:
            self._emit(frame, "ExecutionSucceeded", {"output": output})
            self.status, self.output = "SUCCEEDED", output
            return
        parent.results[frame.index] = output
        if frame.item is not None:
            self._emit(frame, "MapIterationSucceeded", {"name": parent.name, "index": frame.index})
        self._next_branch(parent)
        if not parent.todo and all(child.phase == "done" for child in parent.children):
            parent.last = frame.last
            self._joined(parent)

    def _joined(self, frame: Frame) -> None:
        self._emit(frame, f"{frame.state['Type']}StateSucceeded", {})
        results = frame.results
        frame.children, frame.results = [], []
        self._soon(frame, lambda frame: self._leave(frame, results))

    # -- leaving, failing, ending

    def _leave(self, frame: Frame, result: Any) -> None:
        state = frame.state
        scope = self._scope(frame, frame.raw)
        output = data.filtered(state, "InputPath", scope) if result is SAME else result
        if "ResultSelector" in state:
            output = data.built(state["ResultSelector"], scope.on(output))
        if state["Type"] in _WITH_RESULT:
            output = data.joined(state, frame.raw, output)
        output = data.filtered(state, "OutputPath", scope.on(output))
        self._exit(frame, output, state.get("Next"))

    def _exit(self, frame: Frame, output: Any, following: str | None) -> None:
        data.bounded(output, "the output")
        self._emit(frame, f"{frame.state['Type']}StateExited", {"name": frame.name, "output": output})
        if following is None:
            self._finish(frame, output)
        else:
            self._goto(frame, following, output)

    def _failed(self, frame: Frame, error: StateError) -> None:
        """Try again, or go another way, or give up what the frame is part of."""
        state = frame.state
        delay = self._retry_after(frame, state, error)
        if delay is not None:
            self._give_up(frame)
            frame.retries += 1
            self._wait(frame, "retry")
            self._at(self._now + delay, "due", frame)
            return
        for catcher in state.get("Catch", ()):
            if _means(catcher, state, error):
                self._give_up(frame)
                try:
                    output = data.joined(catcher, frame.raw, {"Error": error.error, "Cause": error.cause})
                    self._exit(frame, output, catcher["Next"])
                except StateError as second:  # where the catcher's output goes is wrong: nobody catches that
                    error = second
                    break
                return
        frame.phase, frame.error = "failed", error
        parent = frame.parent
        if parent is None:
            self._end("FAILED", "ExecutionFailed", error.error, error.cause)
            return
        told = {"error": error.error, "cause": error.cause}
        if frame.item is not None:
            self._emit(frame, "MapIterationFailed", {"name": parent.name, "index": frame.index})
        self._give_up(parent)
        parent.last = frame.last
        self._emit(parent, f"{parent.state['Type']}StateFailed", told)
        self._soon(parent, lambda parent: self._failed(parent, error))

    def _retry_after(self, frame: Frame, state: Json, error: StateError) -> float | None:
        """Seconds until the next attempt; None if there is to be none."""
        for number, retrier in enumerate(state.get("Retry", ())):
            if not _means(retrier, state, error):
                continue
            used = frame.attempts.get(number, 0)
            if used >= retrier.get("MaxAttempts", DEFAULT_ATTEMPTS):
                return None
            frame.attempts[number] = used + 1
            try:
                delay = retrier.get("IntervalSeconds", 1) * float(retrier.get("BackoffRate", 2.0)) ** used
            except OverflowError:
                delay = LONGEST_DELAY
            delay = min(delay, retrier.get("MaxDelaySeconds", LONGEST_DELAY))
            return self._rng(frame).uniform(0, delay) if retrier.get("JitterStrategy") == "FULL" else delay
        return None

    def _revive(self, frame: Frame) -> None:
        """Let what failed or was given up begin its state again; what was done stays done."""
        if frame.children:
            frame.phase = "children"
            for child in frame.children:
                if child.phase != "done":
                    child.last = frame.last
                    self._revive(child)
            if all(child.phase == "done" for child in frame.children):
                self._next_branch(frame)
        elif frame.name:
            frame.retries, frame.attempts = 0, {}
            self._soon(frame, self._enter)

    # -- what expressions may read

    def _scope(self, frame: Frame, value: Any) -> Scope:
        return Scope(value, partial(self._context, frame), partial(self._rng, frame))

    def _rng(self, frame: Frame) -> random.Random:
        return random.Random(f"{self._identity.id}:{frame.last}")

    def _context(self, frame: Frame, *, token: str = "", item: Any = None) -> Json:
        """The context object, `$$`."""
        who = self._identity
        found: Json = {
            "Execution": {
                "Id": who.id,
                "Input": self._input,
                "Name": who.name,
                "RedriveCount": self._redrives,
                "StartTime": rfc3339_milli(self.started_at),
                **({"RedriveTime": rfc3339_milli(self._redriven_at)} if self._redrives else {}),
            },
            "State": {"Name": frame.name, "EnteredTime": rfc3339_milli(frame.entered), "RetryCount": frame.retries},
            "StateMachine": {"Id": who.machine_id, "Name": who.machine_name},
        }
        if token:
            found["Task"] = {"Token": token}
        above: Frame | None = frame
        while item is None and above is not None:
            item, above = above.item, above.parent
        if item is not None:
            found["Map"] = {"Item": item}
        return found


_WITH_RESULT = ("Pass", "Task", "Parallel", "Map")
_STATES: dict[str, Callable[[Machine, Frame, Json, Scope], None]] = {
    "Pass": Machine._pass,
    "Succeed": Machine._succeed,
    "Fail": Machine._fail,
    "Choice": Machine._choice,
    "Wait": Machine._sleep,
    "Task": Machine._task,
    "Parallel": Machine._parallel,
    "Map": Machine._map,
}


def _means(rule: Json, state: Json, error: StateError) -> bool:
    """Whether a Retrier or Catcher is about an error; in a Parallel also under the name of a failed branch."""
    names: list[str] = rule["ErrorEquals"]
    return errors.means(names, error.error) or (state["Type"] == "Parallel" and errors.BRANCH_FAILED in names)


def _limit(state: Json, field: str, scope: Scope) -> float | None:
    """`TimeoutSeconds`, or what `TimeoutSecondsPath` leads to; likewise for heartbeats."""
    if field in state:
        return float(state[field])
    path = state.get(f"{field}Path")
    return None if path is None else _seconds(scope.read(path), f"{field}Path")


def _seconds(value: Any, field: str) -> float:
    if not choice.is_number(value) or value < 0:
        shown = encoder.encode(value)[:80].decode(errors="replace")
        raise StateError(errors.RUNTIME, f"{field} must lead to a number that is not negative, not to {shown}")
    return float(value)
