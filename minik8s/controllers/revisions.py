"""A Deployment's ReplicaSets as documents: how one is made, what its annotations remember. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.meta import Json
from minik8s.controllers.rollout import DESIRED, MAXIMUM, PREFIX, REVISION, bounds, revision
from minik8s.controllers.templates import HASH_LABEL, template_hash

HISTORY = PREFIX + "revision-history"
HISTORY_LIMIT = 2000  # characters, as Kubernetes keeps
NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAXIMUM,
    "deprecated.deployment.rollback.to",
}  # fmt: skip


def size_annotations(deployment: Deployment) -> dict[str, str]:
    """For which number of replicas a set was sized: how a later change of it is noticed and shared."""
    wanted = deployment.spec.replicas
    return {DESIRED: str(wanted), MAXIMUM: str(wanted + bounds(deployment).surge)}


def next_revision(old: Sequence[ReplicaSet]) -> int:
    return max((revision(each.metadata.annotations) for each in old), default=0) + 1


def current_annotations(deployment: Deployment, known: Mapping[str, str], number: int) -> dict[str, str]:
    """What the annotations of the newest set should be: the Deployment's own, its revision, and those it had."""
    copied = {key: value for key, value in deployment.metadata.annotations.items() if key not in NOT_COPIED}
    result = {**known, **copied}
    before = revision(dict(known))
    if before < number:
        result[REVISION] = str(number)
        if before:
            past = [*filter(None, known.get(HISTORY, "").split(",")), str(before)]
            while len(",".join(past)) > HISTORY_LIMIT:
                past.pop(0)
            result[HISTORY] = ",".join(past)
    return result


def new_set(deployment: Deployment, template: Json, owner: Json, number: int, replicas: int) -> Json:
    """The ReplicaSet for `template` (the Deployment's, whole), with the hash in its name, labels and selector."""
    mark = template_hash(template, deployment.status.collisionCount)
    meta: Json = template.get("metadata") or {}
    labels = {**(meta.get("labels") or {}), HASH_LABEL: mark}
    selector: Json = msgspec.to_builtins(deployment.spec.selector)
    selector["matchLabels"] = {**selector.get("matchLabels", {}), HASH_LABEL: mark}
    return {
        "metadata": {
            "name": f"{deployment.metadata.name}-{mark}",
            "namespace": deployment.metadata.namespace,
            "labels": labels,
            "annotations": current_annotations(deployment, {}, number) | size_annotations(deployment),
            "ownerReferences": [owner],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": deployment.spec.minReadySeconds,
            "selector": selector,
            "template": {**template, "metadata": {**meta, "labels": labels}},
        },
    }
