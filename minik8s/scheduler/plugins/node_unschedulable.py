"""Cordoned nodes take no pods but those that tolerate it."""

from __future__ import annotations

from minik8s.api.placement import UNSCHEDULABLE_TAINT, tolerates
from minik8s.scheduler.model import NodeInfo, PodInfo, Reason

REASON = Reason("NodeUnschedulable", "node(s) were unschedulable", permanent=True)


def reject(pod: PodInfo, info: NodeInfo) -> tuple[Reason, ...]:
    if not info.node.spec.unschedulable:
        return ()
    if any(tolerates(toleration, UNSCHEDULABLE_TAINT) for toleration in pod.shape.spec.tolerations):
        return ()
    return (REASON,)
