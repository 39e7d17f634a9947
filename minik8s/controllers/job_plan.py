"""What a Job's pods amount to, whether it is over, and how many pods it wants now. Pure.

Every pod carries a finalizer until it has been counted, so that none is missed and none counted twice whatever is cut
off when. The rules are Kubernetes' (pkg/controller/job).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from minik8s.api.kinds.job import Job, PodFailurePolicyRule, UncountedTerminatedPods
from minik8s.api.kinds.pod import ContainerStatus, Pod
from minik8s.api.meta import condition, is_true
from minik8s.clock import parse_time
from minik8s.controllers.job_indexes import counts_per_index, failures_before, index_of, is_indexed, parse, ranges
from minik8s.controllers.pod_facts import is_finished, is_ready

TRACKING = "batch.kubernetes.io/job-tracking"
FIRST_BACKOFF = 10.0  # seconds after the first failure; doubled with each further one
LAST_BACKOFF = 600.0
UNCOUNTED_LIMIT = 500  # pods accounted for in one write, as Kubernetes


class Verdict(NamedTuple):
    """Why a Job is over: the condition that says so first (FailureTarget or SuccessCriteriaMet) and its words."""

    type: str
    reason: str
    message: str

    @property
    def final(self) -> str:
        """The condition that follows when the last pod has ended."""
        return "Complete" if self.type == "SuccessCriteriaMet" else "Failed"


@dataclass(frozen=True)
class Tally:
    """A Job's pods, sorted. `succeeded` and `failed` include pods that are not in the status' counters yet."""

    active: list[Pod] = field(default_factory=list)
    terminating: list[Pod] = field(default_factory=list)
    succeeded: int = 0
    failed: int = 0
    fresh: UncountedTerminatedPods = UncountedTerminatedPods()  # to be counted: uids known to the status and new ones
    settled: list[Pod] = field(default_factory=list)  # have ended and still carry the finalizer
    indexes: frozenset[int] = frozenset()  # completed ones, of an Indexed Job
    failed_indexes: frozenset[int] = frozenset()  # that have no further try, where failures count for each index
    waiting: Mapping[int, Pod] = field(default_factory=dict)  # index -> its failed pod, to be followed by another
    verdict: Verdict | None = None  # by the podFailurePolicy

    @property
    def ready(self) -> int:
        return sum(is_ready(pod) for pod in self.active)


def is_over(job: Job) -> bool:
    return is_true(job.status.conditions, "Complete") or is_true(job.status.conditions, "Failed")


def replaces_failed_only(job: Job) -> bool:
    """Whether a pod that is going away is waited for until it has really ended."""
    return job.spec.podReplacementPolicy == "Failed" or job.spec.podFailurePolicy is not None


def has_failed(job: Job, pod: Pod) -> bool:
    if pod.status.phase == "Failed":
        return True
    return pod.deleting and pod.status.phase != "Succeeded" and not replaces_failed_only(job)


def tally(job: Job, pods: Iterable[Pod], *, over: bool = False) -> Tally:
    """`over`: no failed pod will be followed by another any more."""
    pods = sorted(pods, key=lambda each: each.metadata.name)
    broken = _failed_indexes(job, pods)
    waiting = {} if over else _waiting(job, pods, broken)
    known = job.status.uncountedTerminatedPods or UncountedTerminatedPods()
    succeeded, failed = set(known.succeeded), set(known.failed)
    active, terminating, settled = [], [], []
    done = parse(job.status.completedIndexes) if is_indexed(job) else set()
    verdict, to_come = None, 0
    for pod in pods:
        uid, tracked = pod.metadata.uid, TRACKING in pod.metadata.finalizers
        room = len(succeeded) + len(failed) < UNCOUNTED_LIMIT
        if pod.status.phase == "Succeeded":
            if tracked and (uid in succeeded or room):
                settled.append(pod)
                if not is_indexed(job) or _is_new_index(job, pod, done):
                    succeeded.add(uid)
        elif has_failed(job, pod):
            action, why = failure_action(job, pod)
            verdict = verdict or why
            if pod is waiting.get(index_of(pod)):
                to_come += action != "Ignore"
            elif tracked and (uid in failed or room):
                settled.append(pod)
                if action != "Ignore":
                    failed.add(uid)
        elif pod.deleting:
            terminating.append(pod)
        else:
            active.append(pod)
        if pod.deleting and not is_finished(pod) and pod not in terminating:
            terminating.append(pod)
    return Tally(
        active=active,
        terminating=terminating,
        succeeded=len(done) if is_indexed(job) else job.status.succeeded + len(succeeded),
        failed=job.status.failed + len(failed) + to_come,
        fresh=UncountedTerminatedPods(tuple(sorted(succeeded)), tuple(sorted(failed))),
        settled=settled,
        indexes=frozenset(done),
        failed_indexes=frozenset(broken),
        waiting=waiting,
        verdict=verdict,
    )


def _is_new_index(job: Job, pod: Pod, done: set[int]) -> bool:
    """Note the index of a succeeded pod; False if it counts for nothing: out of range, or done before."""
    index = index_of(pod)
    if not 0 <= index < (job.spec.completions or 0) or index in done:
        return False
    done.add(index)
    return True


# -- backoffLimitPerIndex


def failures_of(job: Job, pod: Pod) -> tuple[int, int]:
    """How often the index of a failed pod has failed by now: what counts, and what the failure policy ignored."""
    counted, ignored = failures_before(pod)
    return (counted, ignored + 1) if failure_action(job, pod)[0] == "Ignore" else (counted + 1, ignored)


def _failed_indexes(job: Job, pods: Iterable[Pod]) -> set[int]:
    """Those known to the status, and those of failed pods that were the last try."""
    if not counts_per_index(job):
        return set()
    lost = (pod for pod in pods if TRACKING in pod.metadata.finalizers and has_failed(job, pod))
    found = parse(job.status.failedIndexes) | {index_of(pod) for pod in lost if _is_last_try(job, pod)}
    return {index for index in found if 0 <= index < (job.spec.completions or 0)}


def _is_last_try(job: Job, pod: Pod) -> bool:
    action, _ = failure_action(job, pod)
    limit = job.spec.backoffLimitPerIndex or 0
    return action == "FailIndex" or (action != "Ignore" and failures_of(job, pod)[0] > limit)


def _waiting(job: Job, pods: Sequence[Pod], broken: set[int]) -> dict[int, Pod]:
    """By index the failed pod that another is to follow. It keeps its finalizer till then: it alone knows the count."""
    if not counts_per_index(job):
        return {}
    others = {index_of(pod) for pod in pods if not has_failed(job, pod)}  # runs, or has succeeded
    found: dict[int, Pod] = {}
    for pod in pods:
        index = index_of(pod)
        if TRACKING not in pod.metadata.finalizers or not has_failed(job, pod) or index in broken | others | {-1}:
            continue
        if index not in found or sum(failures_before(pod)) > sum(failures_before(found[index])):
            found[index] = pod
    done = parse(job.status.completedIndexes)
    return {index: pod for index, pod in found.items() if index not in done}


def index_backoffs(job: Job, known: Tally, now: float) -> dict[int, float]:
    """Seconds until the next try of each index that must wait for it."""
    waits = {
        index: finish_time(pod, now) + _delay(sum(failures_of(job, pod))) - now for index, pod in known.waiting.items()
    }
    return {index: wait for index, wait in waits.items() if wait > 0}


# -- successPolicy


def success_rule(job: Job, done: frozenset[int]) -> int | None:
    """The number of the first rule that the completed indexes fulfil."""
    policy = job.spec.successPolicy
    ordered = sorted(done)
    for number, rule in enumerate(policy.rules if policy is not None and is_indexed(job) else ()):
        asked = ranges(rule.succeededIndexes or f"0-{(job.spec.completions or 0) - 1}")
        met = sum(bisect_right(ordered, last) - bisect_left(ordered, first) for first, last in asked)
        if met >= (rule.succeededCount or sum(last - first + 1 for first, last in asked)):
            return number
    return None


# -- podFailurePolicy


def failure_action(job: Job, pod: Pod) -> tuple[str, Verdict | None]:
    """What the first matching rule says to do about a failed pod (`Count` if none does), and the verdict of FailJob."""
    policy = job.spec.podFailurePolicy
    for index, rule in enumerate(policy.rules if policy is not None and pod.status.phase == "Failed" else ()):
        told = _match(rule, pod)
        if told:
            text = f"{told} matching {rule.action} rule at index {index}"
            verdict = Verdict("FailureTarget", "PodFailurePolicy", text) if rule.action == "FailJob" else None
            return rule.action, verdict
    return "Count", None


def _match(rule: PodFailurePolicyRule, pod: Pod) -> str:
    """How a rule matches, in Kubernetes' words; "" if it does not."""
    if rule.onExitCodes is not None:
        codes = rule.onExitCodes
        for status in (*pod.status.containerStatuses, *pod.status.initContainerStatuses):
            if codes.containerName and status.name != codes.containerName:
                continue
            code = _exit_code(status)
            if code and (code in codes.values) == (codes.operator == "In"):
                return f"Container {status.name} for pod {pod.key} failed with exit code {code}"
        return ""
    for wanted in rule.onPodConditions:
        found = condition(pod.status.conditions, wanted.type)
        if found is not None and found.status == wanted.status:
            return f"Pod {pod.key} has condition {wanted.type}"
    return ""


