from __future__ import annotations

import random
from typing import Any

import pytest
from scheduler_builders import anti, cluster, info, near, node, pod, snapshot, spread

from minik8s.api.kinds.pod import Pod
from minik8s.scheduler.cycle import Decision, fit_message, next_name, node_details, schedule
from minik8s.scheduler.model import Usage
from minik8s.scheduler.snapshot import Snapshot
from minik8s.scheduler.strategies import DEFAULT, STRATEGIES


def decide(each: Pod, there: Snapshot, strategy: str = "least-allocated") -> Decision:
    return schedule(info(each), there, STRATEGIES[strategy], random.Random(1))


def fits(each: Pod, there: Snapshot) -> set[str]:
    """All nodes that the filters leave."""
    decision = decide(each, there)
    return set(there.names) - set(decision.refused) if decision.node else set()


def why(each: Pod, there: Snapshot) -> str:
    return fit_message(decide(each, there).refused, len(there.nodes))


GPU = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
ZONES = [node(f"n{i}", labels={"zone": "ab"[i % 2]}) for i in range(4)]
ALL = {"n0", "n1", "n2", "n3"}
IMAGE = {"names": ["app:1"], "sizeBytes": 500 << 20}
SSD = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
WISH = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference": SSD}]}}


@pytest.mark.parametrize(
    ("each", "on", "reason"),
    [
        (pod(cpu="5"), node(), "Insufficient cpu"),
        (pod(memory="9Gi"), node(), "Insufficient memory"),
        (pod(extra={"example.com/gpu": 1}), node(), "Insufficient example.com/gpu"),
        (pod(extra={"example.com/gpu": 3}), node(extra={"example.com/gpu": 2}), "Insufficient example.com/gpu"),
        (pod(), node(pods=0), "Too many pods"),
        (pod(), node(unschedulable=True), "node(s) were unschedulable"),
        (pod(), node(taints=[GPU]), "node(s) had untolerated taint {gpu: yes}"),
        (pod(nodeSelector={"disk": "ssd"}), node(), "node(s) didn't match Pod's node affinity/selector"),
        (pod(affinity=near("db")), node(), "node(s) didn't match pod affinity rules"),
        (pod(topologySpreadConstraints=[spread("rack", "x")]), node(),
         "node(s) didn't match pod topology spread constraints (missing required label)"),
    ],
)  # fmt: skip
def test_a_node_that_does_not_fit_is_refused_in_kubernetes_words(each: Pod, on: Any, reason: str) -> None:
    assert why(each, snapshot([on])) == f"0/1 nodes are available: 1 {reason}."


def test_reasons_are_counted_over_nodes_and_detailed_for_each() -> None:
    there = snapshot([node("a", taints=[GPU]), node("b", cpu="1"), node("c", cpu="1500m", memory="1Mi")])
    refused = decide(pod(cpu="2", memory="1Gi"), there).refused
    assert fit_message(refused, 3) == (
        "0/3 nodes are available: "
        "1 Insufficient memory, 1 node(s) had untolerated taint {gpu: yes}, 2 Insufficient cpu."
    )
    assert node_details(refused) == (
        "a: had untolerated taint {gpu: yes}; b: Insufficient cpu (requested 2, free 1); "
        "c: Insufficient cpu (requested 2, free 1500m), Insufficient memory (requested 1024Mi, free 1Mi)"
    )
    assert node_details(refused, 1) == "a: had untolerated taint {gpu: yes}; and 2 more"
    assert fit_message({}, 0) == "no nodes available to schedule pods"


def test_wrong_quantities_hurt_nobody_else() -> None:
    there = snapshot([node("bad", cpu="many", pods=9), node("good")], [pod("x", on="good", cpu="lots")])
    assert fits(pod(cpu="1"), there) == {"good"}
    refused = decide(pod(cpu="abc"), there).refused
    assert fit_message(refused, 2) == "0/2 nodes are available: 2 node(s) cannot tell what the pod requests."
    assert "'abc' is not a quantity" in node_details(refused)


def test_tolerations_open_tainted_and_cordoned_nodes() -> None:
    there = snapshot([node("a", taints=[GPU]), node("b", unschedulable=True)])
    assert fits(pod(tolerations=[{"key": "gpu", "operator": "Exists"}]), there) == {"a"}
    assert fits(pod(tolerations=[{"operator": "Exists"}]), there) == {"a", "b"}


def test_host_ports_clash_by_protocol_and_address() -> None:
    def web(**port: Any) -> Any:
        return [{"containerPort": 80, "hostPort": 80, **port}]

    taken = [pod("x", on="a", ports=web()), pod("y", on="b", ports=web(hostIP="10.0.0.1"))]
    there = snapshot([node("a"), node("b")], taken)
    assert fits(pod(ports=web()), there) == set()
    assert why(pod(ports=web()), there).endswith("2 node(s) didn't have free ports for the requested pod ports.")
    assert fits(pod(ports=web(protocol="UDP")), there) == {"a", "b"}
    assert fits(pod(ports=web(hostIP="10.0.0.2")), there) == {"b"}
    assert fits(pod(ports=web(hostPort=0)), there) == {"a", "b"}


