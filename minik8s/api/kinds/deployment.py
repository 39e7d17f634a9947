"""Deployment: moves a set of pods from one template to the next, and back."""

from __future__ import annotations

from minik8s.api.kinds.pod import PodTemplateSpec
from minik8s.api.meta import Condition, IntOrString, LabelSelector, Object, Struct
from minik8s.api.resource import Resource, Scale


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
)
