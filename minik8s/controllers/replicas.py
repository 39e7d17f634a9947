"""Which pods of a set go first, and what its status says. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.replicaset import ReplicaSet, ReplicaSetStatus
from minik8s.api.meta import Condition
from minik8s.clock import parse_time
from minik8s.controllers.pod_facts import available_in, is_active, is_ready, ready_since, restarts
from minik8s.controllers.status import with_condition, without_condition

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1, "": 1, "Running": 2}
_Key = tuple[bool, int, bool, int, int, float, int, float, str]


def deletion_cost(pod: Pod) -> int:
    """The annotation's number; 0 where it is absent or no number."""
    text = pod.metadata.annotations.get(DELETION_COST, "0")
    try:
        return int(text)
    except ValueError:
        return 0


def first_to_go(pods: Iterable[Pod], count: int, now: float, *, related: Iterable[Pod] = ()) -> list[Pod]:
    """The `count` pods whose loss hurts least, in Kubernetes' order (controller_utils.go, ActivePodsWithRanks).

    Without a node, then Pending, then not ready, then cheap by the annotation, then those that share a node with many
    of `related` (the active pods of all sets of one Deployment), then ready for a shorter time, restarted more often,
    younger. Times are compared by their magnitude (powers of two), so that among peers the choice is arbitrary and
    does not always hit the newest failure domain.
    """
    crowd = Counter(pod.spec.nodeName for pod in related)

    def key(pod: Pod) -> _Key:
        return (
            bool(pod.spec.nodeName),
            _PHASES.get(pod.status.phase, 2),
            is_ready(pod),
            deletion_cost(pod),
            -crowd[pod.spec.nodeName],
            _magnitude(ready_since(pod), now),
            -restarts(pod),
            _magnitude(parse_time(pod.metadata.creationTimestamp), now),
            pod.metadata.uid,
        )

    return sorted(pods, key=key)[:count]


def _magnitude(since: float, now: float) -> float:
    """The power of two of the seconds since then; what never happened (0) counts as just now."""
    return math.floor(math.log2(max(1.0, now - since))) if since else 0.0


def next_available(pods: Iterable[Pod], min_ready: float, now: float) -> float | None:
    """Seconds until the next ready pod becomes available, None if none is on its way."""
    waits = (available_in(pod, min_ready, now) for pod in pods)
    return min((wait for wait in waits if wait), default=None)


def status_of(owner: ReplicaSet, pods: Sequence[Pod], failure: tuple[str, str] | None, now: float) -> ReplicaSetStatus:
    """The status by its active `pods`; `failure` is (reason, message) of the last creation or deletion."""
    labels = owner.spec.template.metadata.labels.items()
    conditions = owner.status.conditions
    if failure is None:
        conditions = without_condition(conditions, "ReplicaFailure")
    else:
        failed = Condition(type="ReplicaFailure", status="True", reason=failure[0], message=failure[1])
        conditions = with_condition(conditions, failed, now)
    min_ready = owner.spec.minReadySeconds
    return ReplicaSetStatus(
        replicas=len(pods),
        fullyLabeledReplicas=sum(labels <= pod.metadata.labels.items() for pod in pods),
        readyReplicas=sum(is_ready(pod) for pod in pods),
        availableReplicas=sum(available_in(pod, min_ready, now) == 0.0 for pod in pods),
        terminatingReplicas=owner.status.terminatingReplicas,
        observedGeneration=owner.metadata.generation,
        conditions=conditions,
    )


def active(pods: Iterable[Pod]) -> list[Pod]:
    return [pod for pod in pods if is_active(pod)]
