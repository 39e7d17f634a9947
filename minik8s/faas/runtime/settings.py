"""What a revision is told with its code: the JSON before the archive in `PUT /-/revisions/NAME`."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints


class BadSettings(ValueError):
    """The text names the field and what it should be."""


@dataclass(frozen=True)
class Settings:
    """Names on the wire are these in camelCase. `timeout_seconds` bounds a call from its last byte in to its last byte
    out; `invokes` are the functions that code may name in `Invoke`; a pod takes the code of one `tenant` alone. With
    another `revision_uid` a name means other code: its function was deleted and made anew."""

    revision: str
    function: str = ""
    namespace: str = ""
    handler: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    concurrency: int = 10
    workers: int = 1
    timeout_seconds: float = 30
    max_body_bytes: int = 8 * 2**20
    invokes: tuple[str, ...] = ()
    tenant: str = ""
    revision_uid: str = ""


def divided(put: bytes) -> tuple[bytes, bytes] | None:
    """Settings and archive of what was put; None if it is too short."""
    length = int.from_bytes(put[:4], "big")
    return (put[4 : 4 + length], put[4 + length :]) if len(put) >= 4 + length and len(put) >= 4 else None


def read_settings(data: bytes) -> Settings:
    """Raises BadSettings. Unknown fields are for later releases, and left alone."""
    try:
        given = json.loads(data)
    except ValueError as error:
        raise BadSettings(f"settings are not JSON: {error}") from None
    if not isinstance(given, dict):
        raise BadSettings("settings are no JSON object")
    values = {
        name: _checked(wire, given[wire], wanted) for name, wire, wanted in _fields() if given.get(wire) is not None
    }
    if not values.get("revision"):
        raise BadSettings("revision: must be given")
    return Settings(**values)


@functools.cache
def _fields() -> list[tuple[str, str, Any]]:
    """Each field's name, here and on the wire, and its type."""
    hints = get_type_hints(Settings)
    return [(each.name, _camel(each.name), hints[each.name]) for each in fields(Settings)]


def _checked(name: str, value: Any, wanted: Any) -> Any:
    if wanted is str and isinstance(value, str):
        return value
    if wanted in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        if value <= 0 or (wanted is int and value != int(value)):
            raise BadSettings(f"{name}: {value} must be a positive number")
        return wanted(value)
    if name == "env" and isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return value
    if name == "invokes" and isinstance(value, list) and all(isinstance(text, str) for text in value):
        return tuple(value)
    raise BadSettings(f"{name}: {value!r} is of the wrong type")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
