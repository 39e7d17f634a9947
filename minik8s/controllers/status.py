"""Statuses are written as the smallest merge patch, and conditions change their time only when they change."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from minik8s.api.meta import Condition, Json, Object, Struct
from minik8s.clock import rfc3339


def difference(old: Struct, new: Struct, *, always: Collection[str] = ()) -> Json | None:
    """The merge patch that turns `old` into `new`, None if they are equal.

    Fields at their default are removed, as Kubernetes omits empty fields, except those in `always`.
    """
    if old == new:
        return None
    before: Json = msgspec.to_builtins(old)
    after: Json = msgspec.to_builtins(new)
    patch: dict[str, Any] = {key: value for key, value in after.items() if before.get(key) != value}
    patch |= dict.fromkeys(before.keys() - after.keys())
    return patch | {key: getattr(new, key) for key in always}


def with_condition(conditions: tuple[Condition, ...], new: Condition, now: float) -> tuple[Condition, ...]:
    """`conditions` with `new` in place of the one of its type; lastTransitionTime moves with the status only."""
    stamped = msgspec.structs.replace(new, lastTransitionTime=new.lastTransitionTime or rfc3339(now))
    for index, known in enumerate(conditions):
        if known.type == new.type:
            if (known.status, known.reason, known.message) == (new.status, new.reason, new.message):
                return conditions
            if known.status == new.status:
                stamped = msgspec.structs.replace(stamped, lastTransitionTime=known.lastTransitionTime)
            return (*conditions[:index], stamped, *conditions[index + 1 :])
    return (*conditions, stamped)


def without_condition(conditions: tuple[Condition, ...], type: str) -> tuple[Condition, ...]:
    return tuple(known for known in conditions if known.type != type)


def only_status_changed(old: Object | None, new: Object | None) -> bool:
    """Whether an update says nothing new to the controller that writes the status itself.

    What the structs do not know of the spec still moves `metadata.generation`.
    """
    if old is None or new is None:
        return False
    return old.metadata == msgspec.structs.replace(new.metadata, resourceVersion=old.metadata.resourceVersion)
