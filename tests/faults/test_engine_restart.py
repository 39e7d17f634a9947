"""dockerd is stopped, killed and started again, on a host of its own: pods end up running, once each."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import is_true
from minik8s.client.base import Client
from tests.agent import Agent, Failed
from tests.faults.api import admin, gone, is_ready, pod, ready
from tests.faults.host import Host
from tests.lab.host import INSIDE, LabHost
from tests.patience import patience

pytestmark = [pytest.mark.faults, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]
PODS = 5


@pytest.fixture(
    scope="module",
    params=[(), pytest.param(("--live-restore",), marks=pytest.mark.long)],
    ids=["plain", "live-restore"],
)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    if lacking := LabHost.lacking():
        pytest.skip(lacking)
    with LabHost(tmp_path_factory.mktemp("lab")) as lab:
        lab.options = request.param
        lab.start_engine()
        lab.make_images("busybox")
        yield lab


@pytest.fixture
def agent(lab: LabHost, tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "data", prefix=lab.prefix, address=INSIDE)
    try:
        yield agent.start()
    finally:
        code = agent.stop()
    assert code == 0
    assert "Traceback" not in agent.log


async def everything_runs(client: Client, count: int, seconds: float) -> dict[str, Pod]:
    found: list[Pod] = []
    deadline = time.monotonic() + patience(seconds)
    while time.monotonic() < deadline:
        found = list((await client.list(Pod, "default")).items)
        if len(found) == count and all(map(is_ready, found)):
            return {one.metadata.name: one for one in found}
        await asyncio.sleep(0.1)
    raise Failed(f"not everything runs: {[(one.metadata.name, one.status) for one in found]}")


async def node_is_ready(client: Client) -> bool:
    (node,) = (await client.list(Node)).items
    return is_true(node.status.conditions, "Ready")


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL], ids=lambda number: number.name
)
async def test_the_engine_goes_and_comes_back(agent: Agent, lab: LabHost, number: signal.Signals) -> None:
    host = Host(agent)
    async with admin(agent) as client:
        labels = {"app": "web"}
        template = {"metadata": {"labels": labels}, "spec": pod("x")["spec"]}
        spec = {"replicas": PODS - 1, "selector": {"matchLabels": labels}, "template": template}
        await client.create(Deployment, {"metadata": {"name": "web"}, "spec": spec}, "default")
        await client.create(Pod, pod("alone"), "default")
        before = await everything_runs(client, PODS, 40)
        pids = host.pids()
        assert len(pids) == 2 * PODS

        await asyncio.to_thread(lab.kill_engine, number)
        # The API goes on, and says what is wrong with the node.
        await client.create(ConfigMap, {"metadata": {"name": "during"}}, "default")
        await client.create(Pod, pod("during"), "default")
        await client.delete(Pod, "alone", "default")
        deadline = time.monotonic() + patience(30)
        while await node_is_ready(client):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert await asyncio.to_thread(lambda: agent.pid)

        began = time.monotonic()
        await asyncio.to_thread(lab.start_engine)
        back = time.monotonic() - began
        await gone(client, "alone", seconds=patience(40))
        after = await everything_runs(client, PODS, 60)
        pods_back = time.monotonic() - began
        while not await node_is_ready(client):
            assert time.monotonic() - began < patience(40)
            await asyncio.sleep(0.1)
        node_back = time.monotonic() - began
        print(f"{number.name} {lab.options}: engine after {back:.1f}, pods {pods_back:.1f}, node {node_back:.1f} s")
        uids = {one.metadata.uid for one in after.values()}
        assert {name: one.metadata.uid for name, one in before.items() if name != "alone"} == {
            name: one.metadata.uid for name, one in after.items() if name != "during"
        }
        for name in after.keys() & before.keys():
            assert after[name].status.podIP == before[name].status.podIP
        if lab.options:
            kept = {name: pid for name, pid in pids.items() if "_alone_" not in name}
            assert kept.items() <= host.pids().items()
            assert all(one.restartCount == 0 for pod in after.values() for one in pod.status.containerStatuses)
        deadline = time.monotonic() + patience(40)
        while left := await asyncio.to_thread(host.leftovers, uids):
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.2)
        # And it is as alive as before.
        victim = host.container("during")
        host.docker("kill", victim.id)
        await until_restarted(client, "during")
        await client.delete(Deployment, "web", "default", propagation="Foreground")
        await client.delete(Pod, "during", "default", grace=0)
        await gone(client, seconds=patience(40))
        deadline = time.monotonic() + patience(40)
        while left := await asyncio.to_thread(host.leftovers, set()):
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.2)


async def until_restarted(client: Client, name: str) -> None:
    deadline = time.monotonic() + patience(20)
    while (await ready(client, name)).status.containerStatuses[0].restartCount != 1:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
