"""Nodes that fall silent: judged, tainted, their pods out of the way; and their part of the pod network."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.kinds.lease import Lease
from minik8s.api.kinds.node import Node, Taint
from minik8s.api.kinds.pod import Pod, Toleration
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.meta import condition
from minik8s.clock import rfc3339, rfc3339_micro
from minik8s.controllers.node_health import Signs, brake, observe, silent_conditions, taints, wanted_taints
from minik8s.controllers.node_ipam import asked_for, next_free
from minik8s.controllers.settings import Settings
from minik8s.controllers.taint_eviction import eviction_time

from .cluster import Cluster, add_node, control_plane, workload
from .objects import NOW, node

UNREACHABLE, NOT_READY = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
NO_EXECUTE = Taint(key="k", effect="NoExecute")


def test_any_change_is_a_sign_of_life():
    first = observe(None, "t1", "", NOW)
    assert observe(first, "t1", "", NOW + 9) is first
    assert observe(first, "t0", "", NOW + 9) == Signs("t0", "", NOW + 9)  # also by a clock that goes backwards
    assert observe(first, "t1", "h", NOW + 9).seen == NOW + 9


def test_silence_makes_conditions_unknown_once():
    first = silent_conditions(node(), NOW)
    assert [(c["type"], c["status"], c["reason"]) for c in first] == [
        ("Ready", "Unknown", "NodeStatusUnknown"),
        ("MemoryPressure", "Unknown", "NodeStatusNeverUpdated"),
        ("DiskPressure", "Unknown", "NodeStatusNeverUpdated"),
        ("PIDPressure", "Unknown", "NodeStatusNeverUpdated"),
    ]
    after = msgspec.convert({"metadata": {"name": "n1"}, "status": {"conditions": first}}, Node)
    assert silent_conditions(after, NOW) == []


@pytest.mark.parametrize(
    ("ready", "evict", "expected"),
    [
        ("True", True, set()),
        ("False", True, {(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")}),
        ("Unknown", True, {(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")}),
        ("Unknown", False, {(UNREACHABLE, "NoSchedule")}),
        ("", False, {(UNREACHABLE, "NoSchedule")}),
    ],
)
def test_taints_by_readiness(ready, evict, expected):
    assert wanted_taints(node(ready=ready), evict=evict) == expected


@given(
    st.sampled_from(["True", "False", "Unknown"]),
    st.booleans(),
    st.lists(
        st.sampled_from(
            [
                {"key": "mine", "effect": "NoExecute", "value": "x"},
                {"key": NOT_READY, "effect": "NoSchedule"},
                {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": rfc3339(NOW)},
            ]
        ),
        max_size=3,
        unique_by=lambda each: each["key"],
    ),
)
def test_tainting_twice_changes_nothing_and_keeps_what_users_set(ready, evict, given_taints):
    before = node(ready=ready, taints=given_taints)
    after = taints(before, evict=evict, now=NOW)
    final = before.spec.taints if after is None else after
    assert [t for t in final if t.key == "mine"] == [t for t in before.spec.taints if t.key == "mine"]
    assert {(t.key, t.effect) for t in final if t.key != "mine"} == wanted_taints(before, evict=evict)
    again = msgspec.structs.replace(before, spec=msgspec.structs.replace(before.spec, taints=final))
    assert taints(again, evict=evict, now=NOW + 5) is None


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("T", (False, False)),
        ("U", (True, True)),
        ("TU", (False, False)),
        ("UU", (True, True)),
        ("TTUU", (False, False)),
        ("TTUUU", (True, False)),
        ("TTTUUU", (False, False)),
        ("", (False, False)),
    ],
)
def test_when_too_many_are_lost_it_is_probably_us(states, expected):
    assert brake("True" if state == "T" else "Unknown" for state in states) == expected


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([], 0.0),
        ([{"key": "k", "operator": "Exists"}], None),
        ([{"operator": "Exists", "tolerationSeconds": 30}], 130.0),
        ([{"key": "k", "operator": "Exists", "tolerationSeconds": 0}], 0.0),
        ([{"key": "other", "operator": "Exists"}], 0.0),
    ],
)
def test_when_a_pod_has_to_go(tolerations, expected):
    known = [msgspec.convert(each, Toleration) for each in tolerations]
    assert eviction_time(known, [NO_EXECUTE], lambda taint: 100.0) == expected
    assert eviction_time(known, [Taint(key="k", effect="NoSchedule")], lambda taint: 100.0) is None


@given(st.lists(st.sampled_from(["join", "leave"]), max_size=60), st.randoms(use_true_random=False))
def test_no_subnet_is_given_twice(steps, rng):
    used: list[str] = []
    last = ""
    for step in steps:
        if step == "join":
            got = next_free("10.244.0.0/20", 24, used, last)
            assert (got is None) == (len(used) == 16)
            if got is not None:
                assert got not in used
                assert ipaddress.ip_network(got).subnet_of(ipaddress.ip_network("10.244.0.0/20"))
                used.append(got)
                last = got
        elif used:
            used.remove(rng.choice(used))


def test_subnets_of_other_sizes_are_respected():
    assert next_free("10.244.0.0/16", 24, ["10.244.0.0/23"]) == "10.244.2.0/24"
    assert next_free("10.244.0.0/23", 24, [], "10.244.1.0/24") == "10.244.0.0/24"


# -- on the real API server, in virtual time


class Heart:
    """Renews the leases of the nodes that live, as their kubelets would."""

    def __init__(self, cluster: Cluster, *nodes: str) -> None:
        self.cluster = cluster
        self.alive = set(nodes)

    async def beat(self) -> None:
        client = self.cluster.client
        for name in sorted(self.alive):
            spec = {
                "holderIdentity": name,
                "leaseDurationSeconds": 40,
                "renewTime": rfc3339_micro(self.cluster.clock()),
            }
            meta = {"name": name, "namespace": "kube-node-lease"}
            if self.cluster.informers.of(Lease, namespace="kube-node-lease").get("kube-node-lease", name) is None:
                await client.create(Lease, {"metadata": meta, "spec": spec})
            else:
                await client.patch(Lease, name, "kube-node-lease", {"spec": spec})

    async def run(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(5)


@asynccontextmanager
async def living(*nodes: str) -> AsyncIterator[tuple[Cluster, Heart]]:
    loop = asyncio.get_running_loop()
    settings = Settings(node_monitor_grace=20)
    async with control_plane(clock=lambda: NOW + loop.time(), nodes=nodes, settings=settings) as cluster:
        heart = Heart(cluster, *nodes)
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(heart.run())
            yield cluster, heart
            beating.cancel()


def state(cluster: Cluster, name: str) -> tuple[str, set[tuple[str, str]]]:
    found = cluster.get(Node, name, None)
    return condition(found.status.conditions, "Ready").status, {(t.key, t.effect) for t in found.spec.taints}


LOST = ("Unknown", {(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")})


@pytest.mark.looptime
async def test_a_lost_node_is_found_out_its_pods_move_and_it_may_come_back():
    loop = asyncio.get_running_loop()
    async with living("n1", "n2") as (cluster, heart):
        template = workload(replicas=1)
        template["spec"]["template"]["spec"]["tolerations"] = [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
            for key in (UNREACHABLE, NOT_READY)
        ]
        await cluster.client.create(ReplicaSet, template)
        await cluster.until_virtual(lambda: (rs := cluster.get(ReplicaSet, "web")) and rs.status.readyReplicas == 1, 60)
        await asyncio.sleep(60)
        assert state(cluster, "n1") == ("True", set())
        died = loop.time()
        heart.alive.discard("n1")
        await cluster.until_virtual(lambda: state(cluster, "n1") == LOST, 60)
        assert 14 <= loop.time() - died <= 22
        await cluster.until_virtual(lambda: cluster.get(ReplicaSet, "web").status.readyReplicas == 0, 1)
        lost = cluster.all(Pod)[0]
        assert condition(lost.status.conditions, "Ready").reason == "NodeNotReady"
        assert condition(lost.status.conditions, "ContainersReady").status == "False"
        assert not lost.deleting
        cluster.kubelet.ends = False
        cluster.kubelet.behave = lambda pod: None
        await cluster.until_virtual(lambda: cluster.get(Pod, lost.metadata.name).deleting, 60)
        assert 44 <= loop.time() - died <= 55
        reason = condition(cluster.get(Pod, lost.metadata.name).status.conditions, "DisruptionTarget")
        assert reason.reason == "DeletionByTaintManager"
        heart.alive.add("n1")
        ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": rfc3339(cluster.clock())}
        await cluster.client.patch(
            Node, "n1", None, {"status": {"conditions": [ready]}}, subresource="status",
            content_type="application/strategic-merge-patch+json",
        )  # fmt: skip
        await cluster.until_virtual(lambda: state(cluster, "n1") == ("True", set()), 5)
        await asyncio.sleep(100)
        assert state(cluster, "n1") == ("True", set())


@pytest.mark.looptime
async def test_nobody_is_evicted_when_all_nodes_are_lost():
    async with living("n1", "n2") as (cluster, heart):
        heart.alive.clear()
        await cluster.until_virtual(
            lambda: all(state(cluster, name) == ("Unknown", {(UNREACHABLE, "NoSchedule")}) for name in ("n1", "n2")),
            100,
        )


@pytest.mark.looptime
async def test_time_that_the_master_slept_is_nobodys_silence():
    slept = [0.0]
    loop = asyncio.get_running_loop()
    settings = Settings(node_monitor_grace=20)
    clock = lambda: NOW + loop.time() + slept[0]  # noqa: E731
    async with control_plane(clock=clock, nodes=("n1", "n2", "n3"), settings=settings) as cluster:
        heart = Heart(cluster, "n1", "n2", "n3")
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(heart.run())
            await asyncio.sleep(60)
            for length in (30, 3600):
                slept[0] += length
                for _ in range(600):
                    await asyncio.sleep(0.1)
                    assert all(state(cluster, name) == ("True", set()) for name in ("n1", "n2", "n3"))
            heart.alive.discard("n1")
            await asyncio.sleep(10)
            slept[0] += 3600
            await cluster.until_virtual(lambda: state(cluster, "n1") == LOST, 30)
            assert state(cluster, "n2") == ("True", set())
            beating.cancel()


@pytest.mark.looptime
async def test_a_node_that_promises_less_is_waited_for_longer():
    """A master that was restarted with shorter times, and workers that do not know them yet."""
    loop = asyncio.get_running_loop()
    async with control_plane(clock=lambda: NOW + loop.time(), settings=Settings(node_monitor_grace=4)) as cluster:
        heart = Heart(cluster, "n1")  # leases of 40 s, renewed every 5 s
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(heart.run())
            for _ in range(300):
                await asyncio.sleep(0.1)
                assert state(cluster, "n1") == ("True", set())
            beating.cancel()


@pytest.mark.looptime
async def test_taints_by_users_evict_too():
    async with living("n1", "n2") as (cluster, _):
        await cluster.client.create(ReplicaSet, workload(replicas=1))
        await cluster.until_virtual(lambda: (rs := cluster.get(ReplicaSet, "web")) and rs.status.readyReplicas == 1, 60)
        first = cluster.all(Pod)[0]
        await cluster.client.patch(
            Node, "n1", None, {"spec": {"taints": [{"key": "maintenance", "effect": "NoExecute"}]}}
        )
        await cluster.until_virtual(
            lambda: first.metadata.uid not in {pod.metadata.uid for pod in cluster.all(Pod) if not pod.deleting}, 5
        )
        assert state(cluster, "n1")[1] == {("maintenance", "NoExecute")}


@pytest.mark.looptime
async def test_cordon_is_a_taint():
    async with living("n1") as (cluster, _):
        await cluster.client.patch(Node, "n1", None, {"spec": {"unschedulable": True}})
        cordoned = ("True", {("node.kubernetes.io/unschedulable", "NoSchedule")})
        await cluster.until_virtual(lambda: state(cluster, "n1") == cordoned, 5)
        await cluster.client.patch(Node, "n1", None, {"spec": {"unschedulable": None}})
        await cluster.until_virtual(lambda: state(cluster, "n1") == ("True", set()), 5)


async def test_nodes_get_their_own_subnets():
    settings = Settings(pod_cidr="10.244.0.0/22", node_cidr_mask=24)
    async with control_plane(settings=settings, nodes=("n1", "n2", "n3")) as cluster:

        def given_out() -> list[str]:
            return sorted(each.spec.podCIDR for each in cluster.all(Node) if each.spec.podCIDR)

        await cluster.until(lambda: len(given_out()) == 3)
        await add_node(cluster.client, "n4", cluster.clock)
        await cluster.until(lambda: given_out() == [f"10.244.{n}.0/24" for n in range(4)])
        await add_node(cluster.client, "n5", cluster.clock)
        await cluster.settle()
        assert len(await cluster.events("CIDRNotAvailable")) == 1
        freed = cluster.get(Node, "n2", None).spec.podCIDR
        await cluster.client.delete(Node, "n2")
        await cluster.until(lambda: cluster.get(Node, "n5", None).spec.podCIDR == freed)
        assert cluster.get(Node, "n5", None).spec.podCIDRs == (freed,)


@pytest.mark.parametrize(
    ("wish", "used", "given"),
    [
        ("10.244.3.0/24", [], "10.244.3.0/24"),
        ("10.244.3.0/24", ["10.244.2.0/24"], "10.244.3.0/24"),
        ("10.244.3.0/24", ["10.244.3.0/24"], None),
        ("10.244.3.0/24", ["10.244.2.0/23"], None),
        ("10.245.3.0/24", [], None),
        ("10.244.0.0/16", [], None),
        ("fd00::/64", [], None),
        ("", [], None),
        ("10.244.3.1/24", [], None),
    ],
)
def test_a_node_gets_the_range_again_that_it_had_if_it_is_free(wish: str, used: list[str], given: str | None):
    assert asked_for(wish, "10.244.0.0/16", 24, used) == given
