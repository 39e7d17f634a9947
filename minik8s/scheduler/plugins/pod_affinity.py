"""Pods that want to be near others, or far from them, by the topology of their nodes; and the others' say in it.

What counts is the pair (topology key, value) of a node, e.g. (zone, a). Prepared once per pod: the pairs where each of
its terms finds a pod, and the pairs that pods already there have forbidden (required anti-affinity is symmetric).
"""

from __future__ import annotations

from collections.abc import Iterable

from minik8s.api.kinds.pod import PodAffinityTerm
from minik8s.api.labels import selects
from minik8s.scheduler.model import NodeInfo, PodInfo, Reason
from minik8s.scheduler.snapshot import Snapshot

NAME = "InterPodAffinity"
NOT_NEAR = Reason(NAME, "node(s) didn't match pod affinity rules", permanent=True)
TOO_NEAR = Reason(NAME, "node(s) didn't match pod anti-affinity rules")
UNWELCOME = Reason(NAME, "node(s) didn't satisfy existing pods anti-affinity rules")
HARD_WEIGHT = 1  # of a required affinity of a pod already there (Kubernetes' hardPodAffinityWeight)
Pair = tuple[str, str]


class PodAffinityPlan:
    """One pod's view of who is where. `without` are pods that are taken as gone."""

    def __init__(self, pod: PodInfo, snapshot: Snapshot, without: frozenset[str] = frozenset()) -> None:
        self._pod, self._snapshot, self._without = pod, snapshot, without
        affinity = pod.shape.spec.affinity
        required = affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution if (
            affinity and affinity.podAffinity
        ) else ()  # fmt: skip
        self._near = required
        # all required terms speak about the same pods: those that match every one of them
        self._near_pairs = [self._pairs(term, required) for term in required]
        self._self_match = bool(required) and all(matches(term, pod, pod, snapshot) for term in required)
        self._far = [(term.topologyKey, self._pairs(term, (term,))) for term in pod.shape.required_anti]
        self._unwelcome = self._forbidden()

    def reject(self, info: NodeInfo) -> tuple[Reason, ...]:
        labels = info.node.metadata.labels
        if not self._is_near(info):
            return (NOT_NEAR,)
        if any(labels.get(key) in values for key, values in self._far):
            return (TOO_NEAR,)
        if any(labels.get(key) == value for key, value in self._unwelcome):
            return (UNWELCOME,)
        return ()

    def _is_near(self, info: NodeInfo) -> bool:
        if not self._near:
            return True
        labels = info.node.metadata.labels
        if any(term.topologyKey not in labels for term in self._near):
            return False
        if all(labels[t.topologyKey] in pairs for t, pairs in zip(self._near, self._near_pairs, strict=True)):
            return True
        # the first of a group that wants to be together has nobody to join: it may start anywhere
        return self._self_match and not any(self._near_pairs)

    def scores(self, nodes: Iterable[NodeInfo]) -> dict[str, float]:
        """0 to 100 by what the pod and those already there prefer; {} if nobody prefers anything."""
        weights = self._weights()
        if not weights:
            return {}
        raw = {
            info.name: sum(weights.get((key, value), 0.0) for key, value in info.node.metadata.labels.items())
            for info in nodes
        }
        least, most = min(raw.values(), default=0.0), max(raw.values(), default=0.0)
        return {name: 100.0 * (value - least) / (most - least) for name, value in raw.items()} if most > least else {}

    # -- who is where

    def _others(self) -> Iterable[PodInfo]:
        nodes, without = self._snapshot.nodes, self._without
        return (pod for pod in self._snapshot.pods.values() if pod.node in nodes and pod.key not in without)

    def _value(self, pod: PodInfo, key: str) -> str | None:
        return self._snapshot.nodes[pod.node].node.metadata.labels.get(key)

    def _pairs(self, term: PodAffinityTerm, all_of: tuple[PodAffinityTerm, ...]) -> set[str]:
        """The values of the term's topology key where a pod is that matches all terms."""
        found = set()
        for other in self._others():
            if all(matches(each, self._pod, other, self._snapshot) for each in all_of):
                value = self._value(other, term.topologyKey)
                if value is not None:
                    found.add(value)
        return found

    def _already_there(self) -> Iterable[tuple[PodInfo, list[PodInfo]]]:
        """Pods with terms in groups that say the same: one that speaks for all, and all of them."""
        nodes, without = self._snapshot.nodes, self._without
        for group in self._snapshot.with_terms.values():
            members = [p for p in group.values() if p.node in nodes and p.key not in without]
            if members:
                yield members[0], members

    def _forbidden(self) -> set[Pair]:
        found: set[Pair] = set()
        for speaker, members in self._already_there():
            for term in speaker.shape.required_anti:
                if matches(term, speaker, self._pod, self._snapshot):
                    values = {self._value(member, term.topologyKey) for member in members}
                    found.update((term.topologyKey, value) for value in values if value is not None)
        return found

    def _weights(self) -> dict[Pair, float]:
        """What each pair is worth: own preferences where they find pods, and those of pods that are there."""
        weights: dict[Pair, float] = {}

        def add(key: str, at: PodInfo, weight: float) -> None:
            value = self._value(at, key)
            if value is not None and weight:
                weights[key, value] = weights.get((key, value), 0.0) + weight

        shape = self._pod.shape
        own = [(w.podAffinityTerm, float(w.weight)) for w in shape.weighted_pro]
        own += [(w.podAffinityTerm, -float(w.weight)) for w in shape.weighted_anti]
        if own:
            for other in self._others():
                for term, weight in own:
                    if matches(term, self._pod, other, self._snapshot):
                        add(term.topologyKey, other, weight)
        for speaker, members in self._already_there():
            for term, weight in _wishes(speaker):
                if matches(term, speaker, self._pod, self._snapshot):
                    for member in members:
                        add(term.topologyKey, member, weight)
        return weights


def _wishes(pod: PodInfo) -> list[tuple[PodAffinityTerm, float]]:
    """What a pod that is there says about newcomers."""
    wishes = [(w.podAffinityTerm, float(w.weight)) for w in pod.shape.weighted_pro]
    wishes += [(w.podAffinityTerm, -float(w.weight)) for w in pod.shape.weighted_anti]
    affinity = pod.shape.spec.affinity
    if affinity and affinity.podAffinity:
        required = affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution
        wishes += [(term, float(HARD_WEIGHT)) for term in required]
    return wishes


def matches(term: PodAffinityTerm, owner: PodInfo, other: PodInfo, snapshot: Snapshot) -> bool:
    """Whether `owner`'s term speaks about `other`: its namespace (the owner's own by default) and its labels."""
    return _in_namespaces(term, owner, other, snapshot) and selects(term.labelSelector, other.labels)


def _in_namespaces(term: PodAffinityTerm, owner: PodInfo, other: PodInfo, snapshot: Snapshot) -> bool:
    if other.namespace in term.namespaces:
        return True
    if term.namespaceSelector is not None:
        return selects(term.namespaceSelector, snapshot.namespaces.get(other.namespace, {}))
    return not term.namespaces and other.namespace == owner.namespace


def concerned(pod: PodInfo, snapshot: Snapshot) -> bool:
    """Whether affinity has a say: the pod's own, or that of a pod already there which speaks about it."""
    if pod.shape.has_terms:
        return True
    for group in snapshot.with_terms.values():
        speaker = next(iter(group.values()))
        terms = (*speaker.shape.required_anti, *(term for term, _ in _wishes(speaker)))
        if any(matches(term, speaker, pod, snapshot) for term in terms):
            return True
    return False
