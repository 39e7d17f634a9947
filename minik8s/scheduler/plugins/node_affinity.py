"""Node selectors and node affinity: where a pod must run, and where it would rather."""

from __future__ import annotations

from minik8s.api.placement import selects_node, term_matches
from minik8s.scheduler.model import NodeInfo, PodInfo, Reason

REASON = Reason("NodeAffinity", "node(s) didn't match Pod's node affinity/selector", permanent=True)


def reject(pod: PodInfo, info: NodeInfo) -> tuple[Reason, ...]:
    spec = pod.shape.spec
    if not spec.nodeSelector and spec.affinity is None:
        return ()
    return () if selects_node(spec, info.node) else (REASON,)


def score(pod: PodInfo, info: NodeInfo) -> float:
    """The weight of the preferences that hold, in percent of all weights.

    Kubernetes scales by the best node instead; the order of nodes is the same, and this depends on one node alone.
    """
    affinity = pod.shape.affinity
    if affinity is None:
        return 0.0
    wishes = affinity.preferredDuringSchedulingIgnoredDuringExecution
    total = sum(wish.weight for wish in wishes)
    if not total:
        return 0.0
    # an empty preference matches every node (unlike an empty required term)
    return (
        100.0
        / total
        * sum(
            wish.weight
            for wish in wishes
            if term_matches(wish.preference, info.node)
            or not (wish.preference.matchExpressions or wish.preference.matchFields)
        )
    )
