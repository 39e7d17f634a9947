"""metrics.k8s.io out of kubelets' summaries: who is asked, how often, and what is made of what they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from minik8s.api.errors import Forbidden, MethodNotAllowed, NotFound, ServiceUnavailable
from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.apiserver import resource_metrics
from minik8s.apiserver.auth import AUTHENTICATED, User
from minik8s.apiserver.resource_metrics import PodUsage, Summaries, Usage, node_metrics, pod_metrics
from minik8s.clock import ManualClock
from minik8s.testing import Cluster, cluster

AT = "2024-05-01T10:00:00Z"
PATH = "/apis/metrics.k8s.io/v1beta1"


def usage(name: str, nano: int | None, memory: int = 5 << 20, window: float = 4.0, at: str = AT) -> dict[str, Any]:
    cpu: dict[str, Any] = {"time": at, "usageWindowSeconds": window}
    if nano is not None:
        cpu["usageNanoCores"] = nano
    return {"name": name, "cpu": cpu, "memory": {"workingSetBytes": memory}}


def test_metrics_of_a_pod() -> None:
    pod = msgspec.convert({"metadata": {"name": "web", "namespace": "shop", "labels": {"a": "b"}}}, Pod)
    containers = [usage("app", 250_000_000), usage("side", 0, 1 << 20, 6.5, "2024-05-01T10:00:01Z")]
    found = pod_metrics(pod, msgspec.convert({"containers": containers}, PodUsage))
    assert found is not None
    assert found["metadata"].pop("creationTimestamp")
    assert found == {
        "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "b"}},
        "timestamp": "2024-05-01T10:00:01Z",
        "window": "6.500s",
        "containers": [
            {"name": "app", "usage": {"cpu": "250000000n", "memory": "5120Ki"}},
            {"name": "side", "usage": {"cpu": "0n", "memory": "1024Ki"}},
        ],
    }
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"containers": [usage("app", -1)]}, PodUsage)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"containers": [usage("app", 1, at="yesterday")]}, PodUsage)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"containers": [usage("app", 1, at="2024-05-01T10:00:00")]}, PodUsage)
    half = [usage("app", 1), usage("side", None)]
    assert pod_metrics(pod, msgspec.convert({"containers": half}, PodUsage)) is None
    assert pod_metrics(pod, PodUsage()) is None
    assert node_metrics(Node(), msgspec.convert(usage("", None), Usage)) is None


def node(name: str) -> Node:
    return msgspec.convert({"metadata": {"name": name}}, Node)


async def test_each_node_is_asked_once_for_all() -> None:
    asked: list[str] = []
    tick = ManualClock(0.0)

    async def fetch(one: Node) -> bytes:
        asked.append(one.metadata.name)
        await asyncio.sleep(0)
        if one.metadata.name == "away":
            raise ServiceUnavailable("no route")
        if one.metadata.name == "mad":
            return b"<html>"
        return b'{"node":{"memory":{"workingSetBytes":7}}}'

    summaries = Summaries(fetch, tick=tick)
    nodes = [node("a"), node("b"), node("away"), node("mad")]
    every = await asyncio.gather(*(summaries.of(nodes) for _ in range(10)))
    assert [sorted(found) for found in every] == [["a", "b"]] * 10
    assert sorted(asked) == ["a", "away", "b", "mad"]
    asked.clear()
    tick.advance(resource_metrics.FRESH + 0.1)
    await summaries.of(nodes)
    assert sorted(asked) == ["a", "b"]  # who was silent is left alone for longer
    asked.clear()
    tick.advance(resource_metrics.SILENT)
    await summaries.of(nodes[2:])
    assert sorted(asked) == ["away", "mad"]


async def test_a_node_that_hangs_holds_nobody_for_long() -> None:
    async def fetch(one: Node) -> bytes:
        if one.metadata.name == "hangs":
            await asyncio.Event().wait()
        return b"{}"

    summaries = Summaries(fetch, patience=0.05)
    async with asyncio.timeout(5):
        assert list(await summaries.of([node("hangs"), node("a")])) == ["a"]
        # Whoever gives up waiting does not take the answer from the others.
        slow = asyncio.create_task(summaries.of([node("a")]))
        slow.cancel()
        assert list(await summaries.of([node("a")])) == ["a"]


@pytest.fixture(scope="module")
def web() -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    selector = {"matchLabels": {"app": "web"}}
    return {"metadata": {"name": "web"}, "spec": {"replicas": 3, "selector": selector, "template": template}}


@pytest.fixture
async def it(web: dict[str, Any]) -> AsyncIterator[Cluster]:
    async with cluster(nodes=2) as made:
        await made.client.create(Deployment, web, "default")
        await made.until(Deployment, lambda deployment: deployment.status.readyReplicas == 3)
        yield made


async def measured(it: Cluster, path: str, wanted: int, **query: str) -> list[dict[str, Any]]:
    """The items, once there are so many: a container has to have run for a second."""
    async with asyncio.timeout(10):
        while True:
            answer = msgspec.json.decode(await it.client.transport.request("GET", PATH + path, query=query))
            if len(answer["items"]) >= wanted:
                return list(answer["items"])
            await asyncio.sleep(0.2)


async def test_it_is_served_with_selectors_and_rights(it: Cluster) -> None:
    pods = await measured(it, "/namespaces/default/pods", 3, labelSelector="app=web")
    assert {pod["kind"] for pod in pods} == {"PodMetrics"}
    assert all(pod["containers"][0]["usage"]["memory"] == "1024Ki" for pod in pods)
    assert await measured(it, "/pods", 0, labelSelector="app!=web") == []
    name = pods[0]["metadata"]["name"]
    assert len(await measured(it, "/pods", 1, fieldSelector=f"metadata.name={name}")) == 1
    assert len(await measured(it, "/nodes", 2)) == 2
    transport = it.client.transport
    one = msgspec.json.decode(await transport.request("GET", f"{PATH}/namespaces/default/pods/{name}"))
    assert one["metadata"]["name"] == name
    with pytest.raises(NotFound, match=r'pods\.metrics\.k8s\.io "nope" not found'):
        await transport.request("GET", f"{PATH}/namespaces/default/pods/nope")
    with pytest.raises(MethodNotAllowed):
        await transport.request("DELETE", f"{PATH}/namespaces/default/pods/{name}")
    with pytest.raises(MethodNotAllowed):
        await transport.request("GET", f"{PATH}/pods", query={"watch": "true"})
    nobody = it.master.client(User("nobody", (AUTHENTICATED,)))
    with pytest.raises(Forbidden, match=r"metrics\.k8s\.io"):
        await nobody.transport.request("GET", f"{PATH}/nodes")
    # What a node no longer says is not said here either.
    it.master.kubelets.here.clear()
    gone = await asyncio.wait_for(_until_empty(it), 10)
    assert gone


async def _until_empty(it: Cluster) -> bool:
    while await measured(it, "/nodes", 0):
        await asyncio.sleep(0.2)
    return True
