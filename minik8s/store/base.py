"""What a store promises: one ordered log of changes over a flat space of keys, written by compare-and-swap.

Values are canonical JSON bytes that carry their own resourceVersion in a fixed place, right at the start, so that
nobody has to decode an object to read or to set it. The writer hands over a *template*, the same bytes with an empty
revision.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self

STAMP_HEAD = b'{"metadata":{"resourceVersion":"'
TEMPLATE_HEAD = STAMP_HEAD + b'"'


def stamp(value: bytes, rev: int) -> bytes:
    """Return `value` (a template, or an object stamped before) with its resourceVersion set to `rev`."""
    return STAMP_HEAD + b"%d" % rev + value[value.index(b'"', len(STAMP_HEAD)) :]


class Record(NamedTuple):
    """A living key. `rev` is the revision of its last modification, `create_rev` the one that made it."""

    key: str
    value: bytes
    rev: int
    create_rev: int


class Change(NamedTuple):
    """One committed write. `rev` grows strictly over all keys; `value` None means deleted, `prev` is the state before
    (None for a creation). The value of `prev` bears the revision of `prev`: `stamp(prev.value, rev)` is the object of a
    DELETED event."""

    key: str
    rev: int
    value: bytes | None
    prev: Record | None

    def record(self) -> Record | None:
        """The state of the key after this change."""
        if self.value is None:
            return None
        return Record(self.key, self.value, self.rev, self.prev.create_rev if self.prev else self.rev)


class StoreError(Exception):
    """Anything a store says no with. The text is for people: it names the file or endpoint, and the remedy."""


class CasFailed(StoreError):
    """The key is not at the expected revision, or the key to delete does not exist. `current` is what is there."""

    def __init__(self, key: str, current: Record | None) -> None:
        state = f"at revision {current.rev}" if current else "absent"
        super().__init__(f"{key} is {state}")
        self.current = current


class Compacted(StoreError):
    """The asked history begins before `floor`, the oldest revision from which changes are still known."""

    def __init__(self, after: int, floor: int) -> None:
        super().__init__(f"changes after revision {after} are gone, the history begins at {floor}")
        self.floor = floor


class StoreCorrupt(StoreError):
    """The data is damaged, foreign, or of a newer version; it was left as it is."""


class TooLarge(StoreError):
    """The value is larger than the store takes."""


class StoreUnavailable(StoreError):
    """The store cannot answer: it has stopped, is held by another process, or is out of reach. Whether a write that
    ends so took place is unknown."""


class Store(Protocol):
    """An async context manager: entering opens it, leaving closes it after the writes under way."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def revision(self) -> int:
        """The newest committed revision that this process knows of."""
        ...

    @property
    def floor(self) -> int:
        """Changes after this revision are known; those up to it may have been compacted away."""
        ...

    async def load(self) -> tuple[int, list[Record]]:
        """A consistent snapshot of everything, in any order, and its revision."""
        ...

    async def write(self, key: str, template: bytes | None, *, expect: int | None) -> Change:
        """Set `key` (template None: delete it) if it is at revision `expect` (0: absent, None: whatever it is).

        Returns once the change is durable. Raises CasFailed (also where there is nothing to delete), TooLarge,
        StoreUnavailable, and ValueError for a key that does not begin with "/" or a value that is not a template.
        """
        ...

    def changes(self, after: int) -> AsyncGenerator[Sequence[Change], None]:
        """Every change committed after revision `after`, exactly once, in order of revision, in batches, without end.

        A change with an empty key changes nothing, it tells that another master's `load` has shown this revision.
        Raises Compacted, and StoreUnavailable when the store has stopped for good. Leave it with `aclose()`.
        """
        ...

    async def history(self, prefix: str, after: int, upto: int) -> list[Change]:
        """The changes of keys that start with `prefix` with after < rev <= upto (upto: a revision that `load` or a
        change has shown). Raises Compacted."""
        ...

    async def compact(self, before: int) -> None:
        """Forget changes up to revision `before` (never the living keys); it becomes the floor."""
        ...

    async def check(self) -> None:
        """Verify the integrity of what is stored; raises StoreCorrupt with a remedy."""
        ...


def check_write(key: str, template: bytes | None) -> None:
    """Raise ValueError for what no store accepts: callers' mistakes, not users'."""
    if not key.startswith("/"):
        raise ValueError(f"key {key!r} does not begin with '/'")
    if template is not None and not template.startswith(TEMPLATE_HEAD):
        raise ValueError(f"value of {key} does not begin with {TEMPLATE_HEAD.decode()}")
