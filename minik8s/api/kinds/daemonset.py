"""DaemonSet: one pod on every node that fits."""

from __future__ import annotations

from minik8s.api.errors import Cause, invalid, not_supported
from minik8s.api.kinds.columns import AGE, CONTAINERS, IMAGES, NAME, SELECTOR, dig, labels_text, number
from minik8s.api.kinds.pod import PodTemplateSpec
from minik8s.api.kinds.workload import default_workload, is_zero, validate_share, validate_workload
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import Condition, IntOrString, LabelSelector, Object, Struct
from minik8s.api.resource import Column, Json, Resource


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


STRATEGIES = ("OnDelete", "RollingUpdate")


def _default(obj: Json) -> None:
    default_workload(obj)
    spec = obj["spec"]
    strategy = spec.setdefault("updateStrategy", {})
    fill(strategy, "type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        strategy["rollingUpdate"] = {"maxSurge": 0, "maxUnavailable": 1, **(strategy.get("rollingUpdate") or {})}
    spec.setdefault("revisionHistoryLimit", 10)


def _prepare(obj: Json, old: Json | None) -> None:
    if old is None:
        counts = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
        obj["status"] = dict.fromkeys(counts, 0)


def _validate(obj: Json, old: Json | None) -> list[Cause]:
    causes = list(validate_workload(obj, old))
    strategy = obj["spec"]["updateStrategy"]
    if strategy["type"] not in STRATEGIES:
        causes.append(not_supported("spec.updateStrategy.type", strategy["type"], STRATEGIES))
    rolling = strategy.get("rollingUpdate")
    if rolling and strategy["type"] == "RollingUpdate":  # with OnDelete it means nothing
        for name in ("maxUnavailable", "maxSurge"):
            causes += validate_share(rolling[name], f"spec.updateStrategy.rollingUpdate.{name}", name)
        if is_zero(rolling["maxUnavailable"]) == is_zero(rolling["maxSurge"]):
            field = "spec.updateStrategy.rollingUpdate.maxUnavailable"
            causes.append(
                invalid(field, rolling["maxUnavailable"], "exactly one of it and maxSurge must be more than 0")
            )
    return causes


RESOURCE = Resource(
    kind="DaemonSet",
    plural="daemonsets",
    group="apps",
    type=DaemonSet,
    definition="io.k8s.api.apps.v1.DaemonSet",
    shortNames=("ds",),
    categories=("all",),
    subresources=frozenset(("status",)),
    columns=(
        NAME,
        number("status.desiredNumberScheduled", "Desired", "Nodes that should run it."),
        number("status.currentNumberScheduled", "Current", "Nodes that run it."),
        number("status.numberReady", "Ready", "Nodes where it is ready."),
        number("status.updatedNumberScheduled", "Up-to-date", "Nodes with the newest template."),
        number("status.numberAvailable", "Available", "Nodes where it is available."),
        Column(
            "Node Selector",
            lambda obj, now: labels_text(dig(obj, "spec.template.spec.nodeSelector", {})),
            description="Which nodes.",
        ),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    default=_default,
    validate=_validate,
    prepare=_prepare,
)
