"""Job: runs pods until enough of them have succeeded."""

from __future__ import annotations

import re
from collections.abc import Iterator

from minik8s.api.errors import Cause, invalid, not_supported, required
from minik8s.api.kinds.columns import AGE, CONTAINERS, IMAGES, NAME, SELECTOR, condition, dig, duration
from minik8s.api.kinds.pod import PodTemplateSpec
from minik8s.api.kinds.pod_defaults import default_template
from minik8s.api.kinds.workload import validate_selector, validate_template
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import Condition, LabelSelector, Object, Struct
from minik8s.api.resource import Column, Json, Resource
from minik8s.clock import parse_time


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


class SuccessPolicyRule(Struct):
    succeededIndexes: str = ""  # as 0-2,5; "" = any
    succeededCount: int | None = None


class SuccessPolicy(Struct):
    rules: tuple[SuccessPolicyRule, ...] = ()


class JobSpec(Struct):
    parallelism: int | None = None
    completions: int | None = None
    activeDeadlineSeconds: int | None = None
    podFailurePolicy: PodFailurePolicy | None = None
    successPolicy: SuccessPolicy | None = None
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


MODES = ("Indexed", "NonIndexed")
COUNTS = ("parallelism", "completions", "backoffLimit", "backoffLimitPerIndex", "maxFailedIndexes",
          "activeDeadlineSeconds", "ttlSecondsAfterFinished")  # fmt: skip
NO_LIMIT = 2**31 - 1  # of failures in all, where each index has a limit of its own
MOST_RULES = 20
INDEXES = re.compile(r"\d{1,10}(-\d{1,10})?(,\d{1,10}(-\d{1,10})?)*", re.ASCII)


