"""The cluster as the scheduler sees it, kept up to date change by change, never rebuilt.

Reading it is a dictionary look-up. Every change to a node is noted in a log, so that whoever keeps results per node
(`ranking.py`) redoes only the nodes that have changed since it last looked.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from minik8s.api.kinds.node import Node
from minik8s.scheduler.model import NodeInfo, PodInfo, Usage, same_labels

K = TypeVar("K", bound=Hashable)


class Snapshot:
    def __init__(self) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self.names: list[str] = []  # sorted
        self.pods: dict[str, PodInfo] = {}  # those on a node, also on one that is not (yet, or any more) known
        self.by_namespace: dict[str, dict[str, PodInfo]] = {}
        self.namespaces: dict[str, Mapping[str, str]] = {}  # labels
        # pods that care which pods are near them; those of one shape and namespace say the same
        self.with_terms: dict[tuple[bytes, str], dict[str, PodInfo]] = {}
        self.nominated: dict[str, dict[str, PodInfo]] = {}  # node -> pods for which room is being made there
        self.priorities: Counter[int] = Counter()  # of the pods on nodes
        self.zone_owners: dict[tuple[str, str], int] = {}  # (zone, owner's uid) -> pods
        self.services: dict[str, dict[str, Mapping[str, str]]] = {}  # namespace -> name -> selector
        self.last_placed = ""  # for round-robin
        self._strays: dict[str, dict[str, PodInfo]] = {}  # pods by a node that is not known
        self._log: list[str] = []
        self._log_start = 0

    # -- nodes

    def set_node(self, node: Node) -> None:
        name = node.metadata.name
        info = self.nodes.get(name)
        if info is None:
            info = self.nodes[name] = NodeInfo(node)
            bisect.insort(self.names, name)
            for pod in self._strays.pop(name, {}).values():
                info.add(pod)
        else:
            self._count_zone(info, -1)
            info.set_node(node)
        self._count_zone(info, 1)
        self._changed(name)

    def remove_node(self, name: str) -> None:
        info = self.nodes.pop(name, None)
        if info is None:
            return
        self._count_zone(info, -1)
        self.names.remove(name)
        if info.pods:
            self._strays[name] = dict(info.pods)
        self._changed(name)

    def set_usage(self, name: str, usage: Usage | None) -> None:
        info = self.nodes.get(name)
        if info is not None and info.usage != usage:
            info.set_usage(usage)
            self._changed(name)

    # -- pods

    def add_pod(self, pod: PodInfo) -> None:
        """`pod` is on `pod.node`; what was known of it before is replaced."""
        self.remove_pod(pod.key)
        self.pods[pod.key] = pod
        self.priorities[pod.priority] += 1
        self.by_namespace.setdefault(pod.namespace, {})[pod.key] = pod
        if pod.shape.has_terms:
            self.with_terms.setdefault((pod.shape.key, pod.namespace), {})[pod.key] = pod
        info = self.nodes.get(pod.node)
        if info is None:
            self._strays.setdefault(pod.node, {})[pod.key] = pod
            return
        info.add(pod)
        if info.zone and pod.owner:
            counter = (info.zone, pod.owner)
            self.zone_owners[counter] = self.zone_owners.get(counter, 0) + 1
        self._changed(pod.node)

    def remove_pod(self, key: str) -> PodInfo | None:
        pod = self.pods.pop(key, None)
        if pod is None:
            return None
        self.priorities[pod.priority] -= 1
        if not self.priorities[pod.priority]:
            del self.priorities[pod.priority]
        _take(self.by_namespace, pod.namespace, key)
        if pod.shape.has_terms:
            _take(self.with_terms, (pod.shape.key, pod.namespace), key)
        info = self.nodes.get(pod.node)
        if info is None:
            _take(self._strays, pod.node, key)
            return pod
        info.remove(key)
        if info.zone and pod.owner:
            self._discount(info.zone, pod.owner, 1)
        self._changed(pod.node)
        return pod

    def nominate(self, pod: PodInfo, node: str) -> None:
        """Keep room on `node` for `pod` against pods of lower priority."""
        self.forget_nomination(pod.key)
        self.nominated.setdefault(node, {})[pod.key] = pod

    def forget_nomination(self, key: str) -> None:
        for node, pods in list(self.nominated.items()):
            if pods.pop(key, None) is not None and not pods:
                del self.nominated[node]

    # -- reading

    def node_for(self, pod: PodInfo, name: str) -> NodeInfo:
        """The node as `pod` must see it: with the pods of at least its priority for which room is being made there."""
        info = self.nodes[name]
        waiting = self.nominated.get(name)
        if not waiting:
            return info
        plus = [p for p in waiting.values() if p.priority >= pod.priority and p.key != pod.key]
        return info.trial(plus=plus) if plus else info

    def service_selectors(self, pod: PodInfo) -> tuple[Mapping[str, str], ...]:
        """The selectors of the services that this pod stands behind."""
        found = self.services.get(pod.namespace, {}).values()
        return tuple(selector for selector in found if selector and same_labels(selector, pod.labels))

    @property
    def revision(self) -> int:
        """Grows with every change to a node or its pods."""
        return self._log_start + len(self._log)

    def changed_since(self, revision: int) -> Iterable[str] | None:
        """The names of nodes that changed (also gone ones) after `revision`, or None if that is too long ago."""
        if revision < self._log_start:
            return None
        return self._log[revision - self._log_start :]

    # -- keeping

    def _changed(self, name: str) -> None:
        if len(self._log) > 4 * len(self.nodes) + 4096:
            keep = len(self._log) // 4
            self._log_start += len(self._log) - keep
            self._log = self._log[-keep:]
        self._log.append(name)

    def _count_zone(self, info: NodeInfo, sign: int) -> None:
        """Add or take a node with its pods to or from its zone's sums."""
        if not info.zone:
            return
        for owner, count in info.owners.items():
            self._discount(info.zone, owner, -sign * count)

    def _discount(self, zone: str, owner: str, count: int) -> None:
        left = self.zone_owners.get((zone, owner), 0) - count
        if left:
            self.zone_owners[zone, owner] = left
        else:
            self.zone_owners.pop((zone, owner), None)


def _take(groups: dict[K, dict[str, PodInfo]], group: K, key: str) -> None:
    """Take a pod out of its group, and the group away with its last pod."""
    pods = groups.get(group)
    if pods is not None:
        pods.pop(key, None)
        if not pods:
            del groups[group]
