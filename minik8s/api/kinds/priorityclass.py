"""PriorityClass: a name for a pod's priority."""

from __future__ import annotations

from minik8s.api.meta import Object
from minik8s.api.resource import Resource


class PriorityClass(Object):
    value: int = 0
    globalDefault: bool = False
    description: str = ""
    preemptionPolicy: str = "PreemptLowerPriority"


RESOURCE = Resource(
    kind="PriorityClass",
    plural="priorityclasses",
    group="scheduling.k8s.io",
    type=PriorityClass,
    definition="io.k8s.api.scheduling.v1.PriorityClass",
    shortNames=("pc",),
    namespaced=False,
    spec_generation=False,
)
