"""Runs executions to their end in virtual time, with tasks that are Python functions; killed where a test says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.execution import Execution, Identity, Task
from minik8s.faas.workflow.history import Event, decode, encode

WHO = Identity("default/run", "run", "default/machine", "machine")
START = 1_700_000_000.0
Json = dict[str, Any]


class Never:
    """Returned by a task function that does not answer."""


def machine(states: Json, start: str = "", **more: Any) -> Json:
    """A definition whose first state is where it starts."""
    return {"StartAt": start or next(iter(states)), "States": states, **more}


class World:
    """`tasks` maps resources to functions of the parameters; StateError is a task that fails."""

    def __init__(self, definition: Json, tasks: dict[str, Callable[[Any], Any]] | None = None) -> None:
        self.definition = definition
        self.tasks = tasks or {}
        self.now = START
        self.recorded: list[Event] = []
        self.calls: list[tuple[str, Any]] = []
        self.begun: set[int] = set()
        self.given_up: list[int] = []
        self.execution = self._new(None)

    def _new(self, input: Any) -> Execution:
        self._input = input
        return Execution(self.definition, WHO, input, token=lambda id: f"token-{id}")

    def start(self, input: Any = None) -> World:
        self.execution = self._new(input)
        self.execution.start(self.now)
        self._settle()
        return self

    def run(self, input: Any = None, *, limit: int = 100_000) -> World:
        """To the end, or until only the world can move it."""
        self.start(input)
        return self.go_on(limit=limit)

    def go_on(self, *, limit: int = 100_000) -> World:
        for _ in range(limit):
            due = self.execution.next_due
            if self.execution.status != "RUNNING" or due is None:
                return self
            self.now = max(self.now, due)
            self.execution.tick(self.now)
            self._settle()
        raise AssertionError("no end")

    def report(self, act: Callable[[Execution], Any]) -> World:
        act(self.execution)
        self._settle()
        return self

    def resumed(self, events: int) -> World:
        """Another process that finds the first `events` events, in a world where the same has been begun."""
        other = World(self.definition, self.tasks)
        other.now = self.now
        other.recorded = decode(encode(self.recorded[:events]))
        other.execution = other._new(self._input)
        other.execution.resume(other.recorded)
        other._settle()
        return other

    def _settle(self) -> None:
        for _ in itertools.count():
            while self.execution.run():
                pass
            outcome = self.execution.take()
            self.recorded += outcome.events
            self.given_up += outcome.abandoned
            if not outcome.tasks:
                return
            for task in outcome.tasks:
                self._perform(task)

    def _perform(self, task: Task) -> None:
        self.begun.add(task.id)
        self.calls.append((task.resource, task.parameters))
        function = self.tasks.get(task.resource)
        if function is None:
            return
        try:
            result = function(task.parameters)
        except StateError as error:
            while self.execution.run():
                pass
            self.execution.fail(task.id, error.error, error.cause, self.now)
        else:
            while self.execution.run():
                pass
            if result is not Never:
                self.execution.succeed(task.id, result, self.now)

    # -- what tests look at

    @property
    def result(self) -> Any:
        found = self.execution
        assert found.status == "SUCCEEDED", (found.status, found.error, found.cause)
        return found.output

    @property
    def failure(self) -> tuple[str, str]:
        found = self.execution
        assert found.status != "SUCCEEDED", found.output
        return found.error, found.cause

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.recorded]

    def route(self) -> list[str]:
        """Names of the states in the order in which they were entered."""
        return [event.details["name"] for event in self.recorded if event.type.endswith("StateEntered")]
