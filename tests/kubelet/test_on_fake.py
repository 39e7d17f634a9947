"""The kubelet on a runtime without containers, in virtual time: back-off, lost masters, lost engines, many nodes."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from minik8s.aio import background
from minik8s.api.kinds.lease import Lease
from minik8s.api.kinds.node import Node as NodeObject
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import is_true
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.kubelet.kit import Settings
from minik8s.kubelet.kubelet import Kubelet
from minik8s.kubelet.node_status import NameTaken
from minik8s.kubelet.pod_source import SharedPods
from minik8s.net.fake import FakePodNetwork
from minik8s.runtime.base import ContainerInfo, SandboxSpec, StartFailed
from minik8s.runtime.fake import FakeRuntime

from .node import NODE, Cuttable, api_server, eventually, is_ready, node, restarts, waiting

pytestmark = pytest.mark.looptime
APP = {"name": "app", "image": "web:1"}
BEGIN = 1_700_000_000.0


def clock() -> float:
    return BEGIN + asyncio.get_running_loop().time()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with api_server(clock) as client:
        yield client


@pytest.fixture
async def runtime() -> AsyncIterator[FakeRuntime]:
    async with FakeRuntime(clock=clock) as runtime:
        yield runtime


@pytest.fixture
def transport(client: Client) -> Cuttable:
    return Cuttable(client.transport)


class Stubborn(FakeRuntime):
    """Goes on making a sandbox when nobody waits for it any more, as Docker Engine does, and tells of it to nobody."""

    async def create_sandbox(self, spec: SandboxSpec) -> str:
        self.making = asyncio.create_task(self._slowly(spec))
        return await asyncio.shield(self.making)

    async def _slowly(self, spec: SandboxSpec) -> str:
        await asyncio.sleep(1)
        listeners, self._listeners = self._listeners, []
        made = await super().create_sandbox(spec)
        self._listeners = listeners
        return made


async def test_what_the_engine_finished_after_the_pods_end_goes_too(client: Client):
    async with Stubborn(clock=clock) as runtime, node(client, runtime, None, clock=clock) as one:
        pod = await one.create("brief", APP)
        await eventually(lambda: _begun(runtime))
        await one.delete("brief", grace=0)
        await runtime.making
        assert len(await runtime.containers(pod.metadata.uid)) == 1
        await asyncio.sleep(5)  # the next list of everything is a minute away
        assert await runtime.containers(pod.metadata.uid) == []


async def _begun(runtime: Stubborn) -> bool:
    return hasattr(runtime, "making")


class Counting(FakeRuntime):
    looks = 0

    lists = 0

    async def containers(self, pod_uid: str | None = None) -> list[ContainerInfo]:
        self.lists += pod_uid is not None
        return await super().containers(pod_uid)

    async def inspect(self, container_ids: Sequence[str]) -> list[ContainerInfo]:
        self.looks += bool(container_ids)
        return await super().inspect(container_ids)


async def test_a_start_costs_one_look_and_one_status(client: Client):
    async with Counting(clock=clock) as runtime, node(client, runtime, None, clock=clock) as one:
        versions = []
        one._pods.on_change(lambda old, new: versions.append(new))
        await asyncio.sleep(1)  # it has heard from the API which pods are its own
        await one.create("cheap", APP, {"name": "second", "image": "web:1"})
        await one.ready("cheap")
        await asyncio.sleep(10)
        assert len(versions) == 2  # as it was made, and ready
        assert (runtime.looks, runtime.lists) == (1, 0)  # what the engine has of the pod was made by us
        await one.delete("cheap")
        assert runtime.lists == 1  # before it is called gone


async def test_crashes_are_backed_off_in_kubelets_steps(client: Client, runtime: FakeRuntime):
    async with node(client, runtime, None, clock=clock) as one:
        await one.create("crash", APP)
        pod = await one.ready("crash")
        waits = []
        for number in range(6):
            info = (await one.seen(pod))["app"]
            runtime.exit(info.id, 1)
            begun = clock()
            await one.until("crash", lambda pod, n=number: restarts(pod, "app") == n + 1 and is_ready(pod), 400)
            waits.append(round(clock() - begun))
        assert waits == [0, 10, 20, 40, 80, 160]
        assert any("BackOff Back-off restarting failed container app" in line for line in await one.events("crash"))


async def test_a_pull_that_fails_is_tried_again_with_back_off(client: Client):
    async with FakeRuntime(images=(), clock=clock) as runtime, node(client, runtime, None, clock=clock) as one:
        runtime.missing_images.add("web:1")
        await one.create("pull", APP)
        await one.until("pull", lambda pod: waiting(pod, "app") == "ErrImagePull")
        await one.until("pull", lambda pod: waiting(pod, "app") == "ImagePullBackOff")
        runtime.missing_images.clear()
        begun = clock()
        await one.ready("pull")
        assert 5 < clock() - begun < 12


async def test_a_start_that_fails_counts_as_a_crash(client: Client, runtime: FakeRuntime):
    async with node(client, runtime, None, clock=clock) as one:
        runtime.fail_next("start", StartFailed("no such file"), times=1)
        await one.create("start", APP)
        pod = await one.ready("start")
        assert restarts(pod, "app") == 1


async def test_the_masters_absence_stops_nothing_and_removes_nothing(
    transport: Cuttable, client: Client, runtime: FakeRuntime
):
    away = Client(transport)
    async with node(away, runtime, None, clock=clock) as one:
        await one.create("stay", APP)
        pod = await one.ready("stay")
        transport.cut()
        await runtime.create_sandbox(SandboxSpec("stranger", "s", "default", "s"))
        runtime.exit((await one.seen(pod))["app"].id, 1)

        async def restarted() -> bool:
            info = (await one.seen(pod))["app"]
            return info.attempt == 1 and info.state == "running"

        await eventually(restarted)
        transport.heal()
        await one.until("stay", lambda pod: restarts(pod, "app") == 1 and is_ready(pod), 120)


async def test_a_restart_while_the_master_is_away_goes_on_from_the_cache(
    transport: Cuttable, client: Client, runtime: FakeRuntime, tmp_path: Path
):
    network = FakePodNetwork()
    async with node(client, runtime, tmp_path, network, clock=clock) as one:
        await one.create("stay", APP)
        pod = await one.ready("stay")
        await asyncio.sleep(3)  # the cache is written a second after a change
        before = await one.seen(pod)
    assert (tmp_path / "kubelet" / "cache").stat().st_mode & 0o777 == 0o600
    transport.cut()
    await runtime.create_sandbox(SandboxSpec("stranger", "s", "default", "s"))
    async with node(Client(transport), runtime, tmp_path, network, clock=clock, registered=False) as one:
        await asyncio.sleep(30)
        assert {n: i.id for n, i in (await one.seen(pod)).items()} == {n: i.id for n, i in before.items()}
        runtime.exit(before["app"].id, 1)
        await asyncio.sleep(30)
        now = (await one.seen(pod))["app"]
        assert (now.attempt, now.state) == (1, "running")
        assert await runtime.containers("stranger")  # it may be somebody's whom we have not heard of yet
        transport.heal()
        await one.until("stay", lambda pod: restarts(pod, "app") == 1, 120)

        async def removed() -> bool:
            return not await runtime.containers("stranger")

        await eventually(removed, 120)


async def test_an_engine_that_is_gone_makes_the_node_unready_in_words(client: Client, runtime: FakeRuntime):
    async with node(client, runtime, None, clock=clock) as one:
        await one.create("stay", APP)
        pod = await one.ready("stay")
        before = await one.seen(pod)
        runtime.stop_engine()

        async def unready() -> bool:
            found = await client.get(NodeObject, NODE)
            ready = next(c for c in found.status.conditions if c.type == "Ready")
            return ready.status == "False" and "container runtime is down" in ready.message

        await eventually(unready, 60)
        runtime.start_engine()

        async def ready() -> bool:
            return is_true((await client.get(NodeObject, NODE)).status.conditions, "Ready")

        await eventually(ready, 60)
        assert await one.seen(pod) == before


async def test_a_node_registers_with_all_that_people_look_at_and_beats(client: Client, runtime: FakeRuntime):
    async with node(client, runtime, None, clock=clock, node_uid="a1"):
        found = await client.get(NodeObject, NODE)
        assert is_true(found.status.conditions, "Ready")
        assert {a.type for a in found.status.addresses} == {"InternalIP", "Hostname"}
        assert found.metadata.labels["kubernetes.io/hostname"] == NODE
        assert {"cpu", "memory", "pods", "ephemeral-storage"} <= set(found.status.allocatable)
        assert found.status.nodeInfo.containerRuntimeVersion.startswith("fake://")
        await asyncio.sleep(1)
        first = (await client.get(Lease, NODE, "kube-node-lease")).spec.renewTime
        await asyncio.sleep(6)
        assert (await client.get(Lease, NODE, "kube-node-lease")).spec.renewTime > first


async def test_a_registered_node_is_adopted_with_its_labels_and_a_taken_name_refused(
    client: Client, runtime: FakeRuntime
):
    meta = {"name": NODE, "labels": {"mine": "1"}, "annotations": {"note": "x"}}
    await client.create(NodeObject, {"metadata": meta, "spec": {"unschedulable": True}})
    async with node(client, runtime, None, clock=clock, node_uid="a1"):
        found = await client.get(NodeObject, NODE)
        assert found.metadata.labels["mine"] == "1"
        assert found.metadata.annotations["note"] == "x"
        assert found.spec.unschedulable
        assert is_true(found.status.conditions, "Ready")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with node(client, runtime, None, clock=clock, node_uid="b2"):
            await asyncio.sleep(5)
    assert caught.group_contains(NameTaken)


async def test_random_host_ports_are_chosen_once_and_told(client: Client, runtime: FakeRuntime):
    network = FakePodNetwork()
    async with node(client, runtime, None, network, clock=clock) as one:
        ports = [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 1, "hostPort": 9}]
        annotations = {"minik8s.io/random-host-port": "true"}
        await one.create("ports", {**APP, "ports": ports}, metadata={"annotations": annotations})
        pod = await one.ready("ports")
        chosen = json.loads((await client.get(Pod, "ports", "default")).metadata.annotations["minik8s.io/host-ports"])
        assert set(chosen) == {"80/TCP", "53/UDP"}
        mapped = {(p.container_port, p.host_port) for p in network.host_ports[pod.metadata.uid]}
        assert mapped == {(80, chosen["80/TCP"]), (53, chosen["53/UDP"]), (1, 9)}
        await one.delete("ports")
        assert not network.host_ports.get(pod.metadata.uid)


async def test_a_forced_delete_leaves_nothing(client: Client, runtime: FakeRuntime):
    async with node(client, runtime, None, clock=clock) as one:
        await one.create("force", APP)
        pod = await one.ready("force")
        await client.delete(Pod, "force", "default", grace=0)

        async def gone() -> bool:
            return not await runtime.containers(pod.metadata.uid)

        await eventually(gone)
        assert not one.kubelet.workers_by_uid


async def test_deadlines_end_pods(client: Client, runtime: FakeRuntime):
    async with node(client, runtime, None, clock=clock) as one:
        await one.create("late", APP, activeDeadlineSeconds=30)
        await one.ready("late")
        pod = await one.until("late", lambda pod: pod.status.phase == "Failed", 60)
        assert pod.status.reason == "DeadlineExceeded"


async def test_a_condition_of_somebody_else_survives_our_status(client: Client, runtime: FakeRuntime):
    async with node(client, runtime, None, clock=clock) as one:
        await one.create("gate", APP, readinessGates=[{"conditionType": "lb"}])
        await one.until("gate", lambda pod: is_true(pod.status.conditions, "ContainersReady"))
        condition = {"type": "lb", "status": "True"}
        kind = "application/strategic-merge-patch+json"
        patch = {"status": {"conditions": [condition]}}
        await client.patch(Pod, "gate", "default", patch, subresource="status", content_type=kind)
        pod = await one.ready("gate")
        assert is_true(pod.status.conditions, "lb")


async def test_many_nodes_share_one_watch(client: Client, runtime: FakeRuntime):
    informers = Informers(client)
    recorder = Recorder(client, "kubelet")
    shared = SharedPods(informers.of(Pod))
    kubelets = []
    for number in range(50):
        setup = Settings(node_name=f"node-{number}", node_ip="10.0.0.1", data_dir=None, workers=1)
        engine = FakeRuntime(clock=clock)
        pods = shared.of(setup.node_name)
        kubelets.append(
            Kubelet(client, informers, engine, FakePodNetwork(), recorder, setup, clock, pods=pods, engine="fake")
        )
    async with background(informers.run(), recorder.run(), *(kubelet.run() for kubelet in kubelets)):
        for number in range(50):
            spec = {"containers": [APP], "nodeName": f"node-{number}", "automountServiceAccountToken": False}
            await client.create(Pod, {"metadata": {"name": f"p{number}"}, "spec": spec}, "default")

        async def up() -> bool:
            found = await client.list(Pod, "default")
            return all(is_ready(pod) for pod in found.items)

        await eventually(up, 60)
        nodes = await client.list(NodeObject)
        assert len(nodes.items) == 50


@pytest.mark.parametrize("seed", range(6))
async def test_cut_anywhere_and_resumed_it_ends_right(seed: int, client: Client, runtime: FakeRuntime, tmp_path: Path):
    """The agent is stopped at random moments while pods come and go; nothing is doubled, lost or left."""
    rng, network = random.Random(seed), FakePodNetwork()
    hook = {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}
    for round in range(5):
        async with node(client, runtime, tmp_path, network, clock=clock, registered=False) as one:
            for number in range(3):
                await one.create(f"p{round}-{number}", APP, {**APP, "name": "b", **hook}, init=({"name": "i"},))
            if round:
                await client.delete(Pod, f"p{round - 1}-0", "default")
            for info in await runtime.containers():
                if info.name == "i" and info.state == "running" and rng.random() < 0.7:
                    runtime.exit(info.id, 0)
            await asyncio.sleep(rng.random() * rng.choice((0.001, 0.1, 3)))
    async with node(client, runtime, tmp_path, network, clock=clock) as one:
        wanted = [f"p{r}-{n}" for r in range(5) for n in range(3) if n or r == 4]

        async def right() -> bool:
            for info in await runtime.containers():
                if info.name == "i" and info.state == "running":
                    runtime.exit(info.id, 0)
            pods = {pod.metadata.name: pod for pod in (await client.list(Pod, "default")).items}
            return sorted(pods) == sorted(wanted) and all(is_ready(pod) for pod in pods.values())

        await eventually(right, 120)
        pods = (await client.list(Pod, "default")).items
        running = [i for i in await runtime.containers() if i.state == "running"]
        assert len(running) == 3 * len(pods)
        assert len({(i.pod_uid, i.name) for i in running}) == len(running)
        assert set(await network.known()) == {pod.metadata.uid for pod in pods}


async def test_a_new_image_restarts_only_that_container(client: Client, runtime: FakeRuntime):
    async with node(client, runtime, None, clock=clock) as one:
        await one.create("img", APP, {**APP, "name": "other"})
        pod = await one.ready("img")
        before = await one.seen(pod)
        kind = "application/strategic-merge-patch+json"
        patch = {"spec": {"containers": [{"name": "app", "image": "web:2"}]}}
        await client.patch(Pod, "img", "default", patch, content_type=kind)
        pod = await one.until("img", lambda pod: restarts(pod, "app") == 1 and is_ready(pod))
        after = await one.seen(pod)
        assert after["app"].image == "web:2"
        assert after["other"].id == before["other"].id
        assert any("definition changed, will be restarted" in line for line in await one.events("img"))


async def test_a_finalizer_holds_the_object_but_not_its_containers(client: Client, runtime: FakeRuntime):
    async with node(client, runtime, None, clock=clock) as one:
        await one.create("held", APP, metadata={"finalizers": ["example.com/hold"]})
        pod = await one.ready("held")
        await client.delete(Pod, "held", "default")
        await one.until("held", lambda pod: pod.status.phase in ("Failed", "Succeeded"))

        async def empty() -> bool:
            return not await runtime.containers(pod.metadata.uid)

        await eventually(empty)
        await client.patch(Pod, "held", "default", {"metadata": {"finalizers": None}})
        await one.gone("held")
