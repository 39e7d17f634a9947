"""The rules of the scheduler in one list: what refuses a node, and what makes one liked. Adding a rule is a file
beside this one and a line here.

Local rules look at one node alone, so their results are kept per node until it changes (`ranking.py`). Plans look at
where other pods are; they are drawn up once per pod that they concern.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from minik8s.scheduler.model import NodeInfo, PodInfo, Reason
from minik8s.scheduler.plugins import (
    image_locality,
    node_affinity,
    node_ports,
    node_resources,
    node_unschedulable,
    pod_affinity,
    spreading,
    taint_toleration,
    topology_spread,
)
from minik8s.scheduler.snapshot import Snapshot

Filter = Callable[[PodInfo, NodeInfo], tuple[Reason, ...]]
Score = Callable[[PodInfo, NodeInfo], float]

# The first that refuses gives the reason, in Kubernetes' order.
FILTERS: Final[tuple[Filter, ...]] = (
    node_unschedulable.reject,
    taint_toleration.reject,
    node_affinity.reject,
    node_ports.reject,
    node_resources.reject,
)

# Weights are those of Kubernetes' default profile; each score is 0 to 100, spreading apart.
SCORES: Final[tuple[tuple[float, Score], ...]] = (
    (1.0, node_resources.least_allocated),
    (1.0, node_resources.balanced),
    (3.0, taint_toleration.score),
    (2.0, node_affinity.score),
    (1.0, image_locality.score),
)


class Plan(Protocol):
    """One pod's view of the pods around: refuses nodes and scores those that are left (by name, 0 to 100)."""

    def reject(self, info: NodeInfo) -> tuple[Reason, ...]: ...

    def scores(self, nodes: Iterable[NodeInfo]) -> dict[str, float]: ...


PLAN_WEIGHT: Final = 2.0  # of both, as in Kubernetes' default profile


def plans(pod: PodInfo, snapshot: Snapshot, without: frozenset[str] = frozenset()) -> list[Plan]:
    """The plans that have a say about `pod`, with the pods in `without` taken as gone."""
    found: list[Plan] = []
    if pod.shape.spec.topologySpreadConstraints:
        found.append(topology_spread.SpreadPlan(pod, snapshot, without))
    if pod_affinity.concerned(pod, snapshot):
        found.append(pod_affinity.PodAffinityPlan(pod, snapshot, without))
    return found


def is_local(pod: PodInfo, snapshot: Snapshot) -> bool:
    """Whether local rules alone decide about `pod` (spreading from its siblings included)."""
    return pod.shape.is_local and not snapshot.nominated and not pod_affinity.concerned(pod, snapshot)


def base_score(pod: PodInfo, info: NodeInfo) -> float:
    """The weighted sum of the local scores: it depends on the pod's shape and on the node."""
    total = 0.0
    for weight, score in SCORES:
        total += weight * score(pod, info)
    return total


def refuse(pod: PodInfo, info: NodeInfo) -> tuple[Reason, ...]:
    """Why the local rules refuse the node; () if they do not. It depends on the pod's shape and on the node."""
    for reject in FILTERS:
        reasons = reject(pod, info)
        if reasons:
            return reasons
    return ()


__all__ = [
    "FILTERS", "PLAN_WEIGHT", "SCORES", "Plan", "base_score", "is_local", "plans", "refuse", "spreading",
]  # fmt: skip