def _exit_code(status: ContainerStatus) -> int:
    return status.state.terminated.exitCode if status.state.terminated is not None else 0


# -- is it over


def verdict(job: Job, now_known: Tally, now: float) -> Verdict | None:
    """Whether the Job is decided; what an earlier look has decided stays so."""
    for type in ("FailureTarget", "SuccessCriteriaMet"):
        said = condition(job.status.conditions, type)
        if said is not None and said.status == "True":
            return Verdict(type, said.reason, said.message)
    if now_known.verdict is not None:
        return now_known.verdict
    if now_known.failed > job.spec.backoffLimit or _restarted_too_often(job, now_known.active):
        return Verdict("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    left = deadline_in(job, now)
    if left is not None and left <= 0:
        return Verdict("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
    if (lost := _lost_indexes(job, now_known)) is not None:
        return lost
    if (rule := success_rule(job, now_known.indexes)) is not None:
        return Verdict("SuccessCriteriaMet", "SuccessPolicy", f"Matched rules at index {rule}")
    if is_complete(job, now_known):
        return Verdict("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def _lost_indexes(job: Job, known: Tally) -> Verdict | None:
    """Too many indexes have failed, or the last one is done and some have failed."""
    failed, most = len(known.failed_indexes), job.spec.maxFailedIndexes
    if not failed:
        return None
    if most is not None and failed > most:
        text = "Job has exceeded the specified maximal number of failed indexes"
        return Verdict("FailureTarget", "MaxFailedIndexesExceeded", text)
    if failed + known.succeeded >= (job.spec.completions or 0):
        return Verdict("FailureTarget", "FailedIndexes", "Job has failed indexes")
    return None


def _restarted_too_often(job: Job, pods: Sequence[Pod]) -> bool:
    """With restartPolicy OnFailure the restarts of containers count instead of pods."""
    if job.spec.template.spec.restartPolicy != "OnFailure":
        return False
    restarts = sum(
        status.restartCount
        for pod in pods
        if pod.status.phase in ("Running", "Pending")
        for status in (*pod.status.containerStatuses, *pod.status.initContainerStatuses)
    )
    return restarts > 0 if job.spec.backoffLimit == 0 else restarts >= job.spec.backoffLimit


def is_complete(job: Job, known: Tally) -> bool:
    """Without `completions` one success says that the work is done, once the other pods have ended."""
    if job.spec.completions is None:
        return known.succeeded > 0 and not known.active
    return known.succeeded >= job.spec.completions


def deadline_in(job: Job, now: float) -> float | None:
    if job.spec.activeDeadlineSeconds is None or not job.status.startTime or job.spec.suspend:
        return None
    return parse_time(job.status.startTime) + job.spec.activeDeadlineSeconds - now


# -- how many pods


def wanted(job: Job, known: Tally) -> int:
    """How many pods should be active now."""
    if job.spec.suspend:
        return 0
    parallelism = 1 if job.spec.parallelism is None else job.spec.parallelism
    if job.spec.completions is None:
        return min(len(known.active), parallelism) if known.succeeded else parallelism
    return max(0, min(job.spec.completions - known.succeeded - len(known.failed_indexes), parallelism))


def backoff_in(pods: Iterable[Pod], now: float) -> float:
    """Seconds to wait before another pod may be made: it doubles with each failure since the last success."""
    ended: list[tuple[float, str]] = sorted(
        (finish_time(pod, now), pod.status.phase) for pod in pods if is_finished(pod)
    )
    failures, last = 0, 0.0
    for time, phase in ended:
        failures = failures + 1 if phase == "Failed" else 0
        last = time if phase == "Failed" else last
    if not failures:
        return 0.0
    return max(0.0, last + _delay(failures) - now)


def _delay(failures: int) -> float:
    return min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 30), LAST_BACKOFF)


def finish_time(pod: Pod, now: float) -> float:
    """When the last container ended; if nobody tells, when the pod turned unready, or was deleted, or now."""
    times = [
        parse_time(status.state.terminated.finishedAt)
        for status in pod.status.containerStatuses
        if status.state.terminated is not None
    ]
    if latest := max(times, default=0.0):
        return latest
    ready = condition(pod.status.conditions, "Ready")
    told = (ready.lastTransitionTime if ready is not None else "") or pod.metadata.deletionTimestamp
    return parse_time(told) or parse_time(pod.metadata.creationTimestamp) or now


def expires_in(job: Job, now: float) -> float | None:
    """Seconds until a finished Job is to be removed; None for never."""
    if job.spec.ttlSecondsAfterFinished is None:
        return None
    ends = [
        c.lastTransitionTime for c in job.status.conditions if c.type in ("Complete", "Failed") and c.status == "True"
    ]
    return max(0.0, parse_time(ends[0]) + job.spec.ttlSecondsAfterFinished - now) if ends else None
