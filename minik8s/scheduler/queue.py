"""Pods that wait for a node: ready to be tried, backing off, or set aside until something changes that may help.

Time is an argument (seconds, any origin). A pod is set aside together with the rules that refused it; an event brings
back those whose rules it concerns, and after five minutes a pod is tried anyway, should an event have been misjudged.
The highest priority goes first, then who came first.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

FIRST_BACKOFF = 0.1  # seconds; Kubernetes begins with 1 s, which people feel
LAST_BACKOFF = 10.0  # seconds; Kubernetes' podMaxBackoffSeconds
FLUSH_AFTER = 300.0  # seconds; Kubernetes' podMaxInUnschedulablePodsDuration


class Happening(StrEnum):
    """What may make an unschedulable pod schedulable."""

    NODE = "node added or changed"
    POD_GONE = "pod gone from a node"
    POD_PLACED = "pod placed on a node"
    NAMESPACE = "namespace's labels changed"


_ANYTHING: Final = frozenset(Happening)
CONCERNS: Final[dict[str, frozenset[Happening]]] = {
    "NodeUnschedulable": frozenset((Happening.NODE,)),
    "TaintToleration": frozenset((Happening.NODE,)),
    "NodeAffinity": frozenset((Happening.NODE,)),
    "NodePorts": frozenset((Happening.NODE, Happening.POD_GONE)),
    "NodeResourcesFit": frozenset((Happening.NODE, Happening.POD_GONE)),
    "PodTopologySpread": frozenset((Happening.NODE, Happening.POD_GONE, Happening.POD_PLACED)),
    "InterPodAffinity": _ANYTHING,
}


@dataclass(slots=True)
class _Waiting:
    priority: int
    ticket: int = 0  # of its valid entry in a heap
    attempts: int = 0
    tried: float = 0.0  # when the last attempt ended
    happenings: frozenset[Happening] = frozenset()  # that bring it back; only while set aside
    since: int = 0  # how much had happened when it was given out
    changed: bool = False  # the pod itself, while it was being tried


class SchedulingQueue:
    """`pop` gives a pod out; it must come back by `failed`, `retry` or `remove`. Keys are `namespace/name`."""

    def __init__(self) -> None:
        self._pods: dict[str, _Waiting] = {}
        self._ready: list[tuple[int, int, str]] = []  # -priority, ticket, key
        self._later: list[tuple[float, int, str]] = []  # due, ticket, key
        self._aside: dict[str, float] = {}  # key -> since when
        self._gated: set[str] = set()
        self._trying: set[str] = set()
        self._tickets = 0
        self._happenings = 0  # counted, so that an attempt knows what it has missed
        self._latest: dict[Happening, int] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._pods or key in self._gated

    def counts(self) -> dict[str, int]:
        """How many pods wait in which way: the labels of `scheduler_pending_pods`."""
        active = sum(self._is_ready(entry) for entry in self._ready)
        backoff = sum(self._is_later(entry) for entry in self._later)
        return {"active": active, "backoff": backoff, "unschedulable": len(self._aside), "gated": len(self._gated)}

    def add(self, key: str, priority: int) -> None:
        """A pod that is new, or has changed so that it should be tried at once; one that is being tried goes on."""
        self._gated.discard(key)
        pod = self._pods.get(key)
        if pod is None:
            pod = self._pods[key] = _Waiting(priority)
        elif key in self._trying:
            pod.changed = True
            return
        pod.priority = priority
        self._make_ready(key, pod)

    def gate(self, key: str) -> None:
        """A pod that must not be tried yet: it has scheduling gates."""
        self.remove(key)
        self._gated.add(key)

    def remove(self, key: str) -> None:
        """The pod has a node, is gone, or is no more ours."""
        self._pods.pop(key, None)
        self._aside.pop(key, None)
        self._gated.discard(key)
        self._trying.discard(key)

    def pop(self, now: float) -> str | None:
        """The next pod to try, if one is ready."""
        self._advance(now)
        while self._ready:
            entry = heapq.heappop(self._ready)
            if self._is_ready(entry):
                key = entry[2]
                self._trying.add(key)
                pod = self._pods[key]
                pod.ticket = 0
                pod.since, pod.changed = self._happenings, False
                return key
        return None

    def failed(self, key: str, plugins: frozenset[str], now: float) -> None:
        """No node fits, because of these rules: set the pod aside, unless something that concerns it just happened."""
        pod = self._tried(key, now)
        if pod is None:
            return
        concerns = [CONCERNS.get(plugin, _ANYTHING) for plugin in plugins] or [frozenset((Happening.NODE,))]
        pod.happenings = frozenset[Happening]().union(*concerns)
        missed = any(self._latest.get(what, 0) > pod.since for what in pod.happenings)
        if missed or pod.changed:
            self._make_later(key, pod, now)
        else:
            self._aside[key] = now

    def retry(self, key: str, now: float) -> None:
        """The attempt failed for a reason outside the pod (the API was not in reach): again after a while."""
        pod = self._tried(key, now)
        if pod is not None:
            self._make_later(key, pod, now)

    def happened(self, what: Happening, now: float) -> bool:
        """Bring back the pods that this concerns; whether there were any."""
        self._happenings += 1
        self._latest[what] = self._happenings
        concerned = [key for key in self._aside if what in self._pods[key].happenings]
        for key in concerned:
            self._make_later(key, self._pods[key], now)
        return bool(concerned)

    def next_due(self) -> float | None:
        """When `pop` may have something without a further call: a back-off ends or a pod set aside is flushed."""
        while self._later and not self._is_later(self._later[0]):
            heapq.heappop(self._later)
        dues = [self._later[0][0]] if self._later else []
        if self._aside:
            dues.append(next(iter(self._aside.values())) + FLUSH_AFTER)  # in order of time
        return min(dues, default=None)

    # -- moving

    def _tried(self, key: str, now: float) -> _Waiting | None:
        self._trying.discard(key)
        pod = self._pods.get(key)
        if pod is not None:
            pod.attempts += 1
            pod.tried = now
        return pod

    def _make_ready(self, key: str, pod: _Waiting) -> None:
        self._aside.pop(key, None)
        pod.ticket = self._ticket()
        heapq.heappush(self._ready, (-pod.priority, pod.ticket, key))

    def _make_later(self, key: str, pod: _Waiting, now: float) -> None:
        self._aside.pop(key, None)
        due = pod.tried + min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(pod.attempts - 1, 30))
        if due <= now:
            self._make_ready(key, pod)
            return
        # negative tickets are of `_later`, so that an entry tells where it is valid
        pod.ticket = -self._ticket()
        heapq.heappush(self._later, (due, pod.ticket, key))

    def _advance(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            entry = heapq.heappop(self._later)
            if self._is_later(entry):
                self._make_ready(entry[2], self._pods[entry[2]])
        while self._aside:
            key, since = next(iter(self._aside.items()))
            if since + FLUSH_AFTER > now:
                break
            self._make_ready(key, self._pods[key])

    def _is_ready(self, entry: tuple[int, int, str]) -> bool:
        return entry[2] in self._pods and self._pods[entry[2]].ticket == entry[1]

    def _is_later(self, entry: tuple[float, int, str]) -> bool:
        return entry[2] in self._pods and self._pods[entry[2]].ticket == entry[1]

    def _ticket(self) -> int:
        self._tickets += 1
        return self._tickets
