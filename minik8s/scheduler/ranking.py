"""The same decisions as `cycle.py`, remembered: nodes are scored again only when they have changed.

For a pod about which local rules alone decide, a node's score depends on the pod's shape, on its siblings (the pods of
its controller, else of its services) and on that node. So scores are kept per shape, and per shape and kind of siblings
in a heap for each zone (siblings in a zone cost the whole zone the same). Placing a pod changes one node; the next pod
of the kind costs one new score and a look at the top of the heaps, whatever the number of nodes. Everything else takes
the clear loop.
"""

from __future__ import annotations

import bisect
import heapq
import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from minik8s.scheduler import cycle
from minik8s.scheduler.cycle import Decision
from minik8s.scheduler.model import PodInfo, Reason, same_labels
from minik8s.scheduler.plugins import base_score, is_local, refuse, spreading
from minik8s.scheduler.snapshot import Snapshot
from minik8s.scheduler.strategies import Strategy

KEPT_ENTRIES = 64_000  # of nodes in all rows, and in all rankings: about 25 MB when full
KEPT_AT_LEAST = 16  # shapes and rankings, whatever the number of nodes
TRIES = 16  # random picks before all nodes that fit are listed
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Entry = tuple[float, float, float, str]  # -value, -score, a random number to break ties, node


