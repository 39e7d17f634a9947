"""What controllers want to know of a pod: does it count, is it ready, since when, and when will it be available."""

from __future__ import annotations

from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import Condition, condition
from minik8s.clock import parse_time

FINISHED = ("Succeeded", "Failed")


def is_finished(pod: Pod) -> bool:
    return pod.status.phase in FINISHED


def is_active(pod: Pod) -> bool:
    """Neither finished nor on its way out: what counts towards `replicas`."""
    return not is_finished(pod) and not pod.deleting


def ready_condition(pod: Pod) -> Condition | None:
    return condition(pod.status.conditions, "Ready")


def is_ready(pod: Pod) -> bool:
    found = ready_condition(pod)
    return found is not None and found.status == "True"


def ready_since(pod: Pod) -> float:
    """Unix seconds of the last change to Ready, 0 if the pod is not ready or does not tell."""
    found = ready_condition(pod)
    return parse_time(found.lastTransitionTime) if found is not None and found.status == "True" else 0.0


def available_in(pod: Pod, min_ready: float, now: float) -> float | None:
    """Seconds until the pod has been ready for `min_ready` seconds; 0 if it has; None if it is not ready."""
    if not is_ready(pod):
        return None
    return max(0.0, ready_since(pod) + min_ready - now) if min_ready else 0.0


def is_available(pod: Pod, min_ready: float, now: float) -> bool:
    return available_in(pod, min_ready, now) == 0.0


def restarts(pod: Pod) -> int:
    """The highest restart count of its containers."""
    return max((status.restartCount for status in pod.status.containerStatuses), default=0)
