"""The runner moves all runs of a cluster: one loop, one heap of timers, one group of durable events at a time.

Reports (a task's result, a timer, a stop) are put into a run's inbox. The loop lets runs with something to do move, a
slice of time long, writes the events of all of them as one group, and only then begins the tasks that follow from them
and answers who waits. While a group is on its way to the disk the next slice is worked on.
What is in memory can be lost at any moment: the log is read at the start, and every run that goes on is repeated to
where it was. Tasks that were begun are begun again, with the same key.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import hmac
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from minik8s.aio import wait_any
from minik8s.clock import Clock, system_clock
from minik8s.faas import resources
from minik8s.faas.run_log import End, Entry, Found, Header, RunLog
from minik8s.faas.workflow import errors
from minik8s.faas.workflow.core import Outcome
from minik8s.faas.workflow.data import Json
from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.execution import Execution, HistoryMismatch, Identity, Task
from minik8s.log import REPORT, get_logger
from minik8s.metrics import Counter, Histogram

SLICE = 0.02  # seconds of work between two looks at everything else that this process does
LONGEST_SLEEP = 60.0  # seconds: somebody may set the clock
STATUSES = {"RUNNING": "Running", "SUCCEEDED": "Succeeded", "FAILED": "Failed", "TIMED_OUT": "TimedOut",
            "ABORTED": "Aborted"}  # fmt: skip
ENDED = Counter("workflow_runs_ended_total", "Runs that have ended.", ("phase",))
TRANSITIONS = Counter("workflow_transitions_total", "States that runs have entered.")
TASKS = Histogram("workflow_task_duration_seconds", "From when a task is begun, or offered, until its report.",
                  ("kind", "outcome"), bounds=(0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 3600.0))  # fmt: skip
log = get_logger("workflows")


class Perform(Protocol):
    """Does a task and returns its result, or raises StateError. Cancelled when nobody wants it any more."""

    def __call__(self, run: Header, task: Task) -> Awaitable[Any]: ...


Act = Callable[[Execution], Any]


class Run:
    """One run in memory, from its beginning, or from where its log ends, to its end."""

    def __init__(self, header: Header, definition: Json, entry: Entry | None = None) -> None:
        self.header = header
        identity = Identity(header.uid, header.name, f"{header.namespace}/{header.workflow}", header.workflow)
        self.execution = Execution(definition, identity, header.input, token=lambda id: token(header, id))
        self.inbox: deque[tuple[Act, asyncio.Future[Any] | None]] = deque()
        self.tasks: dict[int, Task] = {}  # that were handed out and have not been reported
        self.begun: dict[int, float] = {}  # when they were
        self.doing: dict[int, asyncio.Future[Any]] = {}  # the part of them that is done here
        self.begins = entry  # the head of its first entry, until that is written
        self.reopened = False
        self.busy = False
        self.dropped = False
        self.due: float | None = None


class Runner:
    """`perform` does tasks that are done from here; `taken_up(run, task)` says which are left for others to fetch.

    `changed(key)` is called when a run has come further. `run()` is eternal.
    """

    def __init__(
        self,
        history: RunLog,
        perform: Perform,
        *,
        elsewhere: Callable[[Header, Task], bool] = lambda run, task: False,
        clock: Clock = system_clock,
    ) -> None:
        self.history = history
        self.clock = clock
        self.changed: Callable[[str], None] = lambda key: None
        self.ready = asyncio.Event()  # all runs that go on are here
        self._perform = perform
        self._elsewhere = elsewhere
        self._runs: dict[str, Run] = {}
        self._busy: deque[Run] = deque()
        self._wake = asyncio.Event()
        self._timers: list[tuple[float, int, Run]] = []
        self._number = 0
        self._loading: dict[str, asyncio.Lock] = {}

    # -- what others ask for

    def get(self, uid: str) -> Run | None:
        """A run that goes on."""
        return self._runs.get(uid)

    def running(self) -> list[Run]:
        return list(self._runs.values())

    def begin(self, header: Header, definition: Json) -> None:
        """A new run; nothing happens if it is there already."""
        if header.uid not in self._runs:
            head = Entry(header.uid, (), header, msgspec.json.encode(definition))
            run = self._runs[header.uid] = Run(header, definition, head)
            self._put(run, lambda execution: execution.start(self.clock()))

    async def report(self, uid: str, act: Act) -> Any:
        """Let `act` tell a run something; its answer, once what follows is durable. None if the run does not go on."""
        run = self._runs.get(uid)
        if run is None:
            return None
        return await self._answered(run, act)

    async def redrive(self, uid: str) -> bool:
        """Let a run that has failed go on. False if it is not there, or has not failed."""
        async with self._loading.setdefault(uid, asyncio.Lock()):
            found = await self.history.find(uid) if uid not in self._runs else None
            if found is None or found.end is None or found.end.status == "SUCCEEDED":
                return False
            run = await self._load(found)
            if run is None:
                return False
            run.reopened = True
            self._runs[uid] = run
            await self._answered(run, lambda execution: execution.redrive(self.clock()))
        self._loading.pop(uid, None)
        return True

    async def forget(self, uid: str) -> None:
        """The run's object is gone: nothing of it stays."""
        run = self._runs.pop(uid, None)
        if run is not None:
            run.dropped = True
            self._release(run)
        await self.history.forget([uid])

    def tasks(self, namespace: str) -> list[tuple[Run, Task]]:
        """All that runs of a namespace ("": of all) wait for."""
        return [(run, task) for run in self._runs.values() if namespace in ("", run.header.namespace)
                for task in run.tasks.values()]  # fmt: skip

    def holder(self, namespace: str, text: str) -> tuple[Run, Task] | None:
        """The task whose token this is; None if it is of no task, or nobody waits for that one any more."""
        uid, _, rest = text.partition(".")
        run = self._runs.get(uid)
        id = rest.partition(".")[0]
        if run is None or run.header.namespace != namespace or not id.isascii() or not id.isdecimal():
            return None
        task = run.tasks.get(int(id[:9]))
        known = task is not None and hmac.compare_digest(task.token.encode(), text.encode(errors="replace"))
        return (run, task) if known and task is not None else None

    # -- the loop

    async def run(self) -> None:
        try:
            await self._resume_all()
            self.ready.set()
            await self._work_for_ever()
        finally:
            doing = [task for run in self._runs.values() for task in run.doing.values()]
            for task in doing:
                task.cancel()
            await asyncio.gather(*doing, return_exceptions=True)

    async def _work_for_ever(self) -> None:
        done: list[tuple[Run, Outcome, list[tuple[asyncio.Future[Any], Any]]]] = []
        writing: asyncio.Future[None] | None = None
        while True:
            if not self._busy and writing is None:
                await self._sleep()
            self._fire()
            entries, now_done = self._slice()
            if writing is not None:
                await writing
                self._follow_all(done)
            writing, done = asyncio.ensure_future(self.history.write(entries)) if entries else None, now_done
            if writing is None:
                self._follow_all(done)
            await asyncio.sleep(0)

    async def _sleep(self) -> None:
        self._wake.clear()
        wait = LONGEST_SLEEP if self._timers else None
        if wait is not None:
            wait = min(max(self._timers[0][0] - self.clock(), 0), wait)
        await wait_any(self._wake, timeout=wait)

    def _fire(self) -> None:
        now = self.clock()
        while self._timers and self._timers[0][0] <= now:
            due, _, run = heapq.heappop(self._timers)
            if run.due == due and not run.dropped:  # else it is an older one
                run.due = None
                self._put(run, lambda execution: execution.tick(self.clock()))

    def _slice(self) -> tuple[list[Entry], list[tuple[Run, Outcome, list[tuple[asyncio.Future[Any], Any]]]]]:
        """Let runs move, in turns; what is to be written, and what is to be done when it is."""
        entries, done = [], []
        until = time.perf_counter() + SLICE
        while self._busy and time.perf_counter() < until:
            run = self._busy.popleft()
            run.busy = False
            if run.dropped:
                for _, waiter in run.inbox:
                    _answer(waiter, None)
                run.inbox.clear()
                continue
            answers = self._move(run)
            outcome = run.execution.take()
            entry = self._entry(run, outcome)
            if entry is not None:
                entries.append(entry)
            done.append((run, outcome, answers))
        return entries, done

    def _move(self, run: Run) -> list[tuple[asyncio.Future[Any], Any]]:
        """One turn of a run: what it was doing, then what has been reported, as far as the turn's budget goes."""
        execution, answers = run.execution, []
        more = execution.run()
        while not more and run.inbox:
            act, waiter = run.inbox.popleft()
            answer = act(execution)
            if waiter is not None:
                answers.append((waiter, answer))
            more = execution.run()
        if more or run.inbox:
            self._queue(run)
        due = None if more else execution.next_due
        if due is not None and due != run.due:
            self._number += 1
            heapq.heappush(self._timers, (due, self._number, run))
        run.due = due
        return answers

    def _entry(self, run: Run, outcome: Outcome) -> Entry | None:
        execution = run.execution
        end = None
        if execution.status != "RUNNING" and (outcome.events or run.reopened):
            end = End(execution.status, execution.started_at, self.clock(), execution.events, execution.output,
                      execution.error, execution.cause, execution.redrives)  # fmt: skip
        if not outcome.events and end is None:
            return None
        entry = run.begins or Entry(run.header.uid, ())
        entry = entry._replace(events=outcome.events, end=end, reopened=run.reopened)
        run.begins, run.reopened = None, False
        return entry

    def _follow_all(self, done: list[tuple[Run, Outcome, list[tuple[asyncio.Future[Any], Any]]]]) -> None:
        """The events are durable: begin tasks, give up others, answer."""
        for run, outcome, answers in done:
            for id in outcome.abandoned:
                self._end_task(run, id)
            if not run.dropped:
                for task in outcome.tasks:
                    run.tasks[task.id] = task
                    run.begun[task.id] = self.clock()
                    if self._elsewhere(run.header, task):
                        # A worker may have fetched it, or the process was killed before the answer reached one: only
                        # offering it once more is sure not to lose it.
                        run.tasks[task.id] = task._replace(noted=False)
                    elif not task.noted:
                        self._begin_task(run, task)
            for waiter, answer in answers:
                _answer(waiter, answer)
            if run.execution.status != "RUNNING" and self._runs.get(run.header.uid) is run and not run.busy:
                del self._runs[run.header.uid]
                self._release(run)
                ENDED.labels(STATUSES[run.execution.status]).inc()
            if outcome.events:
                TRANSITIONS.inc(sum(event.type.endswith("StateEntered") for event in outcome.events))
                self.changed(run.header.key)

    def _put(self, run: Run, act: Act, waiter: asyncio.Future[Any] | None = None) -> None:
        run.inbox.append((act, waiter))
        self._queue(run)

    def _queue(self, run: Run) -> None:
        if not run.busy:
            run.busy = True
            self._busy.append(run)
            self._wake.set()

    async def _answered(self, run: Run, act: Act) -> Any:
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(run, act, waiter)
        return await waiter

    # -- tasks

    def _begin_task(self, run: Run, task: Task) -> None:
        async def perform() -> Any:
            return await self._perform(run.header, task)

        run.doing[task.id] = doing = asyncio.create_task(perform(), name=f"{run.header.key} task {task.id}")
        doing.add_done_callback(lambda future: self._performed(run, task, future))

    def _performed(self, run: Run, task: Task, future: asyncio.Future[Any]) -> None:
        run.doing.pop(task.id, None)
        if future.cancelled():
            return
        error = future.exception()
        if isinstance(error, StateError):
            name, cause = error.error, error.cause
        elif error is not None:  # a fault of ours: told, and the run's own to deal with; others go on
            log.error("task failed unexpectedly", run=run.header.key, state=task.state, exc_info=error, remedy=REPORT)
            name, cause = errors.RUNTIME, f"an internal error occurred: {type(error).__name__}"
        elif task.waits:
            self._put(run, lambda execution: execution.submitted(task.id, future.result(), self.clock()))
            if task.id in run.tasks:  # else somebody has already reported with the token
                run.tasks[task.id] = task._replace(noted=True)
            return
        else:
            self.finish(run, task.id, future.result())
            return
        self.finish_failed(run, task.id, name, cause)

    def finish(self, run: Run, id: int, output: Any, waiter: asyncio.Future[Any] | None = None) -> None:
        self._reported(run, id, "succeeded")
        self._put(run, lambda execution: execution.succeed(id, output, self.clock()), waiter)

    def finish_failed(
        self, run: Run, id: int, error: str, cause: str, waiter: asyncio.Future[Any] | None = None
    ) -> None:
        self._reported(run, id, "failed")
        self._put(run, lambda execution: execution.fail(id, error, cause, self.clock()), waiter)

    def _reported(self, run: Run, id: int, how: str) -> None:
        task, begun = run.tasks.pop(id, None), run.begun.pop(id, None)
        if task is not None and begun is not None:
            TASKS.labels(resources.parse(task.resource).kind, how).observe(self.clock() - begun)

    def _end_task(self, run: Run, id: int) -> None:
        self._reported(run, id, "abandoned")
        if (doing := run.doing.pop(id, None)) is not None:
            doing.cancel()

    def _release(self, run: Run) -> None:
        for id in [*run.tasks, *run.doing]:
            self._end_task(run, id)
        if run.dropped:
            self._queue(run)  # whoever waits for an answer gets one

    # -- from the log

    async def _resume_all(self) -> None:
        for uid, key, ended in await self.history.all():
            found = None if ended else await self.history.find(uid)
            if found is None:
                continue
            run = await self._load(found)
            if run is None:
                continue
            self._runs[uid] = run
            self._queue(run)
            self.changed(key)
            await asyncio.sleep(0)
        log.info("workflows resumed", runs=len(self._runs))

    async def _load(self, found: Found) -> Run | None:
        """A run where its log ends. One that does not follow from its own log is ended: it can never go on."""
        header = found.header
        run = Run(header, msgspec.json.decode(found.definition))
        events = await self.history.read(header.uid)
        try:
            run.execution.resume(events)
        except HistoryMismatch as error:
            log.error(
                "a run does not follow from its history",
                run=header.key,
                error=str(error),
                remedy="start it again: 'minik8s wf run' with the same input; its history was changed or damaged",
            )
            end = End("FAILED", events[0].timestamp, self.clock(), len(events), None, errors.RUNTIME, str(error))
            await self.history.write([Entry(header.uid, (), end=end)])
            self.changed(header.key)
            return None
        run.execution.renew(self.clock())
        return run


def _answer(waiter: asyncio.Future[Any] | None, answer: Any) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(answer)


def token(header: Header, id: int) -> str:
    """UID.ID.MAC: tells whose task it is, and nobody can make one up."""
    mac = hashlib.blake2b(str(id).encode(), key=header.secret, digest_size=16).hexdigest()
    return f"{header.uid}.{id}.{mac}"


def new_secret() -> bytes:
    return secrets.token_bytes(16)


def digest(definition: Json) -> str:
    return hashlib.sha256(msgspec.json.encode(definition, order="sorted")).hexdigest()