class Rankings:
    """Decides for one snapshot; call `schedule` for any pod, `cycle.schedule` is asked where no memory helps."""

    def __init__(self, snapshot: Snapshot, chance: random.Random) -> None:
        self._snapshot = snapshot
        self._chance = chance
        self._rows: dict[bytes, _Rows] = {}
        self._crowds: dict[Hashable, _Crowd] = {}
        self._rankings: dict[tuple[bytes, Hashable, str], _Ranking] = {}

    def schedule(self, pod: PodInfo, strategy: Strategy) -> Decision:
        if not is_local(pod, self._snapshot):
            return cycle.schedule(pod, self._snapshot, strategy, self._chance)
        limit = max(KEPT_AT_LEAST, KEPT_ENTRIES // (len(self._snapshot.nodes) or 1))
        rows = _used(self._rows, pod.shape.key) or _kept(self._rows, pod.shape.key, _Rows(self._snapshot), limit)
        rows.refresh(pod)
        if strategy.pick == "random":
            node = self._any(rows)
        elif strategy.pick == "next":
            node = self._next(rows)
        else:
            kind, crowd = self._siblings(pod, limit)
            key = (pod.shape.key, kind, strategy.name)
            ranking = _used(self._rankings, key)
            if ranking is None:
                ranking = _kept(self._rankings, key, _Ranking(self._snapshot, strategy), limit)
            ranking.refresh(pod, rows, crowd, self._chance)
            node = ranking.best(pod, crowd)
        return Decision(node, {}) if node else Decision("", rows.refusals())

    def _siblings(self, pod: PodInfo, limit: int) -> tuple[Hashable, _Crowd | None]:
        """Whom the pod keeps away from: its controller's uid, or its services with their pods; "" if nobody."""
        selectors = () if pod.owner else self._snapshot.service_selectors(pod)
        if not selectors:
            return pod.owner, None
        key = (pod.namespace, frozenset(frozenset(selector.items()) for selector in selectors))
        crowd = _used(self._crowds, key)
        if crowd is None:
            crowd = _kept(self._crowds, key, _Crowd(self._snapshot, pod.namespace, selectors), limit)
        crowd.refresh()
        return key, crowd

    def _any(self, rows: _Rows) -> str:
        names = self._snapshot.names
        for _ in range(TRIES if names else 0):
            name = self._chance.choice(names)
            if name in rows.scores:
                return name
        return self._chance.choice(sorted(rows.scores)) if rows.scores else ""

    def _next(self, rows: _Rows) -> str:
        if not rows.scores:
            return ""
        names = self._snapshot.names
        at = bisect.bisect_right(names, self._snapshot.last_placed)
        while (name := names[at % len(names)]) not in rows.scores:
            at += 1
        return name


class _Rows:
    """Of one shape: the base score of each node that fits, the reasons of each that does not."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.scores: dict[str, float] = {}
        self._refused: dict[str, tuple[Reason, ...]] = {}
        self._snapshot = snapshot
        self._revision = -1
        self._told: dict[str, tuple[Reason, ...]] | None = None

    def refresh(self, pod: PodInfo) -> None:
        snapshot = self._snapshot
        if self._revision == snapshot.revision:
            return
        changed = snapshot.changed_since(self._revision)
        if changed is None:
            self.scores.clear()
            self._refused.clear()
        for name in snapshot.names if changed is None else dict.fromkeys(changed):
            self.scores.pop(name, None)
            self._refused.pop(name, None)
            info = snapshot.nodes.get(name)
            if info is not None:
                reasons = refuse(pod, info)
                if reasons:
                    self._refused[name] = reasons
                else:
                    self.scores[name] = base_score(pod, info)
        self._revision = snapshot.revision
        self._told = None

    def refusals(self) -> dict[str, tuple[Reason, ...]]:
        """A copy that stays as it is; one for all pods until a node changes."""
        if self._told is None:
            self._told = dict(self._refused)
        return self._told


class _Crowd:
    """Of some services of one namespace: how many of their pods are on each node, and in each zone."""

    def __init__(self, snapshot: Snapshot, namespace: str, selectors: Sequence[Mapping[str, str]]) -> None:
        self.on_node: dict[str, int] = {}
        self.in_zone: dict[str, int] = {}
        self._zones: dict[str, str] = {}  # in which zone the pods of a node are counted
        self._snapshot = snapshot
        self._namespace = namespace
        self._selectors = selectors
        self._revision = -1

    def refresh(self) -> None:
        snapshot = self._snapshot
        changed = snapshot.changed_since(self._revision)
        if changed is None:
            self.on_node, self.in_zone, self._zones = {}, {}, {}
        for name in snapshot.names if changed is None else dict.fromkeys(changed):
            before = self.on_node.pop(name, 0)
            if before:
                self.in_zone[self._zones.pop(name)] -= before
            info = snapshot.nodes.get(name)
            count = sum(map(self._counts, info.pods.values())) if info is not None else 0
            if info is not None and count:
                self.on_node[name], self._zones[name] = count, info.zone
                self.in_zone[info.zone] = self.in_zone.get(info.zone, 0) + count
        self._revision = snapshot.revision

    def _counts(self, other: PodInfo) -> bool:
        if other.namespace != self._namespace or other.deleting:
            return False
        return any(same_labels(selector, other.labels) for selector in self._selectors)


class _Ranking:
    """Of one shape, one kind of siblings and one strategy: the nodes that fit, best first, in a heap for each zone.

    Entries are never taken out of the middle: one that is not in `_current` any more is dropped when it comes up.
    """

    def __init__(self, snapshot: Snapshot, strategy: Strategy) -> None:
        self._snapshot = snapshot
        self._strategy = strategy
        self._revision = -1
        self._current: dict[str, Entry] = {}
        self._heaps: dict[str, list[Entry]] = {}
        self._pushed = 0

    def refresh(self, pod: PodInfo, rows: _Rows, crowd: _Crowd | None, chance: random.Random) -> None:
        snapshot = self._snapshot
        if self._revision == snapshot.revision:
            return
        changed = snapshot.changed_since(self._revision)
        if changed is None or self._pushed > 4 * len(snapshot.nodes) + 64:
            self._rebuild(pod, rows, crowd, chance)
        else:
            self._renew(dict.fromkeys(changed), pod, rows, crowd, chance)
        self._revision = snapshot.revision

    def _rebuild(self, pod: PodInfo, rows: _Rows, crowd: _Crowd | None, chance: random.Random) -> None:
        self._current = {}
        self._heaps = {}
        for name in rows.scores:
            entry = self._current[name] = self._entry(name, pod, rows, crowd, chance)
            self._heaps.setdefault(self._snapshot.nodes[name].zone, []).append(entry)
        for heap in self._heaps.values():
            heapq.heapify(heap)
        self._pushed = len(self._current)

    def _renew(
        self, names: Iterable[str], pod: PodInfo, rows: _Rows, crowd: _Crowd | None, chance: random.Random
    ) -> None:
        for name in names:
            self._current.pop(name, None)
            if name in rows.scores:
                entry = self._current[name] = self._entry(name, pod, rows, crowd, chance)
                heapq.heappush(self._heaps.setdefault(self._snapshot.nodes[name].zone, []), entry)
                self._pushed += 1

    def _entry(self, name: str, pod: PodInfo, rows: _Rows, crowd: _Crowd | None, chance: random.Random) -> Entry:
        info = self._snapshot.nodes[name]
        value = self._strategy.value(info) if self._strategy.value else 0.0
        if crowd is None:
            cost = spreading.node_score(pod, info)
        else:
            cost = -spreading.PER_SIBLING_ON_NODE * crowd.on_node.get(name, 0)
        return (-value, -(rows.scores[name] + cost), chance.random(), name)

    def best(self, pod: PodInfo, crowd: _Crowd | None) -> str:
        """The name of the best node, "" if none fits."""
        best: Entry | None = None
        for zone, heap in self._heaps.items():
            while heap and self._current.get(heap[0][3]) is not heap[0]:
                heapq.heappop(heap)
                self._pushed -= 1
            if heap:
                value, score, tie, name = heap[0]
                if crowd is None:
                    cost = spreading.zone_score(pod, zone, self._snapshot)
                else:
                    cost = -spreading.PER_SIBLING_IN_ZONE * crowd.in_zone.get(zone, 0) if zone else 0.0
                entry = (value, score - cost, tie, name)
                best = entry if best is None else min(best, entry)
        return best[3] if best else ""


def _used(kept: dict[K, V], key: K) -> V | None:
    """What is kept under `key`, now the most recently used."""
    value = kept.pop(key, None)
    if value is not None:
        kept[key] = value
    return value


def _kept(kept: dict[K, V], key: K, value: V, limit: int) -> V:
    """Keep `value`, and drop what was used the longest ago if there is too much."""
    kept[key] = value
    while len(kept) > limit:
        del kept[next(iter(kept))]
    return value
