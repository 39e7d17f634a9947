"""topologySpreadConstraints: how unevenly pods may lie over the values of a node label.

Skew = matching pods at a value, the newcomer included, minus the fewest at any eligible value. DoNotSchedule makes
`maxSkew` a limit, ScheduleAnyway a wish.
"""

from __future__ import annotations

from collections.abc import Iterable

from minik8s.api.kinds.pod import TopologySpreadConstraint
from minik8s.api.labels import selects
from minik8s.api.placement import selects_node, untolerated
from minik8s.scheduler.model import NodeInfo, PodInfo, Reason
from minik8s.scheduler.snapshot import Snapshot

NAME = "PodTopologySpread"
SKEWED = Reason(NAME, "node(s) didn't match pod topology spread constraints")
NO_LABEL = Reason(NAME, "node(s) didn't match pod topology spread constraints (missing required label)", permanent=True)


class SpreadPlan:
    """Matching pods by value, for each of the pod's constraints. `without` are pods that are taken as gone."""

    def __init__(self, pod: PodInfo, snapshot: Snapshot, without: frozenset[str] = frozenset()) -> None:
        constraints = pod.shape.spec.topologySpreadConstraints
        self._hard = [_Count(pod, c, snapshot, without) for c in constraints if c.whenUnsatisfiable == "DoNotSchedule"]
        self._soft = [_Count(pod, c, snapshot, without) for c in constraints if c.whenUnsatisfiable != "DoNotSchedule"]

    def reject(self, info: NodeInfo) -> tuple[Reason, ...]:
        for count in self._hard:
            value = info.node.metadata.labels.get(count.key)
            if value is None:
                return (NO_LABEL,)
            if count.skew(value) > count.constraint.maxSkew:
                return (SKEWED,)
        return ()

    def scores(self, nodes: Iterable[NodeInfo]) -> dict[str, float]:
        """100 for the least crowded value, 0 for the most, or where a label is missing; {} without wishes."""
        raw: dict[str, float | None] = {}
        for info in nodes if self._soft else ():
            values = [info.node.metadata.labels.get(count.key) for count in self._soft]
            crowds = [c.at.get(v, 0) for c, v in zip(self._soft, values, strict=True) if v is not None]
            raw[info.name] = float(sum(crowds)) if len(crowds) == len(self._soft) else None
        known = [crowd for crowd in raw.values() if crowd is not None]
        if not known:
            return {}
        least, most = min(known), max(known)
        width = (most - least) or 1.0
        return {name: 0.0 if crowd is None else 100.0 * (most - crowd) / width for name, crowd in raw.items()}


class _Count:
    def __init__(
        self, pod: PodInfo, constraint: TopologySpreadConstraint, snapshot: Snapshot, without: frozenset[str]
    ) -> None:
        self.constraint, self.key = constraint, constraint.topologyKey
        self._pod = pod
        # every value of the key that an eligible node bears counts, also with no pod there
        self.at: dict[str, int] = {}
        for info in snapshot.nodes.values():
            value = info.node.metadata.labels.get(self.key)
            if value is not None and self._eligible(info):
                found = sum(p.key not in without and self._counts(p) for p in info.pods.values()) if info.pods else 0
                self.at[value] = self.at.get(value, 0) + found
        self._self = int(self._counts(pod))
        too_few_values = constraint.minDomains is not None and len(self.at) < constraint.minDomains
        self._fewest = 0 if too_few_values else min(self.at.values(), default=0)

    def skew(self, value: str) -> int:
        return self.at.get(value, 0) + self._self - self._fewest

    def _eligible(self, info: NodeInfo) -> bool:
        spec = self._pod.shape.spec
        hard_keys = (c.topologyKey for c in spec.topologySpreadConstraints
                     if c.whenUnsatisfiable == self.constraint.whenUnsatisfiable)  # fmt: skip
        if any(key not in info.node.metadata.labels for key in hard_keys):
            return False
        if self.constraint.nodeAffinityPolicy == "Honor" and not selects_node(spec, info.node):
            return False
        return self.constraint.nodeTaintsPolicy != "Honor" or not untolerated(info.node.spec.taints, spec.tolerations)

    def _counts(self, other: PodInfo) -> bool:
        if other.namespace != self._pod.namespace or other.deleting:
            return False
        labels = self._pod.labels
        same = all(other.labels.get(key) == labels[key] for key in self.constraint.matchLabelKeys if key in labels)
        return same and selects(self.constraint.labelSelector, other.labels)
