"""One run of a workflow, without any I/O: what the world reports goes in, events and tasks to be done come out.

What follows from a report is worked out at once, up to the point where the run has to wait: for tasks, for timers, or
for nothing more. A run is therefore repeated exactly from its events: `resume` reports to a new execution what the
events say was reported, in the same order, and compares what follows with what is recorded. Where the record breaks
off (the process was killed between two events) the rest follows anew, and is handed out to be recorded. Chance is
drawn from the run's id and the event's number, so that it falls the same way again.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, NamedTuple

from minik8s.clock import rfc3339_milli
from minik8s.faas.workflow import choice, data, errors
from minik8s.faas.workflow.data import Json, Scope
from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.history import Event, encoder

MAX_EVENTS = 25_000  # of one run, as in Step Functions
MAX_DATA = 262_144  # bytes of a result as JSON, likewise
BUDGET = 500  # events after which `run` lets others run
DEFAULT_ATTEMPTS = 3
WAITING = ".waitForTaskToken"
ACTIVITY = "activity:"

Status = Literal["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"]


class HistoryMismatch(Exception):
    """A recorded event is not what follows from those before it: the definition is another, or the record damaged."""


class Identity(NamedTuple):
    """Who runs: shown to expressions as `$$.Execution` and `$$.StateMachine`."""

    id: str
    name: str
    machine_id: str
    machine_name: str


class Task(NamedTuple):
    """Work for somebody else. `id`, the number of its event, is the fencing token of this attempt.

    `again`: it was handed out before the process was restarted, and may have been begun, or done.
    `timeout` and `heartbeat` are seconds. `waits`: what the resource answers is no result, which somebody will report
    with the token.
    """

    id: int
    state: str
    resource: str
    parameters: Any
    token: str
    timeout: float | None = None
    heartbeat: float | None = None
    waits: bool = False
    again: bool = False


class Outcome(NamedTuple):
    """What has come out since the last time: events to be recorded before the tasks are begun and others given up."""

    events: list[Event]
    tasks: list[Task]
    abandoned: list[int]


class _Frame:
    """One line of execution: the run itself, a branch of a Parallel, an item of a Map."""

    __slots__ = (
        "attempts", "beat", "children", "due", "entered", "error", "generation", "index", "item", "last", "machine",
        "name", "parent", "phase", "raw", "results", "retries", "task", "todo",
    )  # fmt: skip

    def __init__(self, machine: Json, parent: _Frame | None, index: int, last: int, item: Any = None) -> None:
        self.machine = machine
        self.parent = parent
        self.index = index
        self.item = item  # of a Map, as {"Index": …, "Value": …}
        self.last = last  # id of the newest event
        self.name = ""
        self.raw: Any = None  # input of the state
        self.entered = 0.0
        self.phase = "busy"  # busy | task | wait | retry | children | done | failed | aborted
        self.retries = 0
        self.attempts: dict[int, int] = {}  # number of a Retrier -> how often it was used
        self.task: Task | None = None
        self.due = 0.0
        self.beat = 0.0  # when the next heartbeat must have come
        self.generation = 0  # of timers; older ones count no more
        self.children: list[_Frame] = []
        self.results: list[Any] = []
        self.todo: list[Any] = []  # items of a Map that have not begun
        self.error: StateError | None = None

    @property
    def state(self) -> Json:
        found: Json = self.machine["States"][self.name]
        return found


_Action = Callable[[_Frame], None]


class Execution:
    """`token(task id)` makes task tokens. After each report, `run` until it says False before the next report."""

    def __init__(
        self,
        definition: Json,
        identity: Identity,
        input: Any,
        *,
        token: Callable[[int], str] = str,
        max_events: int = MAX_EVENTS,
    ) -> None:
        self.status: Status = "RUNNING"
        self.output: Any = None
        self.error = ""
        self.cause = ""
        self.started_at = 0.0
        self._definition = definition
        self._identity = identity
        self._input = input
        self._token = token
        self._max_events = max_events
        self._root = _Frame(definition, None, 0, 0)
        self._deadline: float | None = None  # of the whole run
        self._now = 0.0
        self._count = 0
        self._order = 0  # of timers that are due at one time
        self._redrives = 0
        self._fresh: list[Event] = []
        self._new: list[Task] = []
        self._abandoned: list[int] = []
        self._recorded: deque[Event] = deque()
        self._ready: deque[tuple[_Frame, _Action]] = deque()
        self._waiting: dict[int, _Frame] = {}  # id of the event after which it waits
        self._tasks: dict[int, _Frame] = {}
        self._timers: list[tuple[float, int, str, _Frame, int]] = []

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
        size = len(encoder.encode(output))
        if size > MAX_DATA:
            return self.fail(task, errors.DATA_LIMIT, f"the result has {size} bytes; the limit is {MAX_DATA}", now)
        frame = self._reported(task, now)
        if frame is None:
            return False
        prefix = _kind(frame)
        self._wake(frame)
        self._emit(frame, f"{prefix}Succeeded", {"output": output})
        self._soon(frame, lambda frame: self._leave(frame, output))
        return True

    def fail(self, task: int, error: str, cause: str, now: float) -> bool:
        """A task has failed with an error's name, of the language or its own, and a sentence."""
        frame = self._reported(task, now)
        if frame is None:
            return False
        prefix = _kind(frame)
        self._wake(frame)
        self._emit(frame, f"{prefix}Failed", {"error": error, "cause": cause})
        self._soon(frame, lambda frame: self._failed(frame, StateError(error, cause)))
        return True

    def submitted(self, task: int, output: Any, now: float) -> bool:
        """The resource of a task that waits for its token has taken it."""
        return self._noted(task, "TaskSubmitted", {"output": output}, now)

    def taken(self, task: int, worker: str, now: float) -> bool:
        """A worker has fetched a task of an activity."""
        return self._noted(task, "ActivityStarted", {"workerName": worker}, now)

    def heartbeat(self, task: int, now: float) -> bool:
        """Somebody works on a task. Not recorded: after a restart its time begins anew."""
        frame = self._tasks.get(task)
        if frame is None or frame.task is None:
            return False
        if frame.task.heartbeat is not None:
            frame.beat = now + frame.task.heartbeat
        return True

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
        self._emit(self._root, "ExecutionRedriven", {"redriveCount": self._redrives})
        self._limit_whole()
        self._revive(self._root)

    # -- what comes out

    def run(self, budget: int = BUDGET) -> bool:
        """Work on what follows from the last report, some `budget` events of it. True if there is more to do."""
        until = self._count + budget
        while self._ready and self._count < until:
            frame, action = self._ready.popleft()
            if frame.phase == "aborted" or self.status != "RUNNING":
                continue
            if self._count >= self._max_events:
                self._end("FAILED", "ExecutionFailed", errors.RUNTIME, f"the run has {self._count} events: too many")
                break
            try:
                action(frame)
            except StateError as error:
                self._failed(frame, error)
        if self.status != "RUNNING":
            self._ready.clear()
        return bool(self._ready)

    def take(self) -> Outcome:
        """All that has come out since the last call."""
        outcome = Outcome(self._fresh, self._new, self._abandoned)
        self._fresh, self._new, self._abandoned = [], [], []
        return outcome

    @property
    def next_due(self) -> float | None:
        """When `tick` will have something to do (Unix seconds); None if nothing depends on time."""
        if self.status != "RUNNING":
            return None
        while self._timers:
            due, order, kind, frame, generation = self._timers[0]
            if frame.generation != generation:
                heapq.heappop(self._timers)
            elif kind == "beat" and frame.beat > due:  # heartbeats have come meanwhile
                heapq.heapreplace(self._timers, (frame.beat, order, kind, frame, generation))
            else:
                return due if self._deadline is None else min(due, self._deadline)
        return self._deadline

    @property
    def events(self) -> int:
        """How many events there are."""
        return self._count

    def current(self) -> list[str]:
        """Names of the states in which the run is now."""
        return [frame.name for frame in self._frames(self._root) if frame.phase in ("busy", "task", "wait", "retry")]

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

    # -- events, frames, timers

    def _emit(self, frame: _Frame, type: str, details: Json) -> None:
        self._count += 1
        if self._recorded:
            event = self._recorded.popleft()
            if (event.id, event.type, event.details) != (self._count, type, details):
                follows = f"what follows from those before it is {type} {details}"
                raise HistoryMismatch(f"event {event.id} is {event.type} {event.details}; {follows}")
            self._now = event.timestamp
        else:
            self._fresh.append(Event(self._count, type, self._now, frame.last, details))
        frame.last = self._count

    def _soon(self, frame: _Frame, action: _Action) -> None:
        frame.phase = "busy"
        self._ready.append((frame, action))

    def _wait(self, frame: _Frame, phase: str) -> None:
        """Until something is reported, or a timer fires. It is known by its newest event, which is nobody else's."""
        frame.phase = phase
        self._waiting[frame.last] = frame

    def _wake(self, frame: _Frame) -> None:
        """The end of waiting: no timer of it counts any more, and its task is nobody's."""
        self._waiting.pop(frame.last, None)
        frame.generation += 1
        if frame.task is not None:
            del self._tasks[frame.task.id]
            frame.task = None

    def _at(self, due: float, kind: str, frame: _Frame) -> None:
        self._order += 1
        heapq.heappush(self._timers, (due, self._order, kind, frame, frame.generation))

    def _fire(self, frame: _Frame, kind: str) -> None:
        phase, task = frame.phase, frame.task
        prefix = _kind(frame) if task is not None else ""
        self._wake(frame)
        if phase == "wait":
            self._soon(frame, lambda frame: self._leave(frame, _Same))
        elif phase == "retry":
            self._soon(frame, self._work)
        elif task is not None:
            self._abandoned.append(task.id)
            error = StateError(errors.TIMEOUT, "the task took longer than its TimeoutSeconds")
            if kind == "beat":
                error = StateError(errors.HEARTBEAT_TIMEOUT, "no heartbeat came within HeartbeatSeconds")
            self._emit(frame, f"{prefix}TimedOut", {"error": error.error, "cause": error.cause})
            self._soon(frame, lambda frame: self._failed(frame, error))

    def _time_out(self) -> None:
        self._end("TIMED_OUT", "ExecutionTimedOut", errors.TIMEOUT, "the run took longer than its TimeoutSeconds")

    def _limit_whole(self) -> None:
        limit = self._definition.get("TimeoutSeconds")
        self._deadline = self._now + limit if limit is not None else None

    def _reported(self, task: int, now: float) -> _Frame | None:
        self._assert_idle()
        frame = self._tasks.get(task)
        if frame is not None:
            self._now = max(self._now, now)
        return frame

    def _noted(self, task: int, type: str, details: Json, now: float) -> bool:
        frame = self._reported(task, now)
        if frame is None:
            return False
        self._waiting.pop(frame.last, None)
        self._emit(frame, type, details)
        self._wait(frame, "task")
        return True

    def _assert_idle(self) -> None:
        assert not self._ready, "run() until it returns False before the next report"

    def _frames(self, frame: _Frame) -> Iterable[_Frame]:
        yield frame
        for child in frame.children:
            yield from self._frames(child)

    # -- states

    def _begin(self, frame: _Frame, input: Any) -> None:
        self._goto(frame, frame.machine["StartAt"], input)

    def _goto(self, frame: _Frame, name: str, input: Any) -> None:
        frame.name, frame.raw, frame.retries, frame.attempts = name, input, 0, {}
        frame.children, frame.results, frame.todo = [], [], []
        self._soon(frame, self._enter)

    def _enter(self, frame: _Frame) -> None:
        self._emit(frame, f"{frame.state['Type']}StateEntered", {"name": frame.name, "input": frame.raw})
        frame.entered = self._now
        self._work(frame)

    def _work(self, frame: _Frame) -> None:
        """Do what the state is there for; after a retry once more."""
        state = frame.state
        scope = self._scope(frame, frame.raw)
        scope = scope.on(data.filtered(state, "InputPath", scope))
        if "Parameters" in state and state["Type"] not in ("Map", "Task"):  # these show more to their parameters
            scope = scope.on(data.built(state["Parameters"], scope))
        _STATES[state["Type"]](self, frame, state, scope)

    def _pass(self, frame: _Frame, state: Json, scope: Scope) -> None:
        self._leave(frame, state.get("Result", scope.data))

    def _succeed_state(self, frame: _Frame, state: Json, scope: Scope) -> None:
        self._leave(frame, scope.data)

    def _fail_state(self, frame: _Frame, state: Json, scope: Scope) -> None:
        texts = {}
        for field in ("Error", "Cause"):
            path = state.get(f"{field}Path")
            texts[field] = str(scope.value(path)) if path is not None else state.get(field, "")
        self._failed(frame, StateError(texts["Error"], texts["Cause"]))

    def _choice(self, frame: _Frame, state: Json, scope: Scope) -> None:
        name = choice.choose(state, scope)
        output = data.filtered(state, "OutputPath", scope)
        self._emit(frame, "ChoiceStateExited", {"name": frame.name, "output": output})
        self._goto(frame, name, output)

    def _wait_state(self, frame: _Frame, state: Json, scope: Scope) -> None:
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

    def _task(self, frame: _Frame, state: Json, scope: Scope) -> None:
        resource: str = state["Resource"]
        limits = {field: _limit(state, f"{field}Seconds", scope) for field in ("Timeout", "Heartbeat")}
        id = self._count + 1
        token = self._token(id)
        parameters = scope.data
        if "Parameters" in state:
            shown = scope._replace(context=partial(self._context, frame, token=token))
            parameters = data.built(state["Parameters"], shown)
        details: Json = {"resource": resource, "parameters": parameters}
        details |= {f"{field.lower()}InSeconds": limit for field, limit in limits.items() if limit is not None}
        timeout, beat = limits["Timeout"], limits["Heartbeat"]
        waits = resource.endswith(WAITING)
        frame.task = Task(id, frame.name, resource, parameters, token, timeout, beat, waits)
        self._emit(frame, f"{_kind(frame)}Scheduled", details)
        if _kind(frame) == "Task":  # an activity starts when a worker fetches it
            self._emit(frame, "TaskStarted", {})
        self._tasks[id] = frame
        self._new.append(frame.task)
        self._wait(frame, "task")
        if timeout is not None:
            self._at(self._now + timeout, "due", frame)
        if beat is not None:
            frame.beat = self._now + beat
            self._at(frame.beat, "beat", frame)

    def _parallel(self, frame: _Frame, state: Json, scope: Scope) -> None:
        self._emit(frame, "ParallelStateStarted", {})
        self._branch(frame, [(branch, scope.data, None) for branch in state["Branches"]])

    def _map(self, frame: _Frame, state: Json, scope: Scope) -> None:
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

    def _branch(self, frame: _Frame, branches: list[tuple[Json, Any, Any]], limit: int = 0) -> None:
        """Let branches begin, `limit` of them at a time (0: all)."""
        frame.phase = "children"
        frame.children = []
        frame.results = [None] * len(branches)
        frame.todo = list(enumerate(branches))[::-1]
        if not branches:
            self._joined(frame)
        for _ in range(limit or len(branches)):
            self._next_branch(frame)

    def _next_branch(self, frame: _Frame) -> None:
        if not frame.todo:
            return
        index, (machine, input, item) = frame.todo.pop()
        child = _Frame(machine, frame, index, frame.last, item)
        frame.children.append(child)
        if item is not None:
            self._emit(child, "MapIterationStarted", {"name": frame.name, "index": index})
        self._begin(child, input)

    def _finish(self, frame: _Frame, output: Any) -> None:
        """The last state of a run or of a branch has been left."""
        frame.phase = "done"
        parent = frame.parent
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

    def _joined(self, frame: _Frame) -> None:
        self._emit(frame, f"{frame.state['Type']}StateSucceeded", {})
        results = frame.results
        frame.children, frame.results = [], []
        self._soon(frame, lambda frame: self._leave(frame, results))

    def _give_up(self, frame: _Frame) -> None:
        """Nothing below a frame goes on."""
        for child in frame.children:
            if child.phase not in ("done", "failed", "aborted"):
                if child.task is not None:
                    self._abandoned.append(child.task.id)
                self._wake(child)
                self._give_up(child)
                child.phase = "aborted"
                if child.item is not None and self.status == "RUNNING":
                    self._emit(child, "MapIterationAborted", {"name": frame.name, "index": child.index})

    # -- leaving, failing, ending

    def _leave(self, frame: _Frame, result: Any) -> None:
        state = frame.state
        scope = self._scope(frame, frame.raw)
        output = data.filtered(state, "InputPath", scope) if result is _Same else result
        if "ResultSelector" in state:
            output = data.built(state["ResultSelector"], scope.on(output))
        if state["Type"] in _WITH_RESULT:
            output = data.joined(state, frame.raw, output)
        output = data.filtered(state, "OutputPath", scope.on(output))
        self._exit(frame, output, state.get("Next"))

    def _exit(self, frame: _Frame, output: Any, following: str | None) -> None:
        self._emit(frame, f"{frame.state['Type']}StateExited", {"name": frame.name, "output": output})
        if following is None:
            self._finish(frame, output)
        else:
            self._goto(frame, following, output)

    def _failed(self, frame: _Frame, error: StateError) -> None:
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
                output = data.joined(catcher, frame.raw, {"Error": error.error, "Cause": error.cause})
                self._exit(frame, output, catcher["Next"])
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

    def _retry_after(self, frame: _Frame, state: Json, error: StateError) -> float | None:
        """Seconds until the next attempt; None if there is to be none."""
        for number, retrier in enumerate(state.get("Retry", ())):
            if not _means(retrier, state, error):
                continue
            used = frame.attempts.get(number, 0)
            if used >= retrier.get("MaxAttempts", DEFAULT_ATTEMPTS):
                return None
            frame.attempts[number] = used + 1
            delay = float(retrier.get("IntervalSeconds", 1) * retrier.get("BackoffRate", 2.0) ** used)
            delay = min(delay, retrier.get("MaxDelaySeconds", delay))
            return self._rng(frame).uniform(0, delay) if retrier.get("JitterStrategy") == "FULL" else delay
        return None

    def _end(self, status: Status, type: str, error: str, cause: str) -> None:
        self.status, self.error, self.cause = status, error, cause
        if self._root.task is not None:
            self._abandoned.append(self._root.task.id)
        self._wake(self._root)
        self._give_up(self._root)
        self._emit(self._root, type, {"error": error, "cause": cause})

    def _revive(self, frame: _Frame) -> None:
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

    def _scope(self, frame: _Frame, value: Any) -> Scope:
        return Scope(value, partial(self._context, frame), partial(self._rng, frame))

    def _rng(self, frame: _Frame) -> random.Random:
        return random.Random(f"{self._identity.id}:{frame.last}")

    def _context(self, frame: _Frame, *, token: str = "", item: Any = None) -> Json:
        """The context object, `$$`."""
        who = self._identity
        found: Json = {
            "Execution": {
                "Id": who.id,
                "Input": self._input,
                "Name": who.name,
                "RedriveCount": self._redrives,
                "StartTime": rfc3339_milli(self.started_at),
            },
            "State": {"Name": frame.name, "EnteredTime": rfc3339_milli(frame.entered), "RetryCount": frame.retries},
            "StateMachine": {"Id": who.machine_id, "Name": who.machine_name},
        }
        if token:
            found["Task"] = {"Token": token}
        above: _Frame | None = frame
        while item is None and above is not None:
            item, above = above.item, above.parent
        if item is not None:
            found["Map"] = {"Item": item}
        return found


class _Same:
    """Stands for a result that is the state's own input."""


_WITH_RESULT = ("Pass", "Task", "Parallel", "Map")
_STATES: dict[str, Callable[[Execution, _Frame, Json, Scope], None]] = {
    "Pass": Execution._pass,
    "Succeed": Execution._succeed_state,
    "Fail": Execution._fail_state,
    "Choice": Execution._choice,
    "Wait": Execution._wait_state,
    "Task": Execution._task,
    "Parallel": Execution._parallel,
    "Map": Execution._map,
}


def _kind(frame: _Frame) -> str:
    """How events of a frame's task begin."""
    return "Activity" if frame.state["Resource"].startswith(ACTIVITY) else "Task"


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
        raise StateError(errors.RUNTIME, f"{field} must lead to a number that is not negative, not to {value!r}")
    return float(value)
