"""What a Deployment's status says, in the words that `kubectl rollout status` understands. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from minik8s.api.kinds.deployment import Deployment, DeploymentStatus
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.meta import Condition, condition
from minik8s.clock import parse_time, rfc3339
from minik8s.controllers.rollout import bounds, total
from minik8s.controllers.status import without_condition

NO_DEADLINE = 2**31 - 1  # progressDeadlineSeconds of whoever wants none
DONE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"


def status_of(
    deployment: Deployment,
    new: ReplicaSet | None,
    old: Sequence[ReplicaSet],
    now: float,
    *,
    news: Condition | None = None,
) -> DeploymentStatus:
    """The status by its sets. `news` is a Progressing condition that this look gave rise to: created, found, paused."""
    sets = [*([new] if new is not None else []), *old]
    counted = _counts(deployment, new, sets)
    conditions = deployment.status.conditions
    if news is not None:
        conditions = _set(conditions, news, now)
    conditions = _set(conditions, _availability(deployment, counted), now)
    counted = msgspec.structs.replace(counted, conditions=conditions)
    if deployment.spec.progressDeadlineSeconds == NO_DEADLINE:
        conditions = without_condition(conditions, "Progressing")
    elif not deployment.spec.paused:
        conditions = _progress(deployment, counted, new, now)
    failure = _failure(new, old)
    conditions = without_condition(conditions, "ReplicaFailure") if failure is None else _set(conditions, failure, now)
    return msgspec.structs.replace(counted, conditions=conditions)


def _counts(deployment: Deployment, new: ReplicaSet | None, sets: Sequence[ReplicaSet]) -> DeploymentStatus:
    available = sum(each.status.availableReplicas for each in sets)
    return DeploymentStatus(
        observedGeneration=deployment.metadata.generation,
        replicas=sum(each.status.replicas for each in sets),
        updatedReplicas=new.status.replicas if new is not None else 0,
        readyReplicas=sum(each.status.readyReplicas for each in sets),
        availableReplicas=available,
        unavailableReplicas=max(0, total(sets) - available),
        terminatingReplicas=deployment.status.terminatingReplicas,
        collisionCount=deployment.status.collisionCount,
    )


def _availability(deployment: Deployment, status: DeploymentStatus) -> Condition:
    if status.availableReplicas >= deployment.spec.replicas - bounds(deployment).unavailable:
        return Condition(
            type="Available",
            status="True",
            reason="MinimumReplicasAvailable",
            message="Deployment has minimum availability.",
        )
    return Condition(
        type="Available",
        status="False",
        reason="MinimumReplicasUnavailable",
        message="Deployment does not have minimum availability.",
    )


def is_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    wanted = deployment.spec.replicas
    return wanted == status.updatedReplicas == status.replicas == status.availableReplicas


def _progress(
    deployment: Deployment, status: DeploymentStatus, new: ReplicaSet | None, now: float
) -> tuple[Condition, ...]:
    known = condition(status.conditions, "Progressing")
    if known is not None and known.reason == DONE and status.replicas == status.updatedReplicas:
        return status.conditions  # complete: a pod that comes or goes later is no rollout
    subject = f'ReplicaSet "{new.metadata.name}"' if new is not None else f'Deployment "{deployment.metadata.name}"'
    if is_complete(deployment, status):
        state, reason, text = "True", DONE, f"{subject} has successfully progressed."
    elif _moved(deployment.status, status):
        state, reason, text = "True", "ReplicaSetUpdated", f"{subject} is progressing."
    elif (left := _left(known, deployment.spec.progressDeadlineSeconds, now)) is not None and left <= 0:
        state, reason, text = "False", TIMED_OUT, f"{subject} has timed out progressing."
    else:
        return status.conditions
    made = Condition(type="Progressing", status=state, reason=reason, message=text)
    return _set(status.conditions, made, now, renew=reason == "ReplicaSetUpdated")


def _moved(before: DeploymentStatus, after: DeploymentStatus) -> bool:
    return (
        after.updatedReplicas > before.updatedReplicas
        or after.replicas - after.updatedReplicas < before.replicas - before.updatedReplicas
        or after.readyReplicas > before.readyReplicas
        or after.availableReplicas > before.availableReplicas
    )


def _left(known: Condition | None, deadline: int, now: float) -> float | None:
    """Seconds until the deadline since the last progress; None where none runs (never begun, done, timed out)."""
    if known is None or known.reason in (DONE, TIMED_OUT) or known.status == "Unknown":
        return None
    return parse_time(known.lastUpdateTime) + deadline - now


def deadline_in(deployment: Deployment, status: DeploymentStatus, now: float) -> float | None:
    """Seconds until the rollout would have to be called stuck; None if nothing is rolling out."""
    spec = deployment.spec
    if spec.paused or spec.progressDeadlineSeconds == NO_DEADLINE or is_complete(deployment, status):
        return None
    left = _left(condition(status.conditions, "Progressing"), spec.progressDeadlineSeconds, now)
    return None if left is None else max(left, 0.0) + 1.0  # times are kept in whole seconds


def _failure(new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> Condition | None:
    for each in (*([new] if new is not None else []), *old):
        found = condition(each.status.conditions, "ReplicaFailure")
        if found is not None:
            return found
    return None


def _set(
    conditions: tuple[Condition, ...], made: Condition, now: float, *, renew: bool = False
) -> tuple[Condition, ...]:
    """`made` in place of the one of its type. The update time moves with any change (`renew`: always), the transition
    time with the status."""
    known = condition(conditions, made.type)
    said = (made.status, made.reason, made.message)
    if known is not None and not renew and (known.status, known.reason, known.message) == said:
        return conditions
    time = rfc3339(now)
    since = known.lastTransitionTime if known is not None and known.status == made.status else time
    stamped = msgspec.structs.replace(made, lastUpdateTime=time, lastTransitionTime=since)
    if known is None:
        return (*conditions, stamped)
    return tuple(stamped if each.type == made.type else each for each in conditions)
