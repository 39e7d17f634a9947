"""The running scheduler against a real API server in memory."""

from __future__ import annotations

import asyncio
from typing import Any

from scheduler_world import World

from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.priorityclass import PriorityClass


def paths(world: World, method: str, end: str) -> list[str]:
    return [path for verb, path in world.transport.requests if verb == method and path.endswith(end)]


async def test_a_pod_gets_a_node_a_condition_and_an_event(world: World) -> None:
    await world.node("node1")
    await world.pod("web-0")
    assert await world.bound("web-0") == ["node1"]
    assert world.condition("web-0")[0] == "True"
    event = await world.event("Scheduled", "web-0")
    assert (event.type, event.message) == ("Normal", "Successfully assigned default/web-0 to node1")
    assert event.source.component == "default-scheduler"


async def test_an_unschedulable_pod_tells_why_once_and_is_bound_when_a_node_comes(world: World) -> None:
    await world.node("small", cpu="1")
    await world.node("cordoned", unschedulable=True)
    await world.pod("big", cpu="2")
    event = await world.event("FailedScheduling", "big")
    said = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. preemption: " + (
        "0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )
    assert event.message == f"{said} [cordoned: were unschedulable; small: Insufficient cpu (requested 2, free 1)]"
    assert event.type == "Warning"
    await world.until(lambda: world.condition("big") == ("False", "Unschedulable", said))
    await world.client.patch(Node, "small", None, {"metadata": {"labels": {"news": "no-help"}}})
    await world.until(lambda: world.scheduler.queue.counts()["unschedulable"] == 1)
    await world.node("large")
    assert await world.bound("big") == ["large"]
    # one for the first failure; the second says the same of as many nodes
    assert len(paths(world, "PATCH", "pods/big/status")) == 1


async def test_without_nodes_it_says_so(world: World) -> None:
    await world.pod("early")
    await world.until(lambda: world.condition("early")[2] == "no nodes available to schedule pods")
    await world.node("node1")
    assert await world.bound("early") == ["node1"]


async def test_freed_room_is_taken(world: World) -> None:
    await world.node("node1", cpu="1")
    first = await world.pod("first", cpu="1")
    await world.bound("first")
    await world.pod("second", cpu="1")
    await world.event("FailedScheduling", "second")
    await world.client.patch(
        Pod, first.metadata.name, "default", {"status": {"phase": "Succeeded"}}, subresource="status"
    )
    assert await world.bound("second") == ["node1"]


async def test_uncordon_lets_pods_in(world: World) -> None:
    await world.node("node1", unschedulable=True)
    await world.pod("web")
    await world.event("FailedScheduling", "web")
    await world.client.patch(Node, "node1", None, {"spec": {"unschedulable": None}})
    assert await world.bound("web") == ["node1"]


async def test_only_pods_that_ask_for_us(world: World) -> None:
    await world.node("node1")
    await world.pod("other", schedulerName="mine")
    await world.pod("ours")
    await world.bound("ours")
    assert world.at("other") == ""
    assert "default/other" not in world.scheduler.queue


async def test_gates_hold_a_pod(world: World) -> None:
    await world.node("node1")
    await world.pod("gated", schedulingGates=[{"name": "example.com/wait"}])
    await world.until(lambda: world.condition("gated")[:2] == ("False", "SchedulingGated"))
    await world.pod("free")
    await world.bound("free")
    assert world.at("gated") == ""
    await world.client.patch(Pod, "gated", "default", {"spec": {"schedulingGates": []}})
    assert await world.bound("gated") == ["node1"]


async def test_a_failed_binding_is_taken_back_and_tried_again(world: World) -> None:
    await world.node("node1", cpu="1")
    world.transport.faults["web/binding"] = 2
    await world.pod("web", cpu="1")
    assert await world.bound("web") == ["node1"]
    assert len(paths(world, "POST", "web/binding")) == 3
    assert "binding to node1 failed" in (await world.event("FailedScheduling", "web")).message
    assert world.scheduler.cache.snapshot.nodes["node1"].requested["cpu"] == 1000


async def test_a_lost_condition_is_written_later(world: World) -> None:
    world.transport.faults["web/status"] = 1
    await world.pod("web")
    await world.until(lambda: world.condition("web")[1] == "Unschedulable")
    assert len(paths(world, "PATCH", "web/status")) == 2


async def test_the_strategy_follows_the_config_map(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.node(name)
    await world.strategy("max-pods")
    for i in range(4):
        await world.pod(f"pack-{i}")
    packed = await world.bound(*(f"pack-{i}" for i in range(4)))
    assert len(set(packed)) == 1
    await world.strategy("min-pods")
    for i in range(2):
        await world.pod(f"even-{i}")
    assert set(await world.bound("even-0", "even-1")) == {"a", "b", "c"} - set(packed)
    await world.strategy("min-podz")
    event = await world.event("UnknownStrategy", "minik8s-config")
    assert "did you mean min-pods?" in event.message
    assert world.scheduler._settings.strategy.name == "min-pods"


async def test_preemption_evicts_the_lower_and_keeps_the_room(world: World) -> None:
    await world.node("node1", cpu="1")
    await world.pod("low", cpu="1")
    await world.bound("low")
    await world.client.create(PriorityClass, {"metadata": {"name": "vip"}, "value": 1000})
    high = await world.pod("high", cpu="1", priorityClassName="vip")
    assert high.spec.priority == 1000
    event = await world.event("Preempted", "low")
    assert event.message == f"Preempted by pod {high.metadata.uid} on node node1"

    def nominated() -> str:
        found = world.informers.of(Pod).get("default", "high")
        return found.status.nominatedNodeName if found else ""

    await world.until(lambda: nominated() == "node1")
    await world.pod("sneaky", cpu="1")
    low = world.informers.of(Pod).get("default", "low")
    if low is not None:  # it ends gracefully: play the kubelet's part
        await world.client.delete(Pod, "low", "default", grace=0)
    assert await world.bound("high") == ["node1"]
    assert world.at("sneaky") == ""


async def test_a_pod_that_is_deleted_and_made_again_while_it_is_bound(world: World) -> None:
    await world.node("node1", cpu="1")
    for _ in range(5):
        await world.pod("web", cpu="1")
        await asyncio.sleep(0)
        await world.client.delete(Pod, "web", "default", grace=0)
    await world.pod("web", cpu="1")
    assert await world.bound("web") == ["node1"]
    assert world.scheduler.cache.snapshot.nodes["node1"].requested["cpu"] == 1000


async def test_never_more_than_fits_in_a_burst(world: World) -> None:
    for name in ("a", "b"):
        await world.node(name, cpu="1")
    async with asyncio.TaskGroup() as tasks:
        for i in range(30):
            tasks.create_task(world.pod(f"p{i}"))
    await world.until(lambda: sum(bool(world.at(f"p{i}")) for i in range(30)) == 20)
    await world.until(lambda: world.scheduler.queue.counts()["unschedulable"] == 10)
    counts: dict[Any, int] = {}
    for i in range(30):
        counts[world.at(f"p{i}")] = counts.get(world.at(f"p{i}"), 0) + 1
    assert counts == {"a": 10, "b": 10, "": 10}
