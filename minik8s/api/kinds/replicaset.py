"""ReplicaSet: keeps a number of equal pods running."""

from __future__ import annotations

from minik8s.api.errors import Cause
from minik8s.api.kinds.columns import AGE, CONTAINERS, IMAGES, NAME, SELECTOR, number
from minik8s.api.kinds.pod import PodTemplateSpec
from minik8s.api.kinds.workload import default_workload, validate_workload
from minik8s.api.meta import Condition, LabelSelector, Object, Struct
from minik8s.api.resource import Json, Resource, Scale


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


def _default(obj: Json) -> None:
    default_workload(obj)
    obj["spec"].setdefault("replicas", 1)


def _prepare(obj: Json, old: Json | None) -> None:
    if old is None:
        obj["status"] = {"replicas": 0}


def _validate(obj: Json, old: Json | None) -> list[Cause]:
    return list(validate_workload(obj, old))


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
    columns=(
        NAME,
        number("spec.replicas", "Desired", "Pods wanted."),
        number("status.replicas", "Current", "Pods there."),
        number("status.readyReplicas", "Ready", "Pods that are ready."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    default=_default,
    validate=_validate,
    prepare=_prepare,
    selectable={"status.replicas": lambda obj: str((obj.get("status") or {}).get("replicas", 0))},
)
