"""What Kubernetes refuses in the metrics and the behaviour of a HorizontalPodAutoscaler. Pure.

The texts of autoscaling/v1's annotations come here unchecked, so nothing is taken to be of the type that it should be.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, TypeGuard

from minik8s.api.errors import Cause, forbidden, invalid, not_supported, required
from minik8s.api.quantity import parse_quantity

Json = dict[str, Any]
_SOURCES = {
    "Object": "object", "Pods": "pods", "Resource": "resource", "External": "external",
    "ContainerResource": "containerResource",
}  # fmt: skip
_TARGETS = ("Utilization", "Value", "AverageValue")
_POLICIES = ("Pods", "Percent")
_SELECTS = ("Max", "Min", "Disabled")
LONGEST_WINDOW = 3600  # seconds, of stabilization
LONGEST_PERIOD = 1800  # seconds, of a policy


def metric_faults(metrics: Any, at: str = "spec.metrics") -> Iterator[Cause]:
    """What Kubernetes refuses in `spec.metrics`; each metric has the one source that its type names."""
    for number, metric in enumerate(_list(metrics)):
        place = f"{at}[{number}]"
        kind = _dict(metric).get("type")
        if not kind:
            yield required(f"{place}.type", "must specify a metric source type")
        elif kind not in _SOURCES:
            yield not_supported(f"{place}.type", kind, tuple(_SOURCES))
        else:
            name = _SOURCES[kind]
            if not _dict(metric.get(name)):
                yield required(f"{place}.{name}", "must populate information for the given metric source")
            for other in set(_SOURCES.values()) - {name}:
                if metric.get(other) is not None:
                    yield forbidden(f"{place}.{other}", "must populate the given metric source only")
            if kind in ("Resource", "ContainerResource") and _dict(metric.get(name)):
                yield from _source_faults(metric[name], kind, f"{place}.{name}")


def _source_faults(source: Json, kind: str, at: str) -> Iterator[Cause]:
    if not source.get("name"):
        yield required(f"{at}.name", "must specify a resource name")
    if kind == "ContainerResource" and not source.get("container"):
        yield required(f"{at}.container", "must specify a container")
    target = _dict(source.get("target"))
    share, average = target.get("averageUtilization"), target.get("averageValue")
    if not target.get("type"):
        yield required(f"{at}.target.type", "must specify a metric target type")
    elif target["type"] not in _TARGETS:
        yield not_supported(f"{at}.target.type", target["type"], _TARGETS)
    if share is None and average is None:
        text = "must set either a target raw value or a target utilization"
        yield required(f"{at}.target.averageUtilization", text)
    elif share is not None and average is not None:
        text = "may not set both a target raw value and a target utilization"
        yield forbidden(f"{at}.target.averageValue", text)
    if share is not None and not (_is_whole(share) and share >= 1):
        yield invalid(f"{at}.target.averageUtilization", share, "must be greater than 0")
    if average is not None and not _amount(average) > 0:
        yield invalid(f"{at}.target.averageValue", average, "must be positive")


def behavior_faults(behavior: Any, at: str = "spec.behavior") -> Iterator[Cause]:
    """What Kubernetes refuses in `spec.behavior`."""
    for direction in ("scaleUp", "scaleDown"):
        rules, place = _dict(_dict(behavior).get(direction)), f"{at}.{direction}"
        if not rules:
            continue
        window, select = rules.get("stabilizationWindowSeconds"), rules.get("selectPolicy")
        if window is not None and not (_is_whole(window) and 0 <= window <= LONGEST_WINDOW):
            text = f"must be between 0 and {LONGEST_WINDOW}"
            yield invalid(f"{place}.stabilizationWindowSeconds", window, text)
        if select is not None and select not in _SELECTS:
            yield not_supported(f"{place}.selectPolicy", select, _SELECTS)
        tolerance = rules.get("tolerance")
        if tolerance is not None and not _amount(tolerance) >= 0:
            yield invalid(f"{place}.tolerance", tolerance, "must be greater than or equal to zero")
        if not _list(rules.get("policies")):
            yield required(f"{place}.policies", "must specify at least one Policy")
        for number, policy in enumerate(_list(rules.get("policies"))):
            yield from _policy_faults(_dict(policy), f"{place}.policies[{number}]")


def _policy_faults(policy: Json, at: str) -> Iterator[Cause]:
    kind, value, seconds = policy.get("type"), policy.get("value"), policy.get("periodSeconds")
    if kind not in _POLICIES:
        yield not_supported(f"{at}.type", kind, _POLICIES)
    if not (_is_whole(value) and value > 0):
        yield invalid(f"{at}.value", value, "must be greater than zero")
    if not (_is_whole(seconds) and 1 <= seconds <= LONGEST_PERIOD):
        yield invalid(f"{at}.periodSeconds", seconds, f"must be between 1 and {LONGEST_PERIOD}")


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _amount(value: Any) -> Fraction:
    """Less than nothing for what is no quantity."""
    try:
        return parse_quantity(value)
    except (TypeError, ValueError, AttributeError):
        return Fraction(-1)


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
