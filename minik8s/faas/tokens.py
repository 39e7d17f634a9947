"""Tasks that others do: workers fetch them by the activity's name, and report with the task's token."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

from minik8s.api.errors import NotFound
from minik8s.faas import resources
from minik8s.faas.run_log import Header
from minik8s.faas.runner import Run, Runner
from minik8s.faas.workflow.execution import Task

LONGEST_POLL = 60.0  # seconds, as in Step Functions

Place = tuple[str, str]  # namespace, activity


class Tokens:
    """What waits for a worker is in the runner; here is only the order in which it came, and who waits for it."""

    def __init__(self) -> None:
        self.runner: Runner
        self._offered: dict[Place, deque[tuple[str, int]]] = {}
        self._waiting: dict[Place, deque[asyncio.Future[None]]] = {}

    def elsewhere(self, run: Header, task: Task) -> bool:
        """For the runner: whether a task is left for others. One of an activity is offered to workers."""
        resource = resources.parse(task.resource)
        if resource.kind == "activity":
            place = (run.namespace, resource.name)
            self._offered.setdefault(place, deque()).append((run.uid, task.id))
            self._wake(place)
        return resource.kind in ("activity", "manual")

    async def take(self, namespace: str, activity: str, worker: str, seconds: float) -> tuple[Run, Task] | None:
        """The oldest task that nobody has; None if none comes within `seconds`."""
        place = (namespace, activity)
        loop = asyncio.get_running_loop()
        until = loop.time() + min(seconds, LONGEST_POLL)
        while True:
            for run, task in self._next(place):
                begun = lambda execution, id=task.id: execution.taken(id, worker, self.runner.clock())  # noqa: E731
                run.tasks[task.id] = task._replace(noted=True)
                if await self.runner.report(run.header.uid, begun):
                    return run, task
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.setdefault(place, deque()).append(future)
            try:
                async with asyncio.timeout_at(until):
                    await future
            except TimeoutError:
                return None
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._wake(place)  # the call was ours, and we cannot follow it any more
                raise
            finally:
                self._stop_waiting(place, future)

    def _next(self, place: Place) -> Iterator[tuple[Run, Task]]:
        """What is offered and still wanted, each once."""
        offered = self._offered.get(place)
        while offered:
            uid, id = offered.popleft()
            run = self.runner.get(uid)
            task = run.tasks.get(id) if run is not None else None
            if run is not None and task is not None and not task.noted:
                yield run, task
        self._offered.pop(place, None)

    def _wake(self, place: Place) -> None:
        for future in self._waiting.get(place, ()):
            if not future.done():
                future.set_result(None)
                return

    def _stop_waiting(self, place: Place, future: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(place, deque())
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._waiting.pop(place, None)

    # -- reports

    async def succeed(self, namespace: str, token: str, output: Any) -> None:
        run, task = self._holder(namespace, token)
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.runner.finish(run, task.id, output, waiter)
        if not await waiter:
            raise _nobody()

    async def fail(self, namespace: str, token: str, error: str, cause: str) -> None:
        run, task = self._holder(namespace, token)
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.runner.finish_failed(run, task.id, error, cause, waiter)
        if not await waiter:
            raise _nobody()

    async def heartbeat(self, namespace: str, token: str) -> None:
        run, task = self._holder(namespace, token)
        if not await self.runner.report(
            run.header.uid, lambda execution: execution.heartbeat(task.id, self.runner.clock())
        ):
            raise _nobody()

    def _holder(self, namespace: str, token: str) -> tuple[Run, Task]:
        found = self.runner.holder(namespace, token)
        if found is None:
            raise _nobody()
        return found


def _nobody() -> NotFound:
    return NotFound("no run of this namespace waits for a task with this token: it has been reported, or has timed out")
