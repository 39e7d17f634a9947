"""Admission: what the cluster adds to, or has against, a write before it is validated and stored.

A step looks at one `Operation`, changes its object in place or raises. Steps read only the head of the store; what the
object must have for itself they put into `wants`, to be claimed just before the write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from minik8s.api.resource import Json, Resource
from minik8s.apiserver.auth import User

End = Literal["stored", "removed", "failed"]
EVERYTHING: frozenset[str] = frozenset()


class Operation:
    """One attempt at one write. `old` is None on create, `obj` is the stored object on delete.

    `has` are the claims (`claims.py`) of the object as it is stored, `wants` those of the object as it is to be.
    """

    __slots__ = ("dry_run", "ends", "has", "obj", "old", "resource", "subresource", "user", "verb", "wants")

    def __init__(
        self, verb: str, resource: Resource, subresource: str, user: User, obj: Json, old: Json | None, *, dry_run: bool
    ) -> None:
        self.verb = verb  # create | update | delete
        self.resource = resource
        self.subresource = subresource
        self.user = user
        self.obj = obj
        self.old = old
        self.dry_run = dry_run
        self.ends: list[Callable[[End], None]] = []
        self.has: frozenset[str] = frozenset()
        self.wants: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return str(self.obj["metadata"].get("name", ""))

    @property
    def namespace(self) -> str:
        return str(self.obj["metadata"].get("namespace", ""))

    def on_end(self, call: Callable[[End], None]) -> None:
        """Be told how it ended; a dry run has failed."""
        self.ends.append(call)

    def end(self, how: End) -> None:
        for call in self.ends:
            call("failed" if self.dry_run else how)


class Step(Protocol):
    """`resources` are the names (`pods`, `deployments.apps`) that it looks at; empty = all."""

    resources: frozenset[str]

    def admit(self, op: Operation) -> None: ...


class Chain:
    """Steps in order; which of them concern a resource is worked out once."""

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self._steps = tuple(steps)
        self._by_resource: dict[str, tuple[Step, ...]] = {}

    def admit(self, op: Operation) -> None:
        for step in self._concerning(op.resource.name):
            step.admit(op)

    def _concerning(self, name: str) -> Iterable[Step]:
        steps = self._by_resource.get(name)
        if steps is None:
            steps = tuple(step for step in self._steps if not step.resources or name in step.resources)
            self._by_resource[name] = steps
        return steps