def test_init_containers_and_the_pod_count_are_weighed() -> None:
    heavy = pod(initContainers=[{"name": "i", "resources": {"requests": {"cpu": "3"}}}])
    assert fits(heavy, snapshot([node("a", cpu="2"), node("b")])) == {"b"}
    assert fits(pod(), snapshot([node("a", pods=1), node("b", pods=2)], [pod("x", on="a"), pod("y", on="b")])) == {"b"}


def test_anti_affinity_keeps_away_and_is_symmetric() -> None:
    there = snapshot(ZONES, [pod("db-0", on="n0", labels={"app": "db"}, affinity=anti("web", "zone"))])
    assert fits(pod(labels={"app": "web"}), there) == {"n1", "n3"}
    assert fits(pod(labels={"app": "other"}), there) == ALL
    assert fits(pod(affinity=anti("db")), there) == {"n1", "n2", "n3"}
    assert fits(pod(affinity=anti("db"), namespace="other"), there) == ALL
    assert "n0" not in fits(pod(labels={"app": "web"}), there)
    stuck = why(pod(labels={"app": "web"}, nodeSelector={"zone": "a"}), there)
    assert "2 node(s) didn't satisfy existing pods anti-affinity rules" in stuck
    assert "1 node(s) didn't match pod anti-affinity rules" in why(pod(affinity=anti("db", "zone")), snapshot(
        [ZONES[0]], [pod("db-0", on="n0", labels={"app": "db"})]))  # fmt: skip


def test_affinity_follows_and_the_first_of_a_group_starts_anywhere() -> None:
    there = snapshot(ZONES, [pod("db-0", on="n1", labels={"app": "db"})])
    assert fits(pod(affinity=near("db", "zone")), there) == {"n1", "n3"}
    assert fits(pod(affinity=near("db")), there) == {"n1"}
    assert fits(pod(affinity=near("web"), labels={"app": "web"}), there) == ALL
    assert fits(pod(affinity=near("web")), there) == set()
    assert fits(pod(affinity=near("web", "rack"), labels={"app": "web"}), there) == set()


def test_affinity_terms_speak_of_namespaces_by_name_or_label() -> None:
    there = snapshot(ZONES, [pod("db-0", on="n1", namespace="data", labels={"app": "db"})])
    there.namespaces = {"data": {"team": "x"}, "default": {}}
    assert fits(pod(affinity=near("db")), there) == set()
    assert fits(pod(affinity=near("db", namespaces=["data"])), there) == {"n1"}
    assert fits(pod(affinity=near("db", namespaceSelector={"matchLabels": {"team": "x"}})), there) == {"n1"}
    assert fits(pod(affinity=near("db", namespaceSelector={})), there) == {"n1"}
    assert fits(pod(affinity=near("db", namespaceSelector={"matchLabels": {"team": "y"}})), there) == set()


def test_hard_spread_limits_the_skew() -> None:
    web = [pod(f"w{i}", on=at, labels={"app": "web"}) for i, at in enumerate(("n0", "n2", "n1"))]  # zone a 2, b 1
    there = snapshot(ZONES, web)
    new = {"labels": {"app": "web"}}
    assert fits(pod(**new, topologySpreadConstraints=[spread("zone", "web")]), there) == {"n1", "n3"}
    assert fits(pod(**new, topologySpreadConstraints=[spread("zone", "web", skew=2)]), there) == ALL
    both = [spread("zone", "web"), spread("kubernetes.io/hostname", "web")]
    assert fits(pod(**new, topologySpreadConstraints=both), there) == {"n3"}
    domains = [spread("zone", "web", minDomains=3)]
    assert fits(pod(**new, topologySpreadConstraints=domains), there) == set()
    only_a = pod(**new, nodeSelector={"zone": "a"}, topologySpreadConstraints=[spread("zone", "web")])
    assert fits(only_a, there) == {"n0", "n2"}  # zone b is not eligible, so it does not count as empty
    ignore = [spread("zone", "web", nodeAffinityPolicy="Ignore")]
    assert fits(pod(**new, nodeSelector={"zone": "a"}, topologySpreadConstraints=ignore), there) == set()


def test_spread_can_be_among_pods_of_one_revision_only() -> None:
    old = pod("o", on="n0", labels={"app": "web", "hash": "1"})
    rule = [spread("zone", "web", matchLabelKeys=["hash"])]
    there = snapshot(ZONES, [old])
    assert fits(pod(labels={"app": "web", "hash": "2"}, topologySpreadConstraints=rule), there) == ALL
    assert fits(pod(labels={"app": "web", "hash": "1"}, topologySpreadConstraints=rule), there) == {"n1", "n3"}


# -- scores


