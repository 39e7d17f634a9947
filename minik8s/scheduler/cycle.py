"""One decision: which node a pod goes to, or why none. The clear loop over all nodes, pure and complete.

`ranking.py` gives the same answers sooner for the pods that most clusters are made of; tests hold it to this one.
"""

from __future__ import annotations

import bisect
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from minik8s.scheduler.model import NodeInfo, PodInfo, Reason
from minik8s.scheduler.plugins import PLAN_WEIGHT, Plan, base_score, plans, refuse, spreading
from minik8s.scheduler.plugins.node_affinity import REASON as NOT_THIS_NODE
from minik8s.scheduler.snapshot import Snapshot
from minik8s.scheduler.strategies import DEFAULT, Strategy

DETAILED_NODES = 10  # an event tells this many nodes one by one
Rank = tuple[float, float]  # the strategy's value, then the score; more is better
Refusals = Mapping[str, tuple[Reason, ...]]


class Decision(NamedTuple):
    """`node` is "" if none fits; then `refused` tells why, for every node."""

    node: str
    refused: Refusals

    @property
    def plugins(self) -> frozenset[str]:
        """The rules that stand in the way: what must change before another attempt makes sense."""
        return frozenset(reason.plugin for reasons in self.refused.values() for reason in reasons)


def schedule(pod: PodInfo, snapshot: Snapshot, strategy: Strategy, chance: random.Random) -> Decision:
    """Decide about one pod; nothing is changed. `chance` breaks ties and drives the random strategy."""
    drawn = plans(pod, snapshot)
    nodes, refused = feasible(pod, snapshot, drawn)
    if not nodes:
        return Decision("", refused)
    if strategy.pick == "random":
        return Decision(chance.choice(nodes).name, refused)
    if strategy.pick == "next":
        return Decision(next_name([info.name for info in nodes], snapshot.last_placed), refused)
    ranks = rank(pod, nodes, snapshot, strategy, drawn)
    best = max(ranks.values())
    return Decision(chance.choice([name for name, value in ranks.items() if value == best]), refused)


def feasible(
    pod: PodInfo, snapshot: Snapshot, drawn: Sequence[Plan]
) -> tuple[list[NodeInfo], dict[str, tuple[Reason, ...]]]:
    """The nodes that fit, in order of name, and the reasons of the others."""
    pinned = pod.shape.pinned
    nodes: list[NodeInfo] = []
    refused: dict[str, tuple[Reason, ...]] = {}
    for name in snapshot.names:
        if pinned is not None and name not in pinned:
            refused[name] = (NOT_THIS_NODE,)
            continue
        info = snapshot.node_for(pod, name)
        reasons = refuse(pod, info) or next((r for plan in drawn if (r := plan.reject(info))), ())
        if reasons:
            refused[name] = reasons
        else:
            nodes.append(info)
    return nodes, refused


def rank(
    pod: PodInfo,
    nodes: Sequence[NodeInfo],
    snapshot: Snapshot,
    strategy: Strategy = DEFAULT,
    drawn: Sequence[Plan] = (),
) -> dict[str, Rank]:
    """How good each of `nodes` is, by name."""
    extra = [plan.scores(nodes) for plan in drawn]
    by_service = spreading.by_service(pod, nodes, snapshot)
    ranks: dict[str, Rank] = {}
    for info in nodes:
        score = base_score(pod, info) + spreading.node_score(pod, info)
        score += spreading.zone_score(pod, info.zone, snapshot) + by_service.get(info.name, 0.0)
        score += PLAN_WEIGHT * sum(scores.get(info.name, 0.0) for scores in extra)
        ranks[info.name] = (strategy.value(info) if strategy.value else 0.0, score)
    return ranks


def next_name(names: Sequence[str], last: str) -> str:
    """The first of the sorted `names` after `last`, from the beginning again after the end."""
    at = bisect.bisect_right(names, last)
    return names[at if at < len(names) else 0]


def fit_message(refused: Refusals, total: int) -> str:
    """`0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`: how many nodes for each reason."""
    if not total:
        return "no nodes available to schedule pods"
    counts = Counter(reason.text for reasons in refused.values() for reason in reasons)
    return f"0/{total} nodes are available: {', '.join(sorted(f'{n} {text}' for text, n in counts.items()))}."


def node_details(refused: Refusals, limit: int = DETAILED_NODES) -> str:
    """`n1: Insufficient cpu (requested 2, free 500m); n2: …`: each node's own reason, for the first `limit` nodes."""
    told = [f"{name}: {', '.join(map(_told, refused[name]))}" for name in sorted(refused)[:limit]]
    if len(refused) > limit:
        told.append(f"and {len(refused) - limit} more")
    return "; ".join(told)


def _told(reason: Reason) -> str:
    text = reason.text.removeprefix("node(s) ")
    return f"{text} ({reason.detail})" if reason.detail else text
