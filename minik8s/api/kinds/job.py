"""Job: runs pods until enough of them have succeeded."""

from __future__ import annotations

from minik8s.api.kinds.pod import PodTemplateSpec
from minik8s.api.meta import Condition, LabelSelector, Object, Struct
from minik8s.api.resource import Resource


class PodFailurePolicyOnExitCodes(Struct):
    containerName: str = ""
    operator: str = ""  # In | NotIn
    values: tuple[int, ...] = ()


class PodFailurePolicyOnPodCondition(Struct):
    type: str = ""
    status: str = "True"


class PodFailurePolicyRule(Struct):
    action: str = ""  # FailJob | FailIndex | Ignore | Count
    onExitCodes: PodFailurePolicyOnExitCodes | None = None
    onPodConditions: tuple[PodFailurePolicyOnPodCondition, ...] = ()


class PodFailurePolicy(Struct):
    rules: tuple[PodFailurePolicyRule, ...] = ()


class JobSpec(Struct):
    parallelism: int | None = None
    completions: int | None = None
    activeDeadlineSeconds: int | None = None
    podFailurePolicy: PodFailurePolicy | None = None
    backoffLimit: int = 6
    backoffLimitPerIndex: int | None = None
    maxFailedIndexes: int | None = None
    selector: LabelSelector | None = None
    manualSelector: bool = False
    template: PodTemplateSpec = PodTemplateSpec()
    ttlSecondsAfterFinished: int | None = None
    completionMode: str = "NonIndexed"
    suspend: bool = False
    podReplacementPolicy: str = ""


class UncountedTerminatedPods(Struct):
    succeeded: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class JobStatus(Struct):
    conditions: tuple[Condition, ...] = ()
    startTime: str = ""
    completionTime: str = ""
    active: int = 0
    ready: int | None = None
    terminating: int | None = None
    succeeded: int = 0
    failed: int = 0
    completedIndexes: str = ""
    failedIndexes: str = ""
    uncountedTerminatedPods: UncountedTerminatedPods | None = None


class Job(Object):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


RESOURCE = Resource(
    kind="Job",
    plural="jobs",
    group="batch",
    type=Job,
    definition="io.k8s.api.batch.v1.Job",
    categories=("all",),
    subresources=frozenset(("status",)),
)
