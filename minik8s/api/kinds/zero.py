"""What counts as not given: for most fields Go's zero value, so that `protocol: ""` and no protocol mean the same."""

from __future__ import annotations

from typing import Any

from minik8s.api.resource import Json


def fill(obj: Json, name: str, value: Any) -> None:
    """Set a field that is absent, null, "" or 0, in place. For fields where 0 or "" means something: `setdefault`."""
    if obj.get(name) in (None, "", 0) and obj.get(name) is not False:
        obj[name] = value
