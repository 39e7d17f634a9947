"""DaemonSet: one pod on every node that fits."""

from __future__ import annotations

from minik8s.api.kinds.pod import PodTemplateSpec
from minik8s.api.meta import Condition, IntOrString, LabelSelector, Object, Struct
from minik8s.api.resource import Resource


class RollingUpdateDaemonSet(Struct):
    maxUnavailable: IntOrString = 1
    maxSurge: IntOrString = 0


class DaemonSetUpdateStrategy(Struct):
    type: str = "RollingUpdate"
    rollingUpdate: RollingUpdateDaemonSet | None = None


class DaemonSetSpec(Struct):
    selector: LabelSelector = LabelSelector()
    template: PodTemplateSpec = PodTemplateSpec()
    updateStrategy: DaemonSetUpdateStrategy = DaemonSetUpdateStrategy()
    minReadySeconds: int = 0
    revisionHistoryLimit: int = 10


class DaemonSetStatus(Struct):
    currentNumberScheduled: int = 0
    desiredNumberScheduled: int = 0
    numberMisscheduled: int = 0
    numberReady: int = 0
    updatedNumberScheduled: int = 0
    numberAvailable: int = 0
    numberUnavailable: int = 0
    observedGeneration: int = 0
    collisionCount: int | None = None
    conditions: tuple[Condition, ...] = ()


class DaemonSet(Object):
    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()


RESOURCE = Resource(
    kind="DaemonSet",
    plural="daemonsets",
    group="apps",
    type=DaemonSet,
    definition="io.k8s.api.apps.v1.DaemonSet",
    shortNames=("ds",),
    categories=("all",),
    subresources=frozenset(("status",)),
)