def test_the_emptier_node_wins() -> None:
    assert decide(pod(cpu="1"), snapshot([node("a"), node("b")], [pod("x", on="a", cpu="2")])).node == "b"
    assert decide(pod(), snapshot([node("a"), node("b", cpu="64", memory="256Gi")])).node == "b"


@pytest.mark.parametrize(
    ("each", "nodes", "expected"),
    [
        (pod(), [node("a", taints=[{"key": "slow", "effect": "PreferNoSchedule"}]), node("b", cpu="3")], "b"),
        (pod(image="app:1"), [node("a", cpu="5"), node("b", images=[IMAGE])], "b"),
        (pod(affinity=WISH), [node("a", cpu="8"), node("b", labels={"disk": "ssd"})], "b"),
    ],
)  # fmt: skip
def test_wishes_decide_between_similar_nodes(each: Pod, nodes: Any, expected: str) -> None:
    assert decide(each, snapshot(nodes)).node == expected


def test_preferred_pod_affinity_and_that_of_pods_already_there() -> None:
    def wish(kind: str, app: str) -> Any:
        term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}}
        return {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 50, "podAffinityTerm": term}]}}

    three = [node(n) for n in "abc"]
    db = pod("db", on="b", labels={"app": "db"})
    assert decide(pod(affinity=wish("podAffinity", "db")), snapshot(three, [db])).node == "b"
    assert decide(pod(affinity=wish("podAntiAffinity", "db")), snapshot(three, [db])).node != "b"
    shy = [pod(f"s{n}", on=n, labels={"app": "s"}, affinity=wish("podAntiAffinity", "web")) for n in "ab"]
    assert decide(pod(labels={"app": "web"}), snapshot([*three[:2], node("c", cpu="3")], shy)).node == "c"


def test_soft_spread_prefers_the_emptier_zone() -> None:
    web = [pod(f"w{i}", on="n0", labels={"app": "web"}) for i in range(2)]
    chosen = decide(
        pod(labels={"app": "web"}, topologySpreadConstraints=[spread("zone", "web", soft=True)]), snapshot(ZONES, web)
    )
    assert chosen.node in ("n1", "n3")


def test_pods_of_a_controller_and_of_a_service_spread_over_nodes_and_zones() -> None:
    zone = "topology.kubernetes.io/zone"
    nodes = [node("a1", labels={zone: "a"}), node("a2", labels={zone: "a"}), node("b1", labels={zone: "b"}, cpu="3")]
    for owner, labels in (("rs", {}), ("", {"app": "web"})):
        cache = cluster(nodes)
        cache.snapshot.services = {"default": {"web": {"app": "web"}}}
        placed = []
        for i in range(3):
            each = cache.info(pod(f"w{i}", owner=owner, labels=labels))
            placed.append(schedule(each, cache.snapshot, DEFAULT, random.Random(1)).node)
            cache.assume(each, placed[-1])
        assert sorted(placed) == ["a1", "a2", "b1"]
        assert "b1" in placed[:2]


# -- strategies


def place(strategy: str, count: int, nodes: Any, pods: Any = (), usage: Any = None) -> list[str]:
    cache, chance = cluster(nodes, pods), random.Random(7)
    for name, value in (usage or {}).items():
        cache.snapshot.set_usage(name, value)
    placed = []
    for i in range(count):
        each = cache.info(pod(f"p{i}", cpu="100m", memory="100Mi"))
        node_name = schedule(each, cache.snapshot, STRATEGIES[strategy], chance).node
        placed.append(node_name)
        cache.assume(each, node_name)
    return placed


def test_strategies_place_as_they_are_called() -> None:
    three = [node("a"), node("b"), node("c", cpu="64", memory="256Gi")]
    crowd = [pod("x", on="a"), pod("y", on="a"), pod("z", on="c")]
    assert place("round-robin", 5, three) == ["a", "b", "c", "a", "b"]
    assert place("min-pods", 4, three, crowd) == ["b", "c", "b", "c"]
    assert place("max-pods", 3, three, crowd) == ["a", "a", "a"]
    assert place("max-pods", 3, [node("a", pods=3), node("b")], crowd[:2]) == ["a", "b", "b"]
    assert place("least-allocated", 2, three, crowd) == ["c", "c"]
    assert set(place("random", 60, three)) == {"a", "b", "c"}


def test_live_utilisation_counts_with_what_came_since_it_was_measured() -> None:
    two = [node("a"), node("b")]
    usage = {"a": Usage(0.5, 4 << 30), "b": Usage(0.75, 1 << 30)}
    assert place("min-cpu", 4, two, usage=usage) == ["a", "a", "a", "b"]
    assert place("min-mem", 3, two, usage=usage) == ["b", "b", "b"]
    assert place("min-cpu", 2, two, [pod("x", on="a", cpu="150m")]) == ["b", "b"]  # nothing measured: requests


def test_next_name_goes_round() -> None:
    assert [next_name(["a", "c"], last) for last in ("", "a", "b", "c", "z")] == ["a", "c", "c", "a", "a"]