def _default(job: Json) -> None:
    spec = job.setdefault("spec", {})
    default_template(spec.setdefault("template", {}))
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
    spec.setdefault("backoffLimit", 6 if spec.get("backoffLimitPerIndex") is None else NO_LIMIT)
    fill(spec, "completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    fill(spec, "podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")


def _prepare(job: Json, old: Json | None) -> None:
    """A job's pods are told by its uid, unless somebody insists on an own selector.

    A job without labels bears its template's, as Kubernetes' SetDefaults_Job gives them.
    """
    spec, meta = job["spec"], job["metadata"]
    if old is not None:
        return
    job["status"] = {}
    labels = dict((spec["template"].get("metadata") or {}).get("labels") or {})
    name = meta.get("name") or ""  # that a job has none is for validation to tell, which comes next
    labels |= {"job-name": name, "batch.kubernetes.io/job-name": name}
    if not spec.get("manualSelector"):
        labels |= {"controller-uid": meta["uid"], "batch.kubernetes.io/controller-uid": meta["uid"]}
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": meta["uid"]}}
    spec["template"].setdefault("metadata", {})["labels"] = labels
    if not meta.get("labels"):
        meta["labels"] = dict(labels)


def _validate(job: Json, old: Json | None) -> list[Cause]:
    spec = job["spec"]
    causes = list(validate_template(spec.get("template"), ("Never", "OnFailure")))
    for name in COUNTS:
        if spec.get(name) is not None and spec[name] < 0:
            causes.append(invalid(f"spec.{name}", spec[name], "must be greater than or equal to 0"))
    if spec["completionMode"] not in MODES:
        causes.append(not_supported("spec.completionMode", spec["completionMode"], MODES))
    elif spec["completionMode"] == "Indexed" and spec.get("completions") is None:
        causes.append(required("spec.completions", "when completion mode is Indexed"))
    if spec.get("manualSelector"):
        causes += validate_selector(spec.get("selector"), "spec.selector")
    policies = ("Failed",) if spec.get("podFailurePolicy") else ("Failed", "TerminatingOrFailed")
    if spec["podReplacementPolicy"] not in policies:
        causes.append(not_supported("spec.podReplacementPolicy", spec["podReplacementPolicy"], policies))
    if spec.get("podFailurePolicy") and dig(spec, "template.spec.restartPolicy") != "Never":
        causes.append(invalid("spec.template.spec.restartPolicy", dig(spec, "template.spec.restartPolicy"),
                              "only \"Never\" is supported when podFailurePolicy is specified"))  # fmt: skip
    causes += [*_validate_indexes(spec), *_validate_success(spec)]
    if old is not None:
        for name in ("completions", "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex",
                     "successPolicy"):  # fmt: skip
            if dig(old, f"spec.{name}") != spec.get(name):
                causes.append(invalid(f"spec.{name}", str(spec.get(name)), "field is immutable"))
        if (
            not spec.get("suspend")
            and not dig(old, "spec.suspend")
            and dig(old, "spec.template") != spec.get("template")
        ):
            causes.append(invalid("spec.template", "…", "field is immutable"))
    return causes


def _validate_indexes(spec: Json) -> Iterator[Cause]:
    """What counts failures for each index."""
    limit, most, completions = spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"), spec.get("completions")
    if limit is not None and spec["completionMode"] != "Indexed":
        yield invalid("spec.backoffLimitPerIndex", limit, "requires indexed completion mode")
    if limit is not None and dig(spec, "template.spec.restartPolicy") != "Never":
        yield invalid("spec.template.spec.restartPolicy", dig(spec, "template.spec.restartPolicy"),
                      'only "Never" is supported when backoffLimitPerIndex is specified')  # fmt: skip
    if most is not None and limit is None:
        yield required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if most is not None and completions is not None and most > completions:
        yield invalid("spec.maxFailedIndexes", most, "must be less than or equal to completions")
    for number, rule in enumerate(dig(spec, "podFailurePolicy.rules") or ()):
        if rule.get("action") == "FailIndex" and limit is None:
            yield invalid(f"spec.podFailurePolicy.rules[{number}].action", "FailIndex",
                          "requires the backoffLimitPerIndex to be set")  # fmt: skip


def _validate_success(spec: Json) -> Iterator[Cause]:
    policy = spec.get("successPolicy")
    if policy is None:
        return
    if spec["completionMode"] != "Indexed":
        yield invalid("spec.successPolicy", "…", "requires indexed completion mode")
    if len(policy.get("rules") or ()) > MOST_RULES:
        yield invalid("spec.successPolicy.rules", len(policy["rules"]), f"must have at most {MOST_RULES} items")
    if not policy.get("rules"):
        yield required(
            "spec.successPolicy.rules", "at least one rules must be specified when the successPolicy is specified"
        )
    for number, rule in enumerate(policy.get("rules") or ()):
        field = f"spec.successPolicy.rules[{number}]"
        count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
        if count is None and indexes is None:
            yield required(field, "at least one of succeededCount or succeededIndexes must be specified")
        if count is not None and not 0 < count <= (spec.get("completions") or 0):
            yield invalid(f"{field}.succeededCount", count, "must be greater than 0 and at most completions")
        if indexes is not None and (wrong := _indexes_problem(indexes, spec.get("completions") or 0)):
            yield invalid(f"{field}.succeededIndexes", indexes, wrong)


def _indexes_problem(text: str, completions: int) -> str:
    """What is wrong with `0-2,5`; "" for nothing."""
    if not INDEXES.fullmatch(text):
        return "must be indexes and ranges of them, as in 0-2,5"
    before = -1
    for part in text.split(","):
        first, _, last = part.partition("-")
        if int(first) <= before or int(last or first) < int(first):
            return "must be in increasing order"
        before = int(last or first)
    return "" if before < completions else "must be less than completions"


def _status(job: Json, now: float) -> str:
    for type, text in (("Complete", "Complete"), ("Failed", "Failed"), ("Suspended", "Suspended")):
        if (condition(job, type) or {}).get("status") == "True":
            return text
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for type in ("FailureTarget", "SuccessCriteriaMet"):
        if (condition(job, type) or {}).get("status") == "True":
            return type
    return "Running"


def _completions(job: Json, now: float) -> str:
    done, spec = dig(job, "status.succeeded", 0), job["spec"]
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _duration(job: Json, now: float) -> str:
    start = dig(job, "status.startTime")
    if not start:
        return ""
    end = dig(job, "status.completionTime") or (condition(job, "Failed") or {}).get("lastTransitionTime")
    return duration((parse_time(end) if end else now) - parse_time(start))


RESOURCE = Resource(
    kind="Job",
    plural="jobs",
    group="batch",
    type=Job,
    definition="io.k8s.api.batch.v1.Job",
    categories=("all",),
    subresources=frozenset(("status",)),
    columns=(
        NAME,
        Column("Status", _status, description="Running, Complete, Failed, Suspended."),
        Column("Completions", _completions, description="Pods that succeeded, of those wanted."),
        Column("Duration", _duration, description="From the first pod to the end, or to now."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    default=_default,
    validate=_validate,
    prepare=_prepare,
    selectable={"status.successful": lambda job: str(dig(job, "status.succeeded", 0))},
)
