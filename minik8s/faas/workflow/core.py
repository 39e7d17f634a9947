"""The frame in which a run moves: its lines of execution, its events, what it waits for, and its timers.

Nothing here knows what a state does. A line is busy (something is to be done for it now) or waits, known by its newest
event; whoever wakes it says what is to be done next.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from minik8s.faas.workflow import errors
from minik8s.faas.workflow.data import Json
from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.history import Event

MAX_EVENTS = 25_000  # of one run, as in Step Functions
BUDGET = 500  # events after which `run` lets others run
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
    with the token. `noted`: its resource has taken it, or a worker has fetched it: only a report is still to come.
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
    noted: bool = False


class Outcome(NamedTuple):
    """What has come out since the last time: events to be recorded before the tasks are begun and others given up."""

    events: list[Event]
    tasks: list[Task]
    abandoned: list[int]


class Frame:
    """One line of execution: the run itself, a branch of a Parallel, an item of a Map."""

    __slots__ = (
        "attempts", "beat", "children", "due", "entered", "error", "generation", "index", "item", "last", "machine",
        "name", "parent", "phase", "raw", "results", "retries", "task", "todo",
    )  # fmt: skip

    def __init__(self, machine: Json, parent: Frame | None, index: int, last: int, item: Any = None) -> None:
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
        self.children: list[Frame] = []
        self.results: list[Any] = []
        self.todo: list[Any] = []  # items of a Map that have not begun
        self.error: StateError | None = None

    @property
    def state(self) -> Json:
        found: Json = self.machine["States"][self.name]
        return found


Action = Callable[[Frame], None]


class Core:
    """`token(task id)` makes task tokens."""

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
        self._root = Frame(definition, None, 0, 0)
        self._deadline: float | None = None  # of the whole run
        self._now = 0.0
        self._count = 0
        self._order = 0  # of timers that are due at one time
        self._redrives = 0
        self._redriven_at = 0.0
        self._fresh: list[Event] = []
        self._new: list[Task] = []
        self._abandoned: list[int] = []
        self._recorded: deque[Event] = deque()
        self._ready: deque[tuple[Frame, Action]] = deque()
        self._waiting: dict[int, Frame] = {}  # id of the event after which it waits
        self._tasks: dict[int, Frame] = {}
        self._timers: list[tuple[float, int, str, Frame, int]] = []

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
            except HistoryMismatch:
                raise
            except Exception as error:
                # What nobody foresaw in a definition or its data ends this run, not the loop that moves all of them.
                told = f"in state {frame.name}: {type(error).__name__}: {error}"
                self._end("FAILED", "ExecutionFailed", errors.RUNTIME, told)
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

    @property
    def redrives(self) -> int:
        """How often it went on after an end."""
        return self._redrives

    def current(self) -> list[str]:
        """Names of the states in which the run is now."""
        return [frame.name for frame in self._frames(self._root) if frame.phase in ("busy", "task", "wait", "retry")]

    # -- events, lines, timers

    def _emit(self, frame: Frame, type: str, details: Json) -> None:
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

    def _soon(self, frame: Frame, action: Action) -> None:
        frame.phase = "busy"
        self._ready.append((frame, action))

    def _wait(self, frame: Frame, phase: str) -> None:
        """Until something is reported, or a timer fires. It is known by its newest event, which is nobody else's."""
        frame.phase = phase
        self._waiting[frame.last] = frame

    def _wake(self, frame: Frame) -> None:
        """The end of waiting: no timer of it counts any more, and its task is nobody's."""
        self._waiting.pop(frame.last, None)
        frame.generation += 1
        if frame.task is not None:
            del self._tasks[frame.task.id]
            frame.task = None

    def _at(self, due: float, kind: str, frame: Frame) -> None:
        self._order += 1
        heapq.heappush(self._timers, (due, self._order, kind, frame, frame.generation))

    def _expect_beat(self, frame: Frame) -> None:
        if frame.task is not None and frame.task.heartbeat is not None:
            frame.beat = self._now + frame.task.heartbeat
            self._at(frame.beat, "beat", frame)

    def _frames(self, frame: Frame) -> Iterable[Frame]:
        yield frame
        for child in frame.children:
            yield from self._frames(child)

    def _give_up(self, frame: Frame) -> None:
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

    def _end(self, status: Status, type: str, error: str, cause: str) -> None:
        self.status, self.error, self.cause = status, error, cause
        if self._root.task is not None:
            self._abandoned.append(self._root.task.id)
        self._wake(self._root)
        self._give_up(self._root)
        self._emit(self._root, type, {"error": error, "cause": cause})

    def _time_out(self) -> None:
        self._end("TIMED_OUT", "ExecutionTimedOut", errors.TIMEOUT, "the run took longer than its TimeoutSeconds")

    def _limit_whole(self) -> None:
        limit = self._definition.get("TimeoutSeconds")
        self._deadline = self._now + limit if limit is not None else None

    def _assert_idle(self) -> None:
        assert not self._ready, "run() until it returns False before the next report"

    def _failed(self, frame: Frame, error: StateError) -> None:
        """What comes of a state that fails."""
        raise NotImplementedError


def task_kind(frame: Frame) -> str:
    """How events of a frame's task begin."""
    return "Activity" if frame.state["Resource"].startswith(ACTIVITY) else "Task"
