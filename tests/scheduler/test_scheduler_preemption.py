from __future__ import annotations

import random
from typing import Any

from scheduler_builders import anti, info, node, pod, snapshot

from minik8s.api.kinds.pod import Pod
from minik8s.scheduler.cycle import schedule
from minik8s.scheduler.model import PodInfo
from minik8s.scheduler.preemption import Preemption, plan
from minik8s.scheduler.snapshot import Snapshot
from minik8s.scheduler.strategies import DEFAULT


def preempt(each: Pod, there: Snapshot, **more: Any) -> tuple[str, list[str], str]:
    who: PodInfo = info(each)
    refused = schedule(who, there, DEFAULT, random.Random(1)).refused
    found: Preemption = plan(who, there, refused, **more)
    return found.node, sorted(victim.name for victim in found.victims), found.message


def test_the_fewest_and_lowest_go() -> None:
    pods = [
        pod("low", on="a", cpu="1", priority=1), pod("lower", on="a", cpu="1", priority=0), pod("big", on="a", cpu="2"),
        pod("high", on="b", cpu="4", priority=100),
    ]  # fmt: skip
    there = snapshot([node("a"), node("b")], pods)
    assert preempt(pod(cpu="1", priority=10), there) == ("a", ["lower"], "")
    assert preempt(pod(cpu="2", priority=10), there) == ("a", ["big"], "")
    assert preempt(pod(cpu="4", priority=10), there) == ("a", ["big", "low", "lower"], "")
    assert preempt(pod(cpu="4", priority=1000), there)[0] == "a"  # three low ones before one high one


def test_nodes_are_compared_by_highest_then_sum_then_age() -> None:
    def there(*rows: tuple[str, int, str]) -> Snapshot:
        nodes = [node(name) for name in sorted({name for name, _, _ in rows})]
        share = {info.metadata.name: 4 / sum(name == info.metadata.name for name, _, _ in rows) for info in nodes}
        pods = [pod(f"{at}{i}", on=at, cpu=share[at], priority=p, created=c) for i, (at, p, c) in enumerate(rows)]
        return snapshot(nodes, pods)

    want = pod(cpu="4", priority=10)
    assert preempt(want, there(("a", 3, ""), ("b", 2, "")))[0] == "b"
    assert preempt(want, there(("a", 2, ""), ("a", 2, ""), ("b", 2, "")))[0] == "b"
    assert preempt(want, there(("a", 2, "2024-01-01T00:00:00Z"), ("b", 2, "2024-01-02T00:00:00Z")))[0] == "b"


def test_what_eviction_cannot_cure_is_said() -> None:
    taint = {"key": "k", "effect": "NoSchedule"}
    nodes = [node("a", taints=[taint]), node("b"), node("c", cpu="1")]
    there = snapshot(nodes, [pod("x", on="b", cpu="4", priority=5)])
    assert preempt(pod(cpu="2", priority=5), there) == (
        "", [], "0/3 nodes are available: 1 No preemption victims found for incoming pod, "
        "2 Preemption is not helpful for scheduling.",
    )  # fmt: skip
    assert preempt(pod(cpu="2", priority=9, preemptionPolicy="Never"), there)[2].endswith("preemptionPolicy=Never.")


def test_no_more_are_evicted_while_some_are_ending() -> None:
    there = snapshot([node("a"), node("b")], [pod("x", on="a", cpu="4", deleting=True), pod("y", on="b", cpu="4")])
    node_name, victims, message = preempt(pod(cpu="1", priority=5), there, nominated="a")
    assert (node_name, victims) == ("a", [])
    assert "terminating pod on the nominated node" in message


def test_room_that_is_being_made_is_kept_from_lower_priorities() -> None:
    there = snapshot([node("a")])
    there.nominate(info(pod("vip", cpu="3", priority=10)), "a")
    chance = random.Random(1)
    assert not schedule(info(pod("low", cpu="2")), there, DEFAULT, chance).node
    assert schedule(info(pod("low", cpu="1")), there, DEFAULT, chance).node == "a"
    assert schedule(info(pod("higher", cpu="2", priority=11)), there, DEFAULT, chance).node == "a"
    assert schedule(info(pod("vip", cpu="3", priority=10)), there, DEFAULT, chance).node == "a"


def test_victims_may_be_those_who_do_not_want_us_near() -> None:
    shy = pod("shy", on="a", labels={"app": "x"}, affinity=anti("web"))
    there = snapshot([node("a")], [shy, pod("other", on="a")])
    assert preempt(pod(labels={"app": "web"}, priority=5), there)[:2] == ("a", ["shy"])
