"""A taint keeps pods away that do not tolerate it; PreferNoSchedule only makes a node less liked."""

from __future__ import annotations

from minik8s.api.placement import tolerates, untolerated
from minik8s.scheduler.model import NodeInfo, PodInfo, Reason

NAME = "TaintToleration"


def reject(pod: PodInfo, info: NodeInfo) -> tuple[Reason, ...]:
    taints = info.node.spec.taints
    if not taints:
        return ()
    taint = untolerated(taints, pod.shape.spec.tolerations)
    if taint is None:
        return ()
    return (Reason(NAME, f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}", permanent=True),)


def score(pod: PodInfo, info: NodeInfo) -> float:
    """100 without a soft taint that is not tolerated, 50 with one, 33 with two …"""
    taints = info.node.spec.taints
    if not taints:
        return 100.0
    tolerations = pod.shape.spec.tolerations
    disliked = sum(
        taint.effect == "PreferNoSchedule" and not any(tolerates(toleration, taint) for toleration in tolerations)
        for taint in taints
    )
    return 100.0 / (1 + disliked)
