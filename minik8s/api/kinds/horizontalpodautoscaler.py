"""HorizontalPodAutoscaler: scales a workload by what its pods use; stored as autoscaling/v2."""

from __future__ import annotations

from typing import Any

from minik8s.api.meta import Condition, Object, Struct
from minik8s.api.resource import Resource


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
)
