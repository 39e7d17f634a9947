"""The section of `describe` for HorizontalPodAutoscalers: what is measured and wanted, how fast, and why so many."""

from __future__ import annotations

from typing import Any

from minik8s.cli.describe_text import NONE, Lines, head, when

Json = dict[str, Any]
UNKNOWN = "<unknown>"


def autoscaler(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    """Of autoscaling/v2."""
    spec, status = obj["spec"], obj.get("status") or {}
    head(lines, obj)
    lines.add("CreationTimestamp", when(obj["metadata"].get("creationTimestamp")))
    aim = spec["scaleTargetRef"]
    lines.add("Reference", f"{aim['kind']}/{aim['name']}")
    lines.add("Metrics", "( current / target )")
    for metric in spec.get("metrics") or ():
        lines.add(*_metric(metric, status.get("currentMetrics") or ()), level=1)
    lines.add("Min replicas", spec.get("minReplicas", UNKNOWN))
    lines.add("Max replicas", spec["maxReplicas"])
    if spec.get("behavior"):
        lines.text("Behavior:")
        for label, direction in (("Scale Up", "scaleUp"), ("Scale Down", "scaleDown")):
            _rules(lines, label, spec["behavior"].get(direction) or {})
    counts = f"{status.get('currentReplicas', 0)} current / {status.get('desiredReplicas', 0)} desired"
    lines.add(f"{aim['kind']} pods", counts)
    if status.get("lastScaleTime"):
        lines.add("Last scaled", when(status["lastScaleTime"]))
    if status.get("conditions"):
        lines.text("Conditions:")
        rows = [(c["type"], c["status"], c.get("reason", ""), c.get("message", "")) for c in status["conditions"]]
        lines.table(1, ("Type", "Status", "Reason", "Message"), rows)


def _metric(metric: Json, measured: Any) -> tuple[str, str]:
    """A metric's label, and what it is and should be."""
    source, container = _source(metric)
    if source is None:
        return f"metric of type {metric.get('type')}", UNKNOWN
    name = source["name"]
    where = f"container {container} of pods" if container else "pods"
    seen = next(
        (found.get("current") or {} for found in map(_named, measured) if found["key"] == (name, container)), {}
    )
    average, target = seen.get("averageValue", UNKNOWN), source.get("target") or {}
    if target.get("averageUtilization") is None:
        return f"resource {name} on {where}", f"{average} / {target.get('averageValue', UNKNOWN)}"
    share = f"{seen['averageUtilization']}% ({average})" if "averageUtilization" in seen else UNKNOWN
    return f"resource {name} on {where}  (as a percentage of request)", f"{share} / {target['averageUtilization']}%"


def _source(metric: Json) -> tuple[Json | None, str]:
    """What a metric tells of resources, and of which container alone if it is one's."""
    source = metric.get("resource") or metric.get("containerResource")
    return source, (source or {}).get("container", "")


def _named(metric: Json) -> Json:
    """A measured metric with what tells it from others."""
    source, container = _source(metric)
    return {**(source or {}), "key": ((source or {}).get("name"), container)}


def _rules(lines: Lines, label: str, rules: Json) -> None:
    lines.text(f"{label}:", 1)
    window = rules.get("stabilizationWindowSeconds")
    lines.add("Stabilization Window", f"{window if window is not None else 0} seconds", 2)
    lines.add("Select Policy", rules.get("selectPolicy") or "Max", 2)
    policies = rules.get("policies") or ()
    lines.add("Policies", "" if policies else NONE, 2)
    for policy in policies:
        lines.text(f"- Type: {policy['type']}  Value: {policy['value']}  Period: {policy['periodSeconds']} seconds", 3)
