"""The log of runs: what makes them survive. Events are only ever added, and durable before anything follows from them.

`RunLog` is all that the runner needs of it; `sqlite_log.py` keeps it in a file, `MemoryLog` as long as the process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from minik8s.faas.workflow.history import Event


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run is, from its beginning on. `uid` is that of its WorkflowRun.

    `definition` is a SHA-256 in hex: definitions are kept once, whatever number of runs they have.
    `secret` makes the tokens of its tasks, which nobody can guess.
    """

    uid: str
    namespace: str
    name: str
    workflow: str
    revision: int
    definition: str
    account: str
    secret: bytes
    input: Any = None
    depth: int = 0  # how many runs are above it

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run has ended; `started` and `ended` in Unix seconds."""

    status: str
    started: float
    ended: float
    events: int
    output: Any = None
    error: str = ""
    cause: str = ""
    redrives: int = 0


class Entry(NamedTuple):
    """What is to be written of one run. The first has `header` and `definition`; `reopened` takes an end back."""

    uid: str
    events: Sequence[Event]
    header: Header | None = None
    definition: bytes = b""
    end: End | None = None
    reopened: bool = False


class Found(NamedTuple):
    header: Header
    definition: bytes
    end: End | None


class RunLog(Protocol):
    """`write` is done when all entries are durable, or none is. All raise StoreError."""

    def write(self, entries: Sequence[Entry]) -> Awaitable[None]: ...

    async def find(self, uid: str) -> Found | None: ...

    async def read(self, uid: str, *, after: int = 0, limit: int = 0) -> list[Event]:
        """Events with numbers above `after`, at most `limit` (0: all); where they are large fewer, but one at least."""
        ...

    async def all(self) -> list[tuple[str, str, bool]]:
        """(uid, key, whether it has ended) of all runs, the oldest first."""
        ...

    async def forget(self, uids: Iterable[str]) -> None: ...


class MemoryLog:
    """For clusters whose objects are in memory as well."""

    def __init__(self) -> None:
        self._definitions: dict[str, bytes] = {}
        self._runs: dict[str, tuple[Header, End | None]] = {}
        self._events: dict[str, list[Event]] = {}

    async def write(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.header is not None:
                self._definitions[entry.header.definition] = entry.definition
                self._runs[entry.uid] = (entry.header, None)
                self._events[entry.uid] = []
            if entry.uid in self._runs:
                self._events[entry.uid] += entry.events
                if entry.end is not None or entry.reopened:
                    self._runs[entry.uid] = (self._runs[entry.uid][0], entry.end)

    async def find(self, uid: str) -> Found | None:
        if uid not in self._runs:
            return None
        header, end = self._runs[uid]
        return Found(header, self._definitions[header.definition], end)

    async def read(self, uid: str, *, after: int = 0, limit: int = 0) -> list[Event]:
        events = self._events.get(uid, [])[after:]
        return events[:limit] if limit else events

    async def all(self) -> list[tuple[str, str, bool]]:
        return [(uid, header.key, end is not None) for uid, (header, end) in self._runs.items()]

    async def forget(self, uids: Iterable[str]) -> None:
        for uid in uids:
            self._runs.pop(uid, None)
            self._events.pop(uid, None)
        used = {header.definition for header, _ in self._runs.values()}
        self._definitions = {key: value for key, value in self._definitions.items() if key in used}
