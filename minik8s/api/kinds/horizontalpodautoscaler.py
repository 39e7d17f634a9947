"""HorizontalPodAutoscaler: scales a workload by what its pods use; stored as autoscaling/v2."""

from __future__ import annotations

from typing import Any

import msgspec

from minik8s.api.autoscaling import SYNC_PERIOD, sync_period
from minik8s.api.autoscaling_faults import behavior_faults, metric_faults
from minik8s.api.errors import BadRequest, Cause, invalid, required
from minik8s.api.kinds.columns import AGE, NAME, dig, number
from minik8s.api.meta import Condition, Object, Struct
from minik8s.api.resource import Alias, Column, Json, Resource


class CrossVersionObjectReference(Struct):
    apiVersion: str = ""
    kind: str = ""
    name: str = ""


class HorizontalPodAutoscalerSpec(Struct):
    scaleTargetRef: CrossVersionObjectReference = CrossVersionObjectReference()
    minReplicas: int = 1
    maxReplicas: int = 0
    metrics: tuple[dict[str, Any], ...] = ()
    behavior: dict[str, Any] | None = None


class HorizontalPodAutoscalerStatus(Struct):
    observedGeneration: int = 0
    lastScaleTime: str = ""
    currentReplicas: int = 0
    desiredReplicas: int = 0
    currentMetrics: tuple[dict[str, Any], ...] = ()
    conditions: tuple[Condition, ...] = ()


class HorizontalPodAutoscaler(Object):
    spec: HorizontalPodAutoscalerSpec = HorizontalPodAutoscalerSpec()
    status: HorizontalPodAutoscalerStatus = HorizontalPodAutoscalerStatus()


DEFAULT_CPU_UTILIZATION = 80  # percent; autoscaling/v2 defaults
SCALE_DOWN_PODS_PERIOD = 15  # seconds
# What autoscaling/v1 has no field for travels in annotations, under Kubernetes' own names.
V1_ANNOTATIONS = {
    "metrics": "autoscaling.alpha.kubernetes.io/metrics",
    "behavior": "autoscaling.alpha.kubernetes.io/behavior",
}
_ANNOTATED: dict[str, Any] = {"metrics": list[dict[str, Any]], "behavior": dict[str, Any]}


