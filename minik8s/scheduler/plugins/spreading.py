"""Pods of one controller, or else of one service, go to different nodes and zones.

The penalty grows with every sibling there, without a ceiling, so that no other score (each at most 300 with its
weight) can pile up a controller's pods for long. A sibling in the zone weighs a fifth of one on the node: a full zone
is worse than an empty one, an unequal number of nodes per zone does not overload the small zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minik8s.scheduler.model import NodeInfo, PodInfo, same_labels
from minik8s.scheduler.snapshot import Snapshot

PER_SIBLING_ON_NODE = 100.0
PER_SIBLING_IN_ZONE = 20.0


def node_score(pod: PodInfo, info: NodeInfo) -> float:
    """For pods with a controller: what the siblings on this node cost."""
    return -PER_SIBLING_ON_NODE * info.owners.get(pod.owner, 0) if pod.owner else 0.0


def zone_score(pod: PodInfo, zone: str, snapshot: Snapshot) -> float:
    """For pods with a controller: what the siblings in the zone cost; nothing where nodes have no zone."""
    return -PER_SIBLING_IN_ZONE * snapshot.zone_owners.get((zone, pod.owner), 0) if zone and pod.owner else 0.0


def by_service(pod: PodInfo, nodes: Iterable[NodeInfo], snapshot: Snapshot) -> dict[str, float]:
    """For pods without a controller: what the other pods of their services cost, by node; {} without services."""
    selectors = snapshot.service_selectors(pod) if not pod.owner else ()
    if not selectors:
        return {}
    on_node: dict[str, int] = {}
    in_zone: dict[str, int] = {}
    for other in snapshot.by_namespace.get(pod.namespace, {}).values():
        if other.node in snapshot.nodes and not other.deleting and _siblings(selectors, other):
            on_node[other.node] = on_node.get(other.node, 0) + 1
            zone = snapshot.nodes[other.node].zone
            in_zone[zone] = in_zone.get(zone, 0) + (1 if zone else 0)
    return {
        info.name: -PER_SIBLING_ON_NODE * on_node.get(info.name, 0) - PER_SIBLING_IN_ZONE * in_zone.get(info.zone, 0)
        for info in nodes
    }


def _siblings(selectors: tuple[Mapping[str, str], ...], other: PodInfo) -> bool:
    return any(same_labels(selector, other.labels) for selector in selectors)
