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
    st.integers(0, 5), st.sampled_from([500, 2000, 4000]), st.sampled_from([512, 2048, 4096]),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(TAINTS), st.sampled_from([False] * 5 + [True]), st.sampled_from([2, 10, 110]),
)  # fmt: skip

# few kinds of pods, so that each comes often and meets what was remembered of it
KINDS: list[dict[str, Any]] = [
    {"cpu": "100m", "owner": "r1"},
    {"cpu": "100m", "owner": "r1"},
    {"cpu": "100m", "owner": "r2"},
    {"cpu": "500m", "memory": "64Mi", "owner": "r2"},
    {"memory": "100Mi"},
    {"labels": {"app": "x"}},
    {"labels": {"app": "x"}},
    {"labels": {"app": "x", "tier": "y"}},
    {"labels": {"app": "x"}, "deleting": True},
    {"owner": "r1", "tolerations": [{"key": "gpu", "operator": "Exists"}]},
    {"nodeSelector": {ZONE: "a"}},
    {"labels": {"app": "x"}, "affinity": anti("x")},
    {"labels": {"app": "x"}, "topologySpreadConstraints": [spread(ZONE, "x")]},
    {"ports": [{"containerPort": 1, "hostPort": 80}]},
]
SERVICES: list[dict[str, dict[str, str]]] = [
    {"x": {"app": "x"}}, {"x": {"app": "x"}, "y": {"tier": "y"}}, {"none": {}}, {"x": {"app": "other"}}
]  # fmt: skip
pods = st.builds(lambda i, kind: pod(f"p{i}", **kind), st.integers(0, 30), st.sampled_from(KINDS))

steps = st.lists(
    st.one_of(
        *[st.tuples(st.just("pod"), pods)] * 8,
        st.tuples(st.just("drop pod"), st.integers(0, 30)),
        st.tuples(st.just("drop pod"), st.integers(0, 30)),
        st.tuples(st.just("node"), nodes),
        st.tuples(st.just("drop node"), st.integers(0, 5)),
        st.tuples(st.just("services"), st.sampled_from(SERVICES)),
        st.tuples(st.just("usage"), st.integers(0, 5)),
        st.tuples(st.just("strategy"), st.sampled_from(["least-allocated", *sorted(STRATEGIES)])),
    ),
    min_size=20,
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(nodes, min_size=2, max_size=6), steps, st.integers(0, 1000))
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
            case "services":
                cache.snapshot.services["default"] = value
            case "strategy":
                strategy = STRATEGIES[value]
            case "pod":
                cache.remove_pod(value.key)
                _place_by_both_ways(cache, rankings, value, strategy.name)
        _consistent(cache)


@pytest.mark.parametrize("by", ["controllers", "services"])
def test_a_long_burst_of_three_kinds_is_placed_as_well_as_by_the_clear_loop(by: str) -> None:
    zones = [node(f"n{i:02}", cpu=4 + i % 3, memory="16Gi", labels={ZONE: "abc"[i % 3]}) for i in range(20)]
    cache = cluster(zones)
    cache.snapshot.services["default"] = {f"s{i}": {"app": f"r{i}"} for i in range(3)}
    rankings = Rankings(cache.snapshot, random.Random(3))
    for i in range(300):
        kind = f"r{i % 3}"
        who = {"owner": kind} if by == "controllers" else {"labels": {"app": kind}}
        _place_by_both_ways(cache, rankings, pod(f"p{i}", cpu="100m", **who), "least-allocated")
    _consistent(cache)
    counts = sorted(len(info.pods) for info in cache.snapshot.nodes.values())
    assert sum(counts) == 300
    assert counts[0] >= 13
    assert counts[-1] <= 17


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
