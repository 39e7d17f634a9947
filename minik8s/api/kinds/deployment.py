"""Deployment: moves a set of pods from one template to the next, and back."""

from __future__ import annotations

from minik8s.api.errors import Cause, forbidden, invalid, not_supported
from minik8s.api.kinds.columns import AGE, CONTAINERS, IMAGES, NAME, SELECTOR, dig, number
from minik8s.api.kinds.pod import PodTemplateSpec
from minik8s.api.kinds.workload import default_workload, is_zero, validate_share, validate_workload
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import Condition, IntOrString, LabelSelector, Object, Struct
from minik8s.api.resource import Column, Json, Resource, Scale


class RollingUpdateDeployment(Struct):
    maxUnavailable: IntOrString = "25%"
    maxSurge: IntOrString = "25%"


class DeploymentStrategy(Struct):
    type: str = "RollingUpdate"
    rollingUpdate: RollingUpdateDeployment | None = None


class DeploymentSpec(Struct):
    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    template: PodTemplateSpec = PodTemplateSpec()
    strategy: DeploymentStrategy = DeploymentStrategy()
    minReadySeconds: int = 0
    revisionHistoryLimit: int = 10
    paused: bool = False
    progressDeadlineSeconds: int = 600


class DeploymentStatus(Struct):
    observedGeneration: int = 0
    replicas: int = 0
    updatedReplicas: int = 0
    readyReplicas: int = 0
    availableReplicas: int = 0
    unavailableReplicas: int = 0
    terminatingReplicas: int | None = None
    collisionCount: int | None = None
    conditions: tuple[Condition, ...] = ()


class Deployment(Object):
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


STRATEGIES = ("Recreate", "RollingUpdate")


def _default(obj: Json) -> None:
    default_workload(obj)
    spec = obj["spec"]
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    fill(strategy, "type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        strategy["rollingUpdate"] = {"maxSurge": "25%", "maxUnavailable": "25%", **rolling}
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def _prepare(obj: Json, old: Json | None) -> None:
    if old is None:
        obj["status"] = {}


def _validate(obj: Json, old: Json | None) -> list[Cause]:
    causes, spec = list(validate_workload(obj, old)), obj["spec"]
    strategy = spec["strategy"]
    if strategy["type"] not in STRATEGIES:
        causes.append(not_supported("spec.strategy.type", strategy["type"], STRATEGIES))
    rolling = strategy.get("rollingUpdate")
    if strategy["type"] == "Recreate" and rolling:
        causes.append(
            forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
        )
    elif rolling:
        for name in ("maxUnavailable", "maxSurge"):
            causes += validate_share(rolling.get(name), f"spec.strategy.rollingUpdate.{name}", name)
        if is_zero(rolling.get("maxUnavailable")) and is_zero(rolling.get("maxSurge")):
            field = "spec.strategy.rollingUpdate.maxUnavailable"
            causes.append(invalid(field, rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0"))
    if spec["progressDeadlineSeconds"] <= spec.get("minReadySeconds", 0):
        field = "spec.progressDeadlineSeconds"
        causes.append(invalid(field, spec["progressDeadlineSeconds"], "must be greater than minReadySeconds"))
    return causes


def _ready(obj: Json, now: float) -> str:
    return f"{dig(obj, 'status.readyReplicas', 0)}/{dig(obj, 'spec.replicas', 0)}"


RESOURCE = Resource(
    kind="Deployment",
    plural="deployments",
    group="apps",
    type=Deployment,
    definition="io.k8s.api.apps.v1.Deployment",
    shortNames=("deploy",),
    categories=("all",),
    subresources=frozenset(("status", "scale")),
    scale=Scale(),
    columns=(
        NAME,
        Column("Ready", _ready, description="Ready pods of those wanted."),
        number("status.updatedReplicas", "Up-to-date", "Pods of the newest template."),
        number("status.availableReplicas", "Available", "Pods that have been ready for minReadySeconds."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    default=_default,
    validate=_validate,
    prepare=_prepare,
)
