"""Laws over random clusters: nothing is overcommitted, hard rules hold, the fast way is as good as the clear one."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_builders import anti, cluster, node, pod, spread

from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.placement import selects_node, untolerated
from minik8s.scheduler.cache import Cache
from minik8s.scheduler.cycle import feasible, rank, schedule
from minik8s.scheduler.model import Usage, free
from minik8s.scheduler.plugins import plans
from minik8s.scheduler.ranking import Rankings
from minik8s.scheduler.strategies import STRATEGIES

ZONE = "topology.kubernetes.io/zone"
TAINTS = [[], [], [{"key": "gpu", "value": "1", "effect": "NoSchedule"}], [{"key": "s", "effect": "PreferNoSchedule"}]]

nodes = st.builds(
    lambda i, cpu, memory, zone, taints, cordoned, pods: node(
        f"n{i}", cpu=f"{cpu}m", memory=f"{memory}Mi", labels={ZONE: zone} if zone else {}, taints=taints,
        unschedulable=cordoned, pods=pods,
    ),
    st.integers(0, 5), st.integers(0, 4000), st.integers(0, 4000), st.sampled_from(["", "a", "b"]),
    st.sampled_from(TAINTS), st.sampled_from([False, False, False, True]), st.integers(0, 6),
)  # fmt: skip

SPECIAL: list[dict[str, Any]] = [
    {}, {}, {}, {}, {"tolerations": [{"key": "gpu", "operator": "Exists"}]}, {"nodeSelector": {ZONE: "a"}},
    {"affinity": anti("x")}, {"topologySpreadConstraints": [spread(ZONE, "x")]},
    {"ports": [{"containerPort": 1, "hostPort": 80}]},
]  # fmt: skip
pods = st.builds(
    lambda i, cpu, memory, owner, app, special: pod(
        f"p{i}", cpu=f"{cpu}m", memory=f"{memory}Mi", owner=owner, labels={"app": app}, **special
    ),
    st.integers(0, 30), st.sampled_from([0, 100, 500, 1500]), st.sampled_from([0, 64, 1000]),
    st.sampled_from(["", "r1", "r2"]), st.sampled_from(["x", "y"]), st.sampled_from(SPECIAL),
)  # fmt: skip

steps = st.lists(
    st.one_of(
        st.tuples(st.just("node"), nodes),
        st.tuples(st.just("drop node"), st.integers(0, 5)),
        *[st.tuples(st.just("pod"), pods)] * 4,
        st.tuples(st.just("drop pod"), st.integers(0, 30)),
        st.tuples(st.just("usage"), st.integers(0, 5)),
        st.tuples(st.just("strategy"), st.sampled_from(sorted(STRATEGIES))),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(nodes, max_size=6), steps, st.integers(0, 1000))
def test_any_history_keeps_the_laws(first: list[Node], history: list[tuple[str, Any]], seed: int) -> None:
    cache, chance = cluster(first), random.Random(seed)
    rankings, strategy = Rankings(cache.snapshot, chance), STRATEGIES["least-allocated"]
    for what, value in history:
        match what:
            case "node":
                cache.snapshot.set_node(value)
            case "drop node":
                cache.snapshot.remove_node(f"n{value}")
            case "drop pod":
                cache.remove_pod(f"default/p{value}")
            case "usage":
                cache.snapshot.set_usage(f"n{value}", Usage(chance.random(), chance.randrange(10**9)))
            case "strategy":
                strategy = STRATEGIES[value]
            case "pod":
                cache.remove_pod(value.key)
                _place_by_both_ways(cache, rankings, value, strategy.name)
        _consistent(cache)


def _place_by_both_ways(cache: Cache, rankings: Rankings, each: Pod, strategy_name: str) -> None:
    strategy, there = STRATEGIES[strategy_name], cache.snapshot
    info = cache.info(each)
    drawn = plans(info, there)
    fitting, refused = feasible(info, there, drawn)
    ranks = rank(info, fitting, there, strategy, drawn)
    clear = schedule(info, there, strategy, random.Random(1))
    fast = rankings.schedule(info, strategy)
    assert bool(fast.node) == bool(clear.node) == bool(fitting)
    if not fast.node:
        assert dict(fast.refused) == dict(clear.refused) == refused
        return
    assert fast.node in ranks
    if strategy.pick == "best":
        assert ranks[fast.node] == pytest.approx(max(ranks.values()))
    elif strategy.pick == "next":
        assert fast.node == clear.node
    _allowed(cache, each, fast.node)
    cache.assume(info, fast.node)


def _allowed(cache: Cache, each: Pod, name: str) -> None:
    """Said again in other words than the filters': room, taints, cordon, selector."""
    there = cache.snapshot.nodes[name]
    assert not there.node.spec.unschedulable
    assert untolerated(there.node.spec.taints, each.spec.tolerations) is None
    assert selects_node(each.spec, there.node)
    for resource, amount in cache.info(each).shape.requests:
        assert amount <= free(there, resource)


def _consistent(cache: Cache) -> None:
    """What is kept step by step equals what a fresh count says."""
    there = cache.snapshot
    assert there.names == sorted(there.nodes)
    for info in there.nodes.values():
        assert {key for key, each in there.pods.items() if each.node == info.name} == set(info.pods)
        for resource in ("cpu", "memory", "pods"):
            asked = sum(dict(each.shape.requests).get(resource, 0) for each in info.pods.values())
            assert info.requested.get(resource, 0) == asked
    zones: dict[tuple[str, str], int] = {}
    for each in there.pods.values():
        zone = there.nodes[each.node].zone if each.node in there.nodes else ""
        if zone and each.owner:
            zones[zone, each.owner] = zones.get((zone, each.owner), 0) + 1
    assert zones == there.zone_owners