def _default(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": DEFAULT_CPU_UTILIZATION}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is None:
        return
    percent = {"type": "Percent", "value": 100, "periodSeconds": SCALE_DOWN_PODS_PERIOD}
    pods = {"type": "Pods", "value": 4, "periodSeconds": SCALE_DOWN_PODS_PERIOD}
    up = behavior.get("scaleUp") or {}
    behavior["scaleUp"] = {
        "stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent], **up
    }  # fmt: skip
    down = behavior.get("scaleDown") or {}
    behavior["scaleDown"] = {"selectPolicy": "Max", "policies": [percent], **down}


def _validate(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj["spec"]
    causes = []
    low, high = spec["minReplicas"], spec.get("maxReplicas", 0)
    if low < 1:
        causes.append(invalid("spec.minReplicas", low, "must be greater than or equal to 1"))
    if high < 1:
        causes.append(invalid("spec.maxReplicas", high, "must be greater than 0"))
    elif high < low:
        causes.append(invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
    for name in ("kind", "name"):
        if not dig(spec, f"scaleTargetRef.{name}"):
            causes.append(required(f"spec.scaleTargetRef.{name}"))
    causes += [*metric_faults(spec.get("metrics")), *behavior_faults(spec.get("behavior"))]
    annotations = obj["metadata"].get("annotations") or {}
    try:
        sync_period(annotations)
    except ValueError as error:
        field = f"metadata.annotations[{SYNC_PERIOD}]"
        causes.append(invalid(field, annotations[SYNC_PERIOD], str(error)))
    return causes


def _prepare(obj: Json, old: Json | None) -> None:
    if old is None:
        obj["status"] = {"desiredReplicas": 0, "currentReplicas": 0}


def _reference(obj: Json, now: float) -> str:
    return f"{dig(obj, 'spec.scaleTargetRef.kind', '')}/{dig(obj, 'spec.scaleTargetRef.name', '')}"


def _source(metric: Json) -> Json:
    return metric.get("resource") or metric.get("containerResource") or {}


def _measure(metric: Json) -> str:
    source = _source(metric)
    name, container = str(source.get("name") or metric.get("type", "")), source.get("container")
    return f"{container}/{name}" if container else name


def _targets(obj: Json, now: float) -> str:
    current = {_measure(m): _source(m).get("current", {}) for m in dig(obj, "status.currentMetrics", ())}
    texts = []
    for metric in dig(obj, "spec.metrics", ()):
        name, target = _measure(metric), _source(metric).get("target") or {}
        seen = current.get(name, {})
        if target.get("averageUtilization") is not None:
            now_text = f"{seen['averageUtilization']}%" if "averageUtilization" in seen else "<unknown>"
            texts.append(f"{name}: {now_text}/{target['averageUtilization']}%")
        else:
            texts.append(f"{name}: {seen.get('averageValue', '<unknown>')}/{target.get('averageValue', '<unknown>')}")
    return ", ".join(texts) or "<none>"


def _to_v1(obj: Json) -> Json:
    """v1 knows one thing: the CPU's utilisation; the rest goes into annotations."""
    spec, rest = dict(obj.get("spec") or {}), {}
    cpu = next((m for m in spec.get("metrics") or () if _is_cpu(m)), None)
    others = [m for m in spec.pop("metrics", None) or () if m is not cpu]
    if cpu:
        spec["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"]
    if others:
        rest["metrics"] = others
    if behavior := spec.pop("behavior", None):
        rest["behavior"] = behavior
    status = {k: v for k, v in (obj.get("status") or {}).items() if k not in ("currentMetrics", "conditions")}
    seen = next((m for m in dig(obj, "status.currentMetrics", ()) if dig(m, "resource.name") == "cpu"), None)
    if seen and dig(seen, "resource.current.averageUtilization") is not None:
        status["currentCPUUtilizationPercentage"] = dig(seen, "resource.current.averageUtilization")
    meta = dict(obj["metadata"])
    if rest:
        texts = {V1_ANNOTATIONS[k]: msgspec.json.encode(v).decode() for k, v in rest.items()}
        meta["annotations"] = {**(meta.get("annotations") or {}), **texts}
    return {**obj, "metadata": meta, "spec": spec, "status": status}


def _from_v1(obj: Json) -> Json:
    spec, meta = dict(obj.get("spec") or {}), dict(obj.get("metadata") or {})
    annotations = dict(meta.get("annotations") or {})
    rest: Json = {}
    for key, name in V1_ANNOTATIONS.items():
        text = annotations.pop(name, None)
        if text is not None:
            try:
                rest[key] = msgspec.json.decode(text, type=_ANNOTATED[key])
            except msgspec.DecodeError as error:  # a ValidationError is one
                raise BadRequest(f"metadata.annotations[{name}]: {error}") from None
    metrics = rest.pop("metrics", [])
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        metrics = [*metrics, {"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if metrics:
        rest["metrics"] = metrics
    if "annotations" in meta:
        meta["annotations"] = annotations
    status = {k: v for k, v in (obj.get("status") or {}).items() if k != "currentCPUUtilizationPercentage"}
    return {**obj, "metadata": meta, "spec": spec | rest} | ({"status": status} if status else {})


def _is_cpu(metric: Json) -> bool:
    utilization = dig(metric, "resource.target.averageUtilization")
    return dig(metric, "resource.name") == "cpu" and utilization is not None


RESOURCE = Resource(
    kind="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    group="autoscaling",
    version="v2",
    type=HorizontalPodAutoscaler,
    definition="io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    shortNames=("hpa",),
    categories=("all",),
    subresources=frozenset(("status",)),
    columns=(
        NAME,
        Column("Reference", _reference, description="What is scaled."),
        Column("Targets", _targets, description="Measured and wanted."),
        number("spec.minReplicas", "MinPods", "At least."),
        number("spec.maxReplicas", "MaxPods", "At most."),
        number("status.currentReplicas", "Replicas", "Now."),
        AGE,
    ),
    default=_default,
    validate=_validate,
    prepare=_prepare,
    aliases=(
        Alias("autoscaling", "v1", "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler", to=_to_v1, back=_from_v1),
    ),
)
