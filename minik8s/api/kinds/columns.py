"""Cells that many kinds print alike: ages, readiness, conditions, selectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minik8s.api.resource import Column, Json
from minik8s.clock import parse_time

UNKNOWN, NONE = "<unknown>", "<none>"


def duration(seconds: float) -> str:
    """`45s`, `3m10s`, `5h20m`, `3d4h`, `2y30d`: two significant units at the most, as kubectl shows ages."""
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    s = max(s, 0)
    minutes, hours, days, years = s // 60, s // 3600, s // 86400, s // (86400 * 365)
    if s < 120:
        return f"{s}s"
    if minutes < 10:
        return f"{minutes}m" + (f"{s % 60}s" if s % 60 else "")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h" + (f"{minutes % 60}m" if minutes % 60 else "")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d" + (f"{hours % 24}h" if hours % 24 else "")
    if days < 730:
        return f"{days}d"
    if years < 8:
        return f"{years}y" + (f"{days % 365}d" if days % 365 else "")
    return f"{years}y"


def since(timestamp: str | None, now: float) -> str:
    """Time from an RFC 3339 timestamp to now."""
    try:
        return duration(now - parse_time(timestamp)) if timestamp else UNKNOWN
    except ValueError:
        return UNKNOWN


def age(obj: Json, now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def name(obj: Json, now: float) -> str:
    return str(obj["metadata"].get("name", ""))


def dig(obj: Any, path: str, default: Any = None) -> Any:
    """`dig(pod, "status.podIP")`; `default` where a step is missing or null."""
    for step in path.split("."):
        obj = obj.get(step) if isinstance(obj, dict) else None
        if obj is None:
            return default
    return obj


def number(path: str, title: str, description: str = "") -> Column:
    """An integer column that is 0 where nothing is said yet."""
    return Column(title, lambda obj, now: dig(obj, path, 0), type="integer", description=description)


def condition(obj: Json, type: str) -> Json | None:
    found: Json | None = next((c for c in dig(obj, "status.conditions", ()) if c.get("type") == type), None)
    return found


def labels_text(labels: Mapping[str, Any] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def selector_text(selector: Json | None) -> str:
    """A LabelSelector as one reads it on the command line."""
    selector = selector or {}
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for demand in selector.get("matchExpressions") or ():
        key, operator, values = demand.get("key"), demand.get("operator"), ",".join(demand.get("values") or ())
        words = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        parts.append(words.get(operator, ""))
    return ",".join(parts) or NONE


def joined(values: Iterable[Any]) -> str:
    return ",".join(str(value) for value in values) or NONE


def containers(obj: Json, now: float) -> str:
    return joined(c.get("name", "") for c in dig(obj, "spec.template.spec.containers", ()))


def images(obj: Json, now: float) -> str:
    return joined(c.get("image", "") for c in dig(obj, "spec.template.spec.containers", ()))


NAME = Column("Name", name, format="name", description="Name must be unique within a namespace.")
AGE = Column("Age", age, description="CreationTimestamp is when this object was created.")
CONTAINERS = Column("Containers", containers, description="Names of each container in the template.", priority=1)
IMAGES = Column("Images", images, description="Images referenced by each container in the template.", priority=1)
SELECTOR = Column(
    "Selector",
    lambda obj, now: selector_text(dig(obj, "spec.selector", {})),
    description="Label selector of the pods.",
    priority=1,
)
