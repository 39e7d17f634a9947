"""ReplicaSet: keeps a number of equal pods running."""

from __future__ import annotations

from minik8s.api.kinds.pod import PodTemplateSpec
from minik8s.api.meta import Condition, LabelSelector, Object, Struct
from minik8s.api.resource import Resource, Scale


class ReplicaSetSpec(Struct):
    replicas: int = 1
    minReadySeconds: int = 0
    selector: LabelSelector = LabelSelector()
    template: PodTemplateSpec = PodTemplateSpec()


class ReplicaSetStatus(Struct):
    replicas: int = 0
    fullyLabeledReplicas: int = 0
    readyReplicas: int = 0
    availableReplicas: int = 0
    terminatingReplicas: int | None = None
    observedGeneration: int = 0
    conditions: tuple[Condition, ...] = ()


class ReplicaSet(Object):
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatus = ReplicaSetStatus()


RESOURCE = Resource(
    kind="ReplicaSet",
    plural="replicasets",
    group="apps",
    type=ReplicaSet,
    definition="io.k8s.api.apps.v1.ReplicaSet",
    shortNames=("rs",),
    categories=("all",),
    subresources=frozenset(("status", "scale")),
    scale=Scale(),
)
