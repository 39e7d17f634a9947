"""Whether a pod may and would run on a node by what both declare: taints and tolerations, node selector and affinity.

Pure and shared: the scheduler filters with it, the DaemonSet controller picks its nodes, the taint eviction its pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minik8s.api.kinds.node import Node, Taint
from minik8s.api.kinds.pod import NodeSelector, NodeSelectorTerm, PodSpec, Toleration
from minik8s.api.meta import LabelSelectorRequirement

HARD_EFFECTS = frozenset(("NoSchedule", "NoExecute"))
UNSCHEDULABLE_TAINT = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether one toleration covers one taint; an empty effect covers all effects, no key with Exists all keys."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.operator in ("", "Equal") and toleration.value == taint.value


def untolerated(
    taints: Iterable[Taint], tolerations: Iterable[Toleration], effects: frozenset[str] = HARD_EFFECTS
) -> Taint | None:
    """The first taint with one of `effects` that no toleration covers, if there is one."""
    known = tuple(tolerations)
    for taint in taints:
        if taint.effect in effects and not any(tolerates(toleration, taint) for toleration in known):
            return taint
    return None


def selects_node(spec: PodSpec, node: Node) -> bool:
    """Whether the pod's `nodeSelector` and required node affinity allow this node."""
    labels = node.metadata.labels
    if any(labels.get(key) != value for key, value in spec.nodeSelector.items()):
        return False
    affinity = spec.affinity.nodeAffinity if spec.affinity else None
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity else None
    return required is None or node_selector_matches(required, node)


def node_selector_matches(selector: NodeSelector, node: Node) -> bool:
    """Terms are alternatives; none at all select nothing."""
    return any(term_matches(term, node) for term in selector.nodeSelectorTerms)


def term_matches(term: NodeSelectorTerm, node: Node) -> bool:
    """All of a term's demands must hold; a term without any selects nothing."""
    if not term.matchExpressions and not term.matchFields:
        return False
    fields = {"metadata.name": node.metadata.name}
    return all(demand_holds(demand, node.metadata.labels) for demand in term.matchExpressions) and all(
        demand_holds(demand, fields) for demand in term.matchFields
    )


def demand_holds(demand: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    """One expression of a node selector term; Gt and Lt compare integers and fail on anything else."""
    value = labels.get(demand.key)
    match demand.operator:
        case "In":
            return value is not None and value in demand.values
        case "NotIn":
            return value is None or value not in demand.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" if value is not None and len(demand.values) == 1:
            try:
                have, than = int(value), int(demand.values[0])
            except ValueError:
                return False
            return have > than if demand.operator == "Gt" else have < than
    return False


def pinned_nodes(spec: PodSpec) -> frozenset[str] | None:
    """The only nodes that can be meant, by name, if required affinity says so (as DaemonSets do); None = any."""
    affinity = spec.affinity.nodeAffinity if spec.affinity else None
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity else None
    if required is None:
        return None
    names: set[str] = set()
    for term in required.nodeSelectorTerms:
        fields = [f for f in term.matchFields if f.key == "metadata.name" and f.operator == "In"]
        if not fields:
            return None
        names.update(frozenset.intersection(*(frozenset(f.values) for f in fields)))
    return frozenset(names)
