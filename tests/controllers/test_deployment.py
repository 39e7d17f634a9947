"""Deployments against the real API server: rolling out, back, paused, stuck."""

from __future__ import annotations

import asyncio

import pytest

from minik8s.api.kinds.daemonset import DaemonSet
from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.kinds.service import Service
from minik8s.api.meta import condition
from minik8s.controllers.pod_facts import is_active, is_ready
from minik8s.controllers.rollout import REVISION
from minik8s.controllers.settings import Settings

from .cluster import Cluster, control_plane, image_of, workload
from .objects import NOW

PATIENT = Settings(node_monitor_grace=1e9)  # nobody renews leases here


def done(cluster: Cluster, name: str = "web") -> Deployment | None:
    """What `kubectl rollout status` waits for."""
    found = cluster.get(Deployment, name)
    if found is None or found.status.observedGeneration < found.metadata.generation:
        return None
    status, wanted = found.status, found.spec.replicas
    complete = status.updatedReplicas == status.replicas == status.availableReplicas == wanted
    return found if complete else None


async def set_image(cluster: Cluster, image: str) -> None:
    template = {"spec": {"containers": [{"name": "c", "image": image}]}}
    await cluster.client.patch(
        Deployment, "web", "default", {"spec": {"template": template}},
        content_type="application/strategic-merge-patch+json",
    )  # fmt: skip


async def start(cluster: Cluster, replicas: int = 3, **spec: object) -> Deployment:
    await cluster.client.create(Deployment, workload(replicas=replicas, **spec))
    return await cluster.until(lambda: done(cluster))


async def test_rolls_out_and_tells_of_it(cluster: Cluster):
    deployment = await start(cluster)
    progress = condition(deployment.status.conditions, "Progressing")
    available = condition(deployment.status.conditions, "Available")
    rs = cluster.all(ReplicaSet)[0]
    assert (progress.status, progress.reason) == ("True", "NewReplicaSetAvailable")
    assert progress.message == f'ReplicaSet "{rs.metadata.name}" has successfully progressed.'
    assert (available.status, available.reason) == ("True", "MinimumReplicasAvailable")
    mark = rs.metadata.labels["pod-template-hash"]
    assert rs.metadata.name == f"web-{mark}"
    assert rs.spec.selector.matchLabels == {"app": "web", "pod-template-hash": mark}
    assert all(pod.metadata.labels["pod-template-hash"] == mark for pod in cluster.all(Pod))
    await cluster.until(lambda: cluster.get(Deployment, "web").metadata.annotations.get(REVISION) == "1")
    event = (await cluster.events("ScalingReplicaSet"))[0]
    assert event.message == f"Scaled up replica set {rs.metadata.name} from 0 to 3"


async def test_rolling_update_stays_within_its_bounds_and_undo_finds_the_old_set(cluster: Cluster):
    await start(cluster, 10)
    first = cluster.all(ReplicaSet)[0].metadata.name
    pods, most, least = cluster.informers.of(Pod), 0, 99

    def watch(old: Pod | None, new: Pod | None) -> None:
        nonlocal most, least
        active = [pod for pod in pods.list() if is_active(pod)]
        most, least = max(most, len(active)), min(least, sum(map(is_ready, active)))

    pods.on_change(watch)
    most, least = 0, 99
    await set_image(cluster, "img:2")
    await cluster.until(lambda: done(cluster) and all("img:2" in image_of(pod) for pod in cluster.all(Pod)))
    assert (most, least) == (13, 8)
    await cluster.settle()
    old = cluster.get(ReplicaSet, first)
    assert (old.spec.replicas, old.metadata.annotations[REVISION]) == (0, "1")
    assert cluster.get(Deployment, "web").metadata.annotations[REVISION] == "2"
    await set_image(cluster, "img:1")  # as `kubectl rollout undo` does
    await cluster.until(lambda: done(cluster) and all("img:1" in image_of(pod) for pod in cluster.all(Pod)))
    await cluster.settle()
    back = cluster.get(ReplicaSet, first)
    assert back.spec.replicas == 10
    assert back.metadata.annotations[REVISION] == "3"
    assert back.metadata.annotations["deployment.kubernetes.io/revision-history"] == "1"
    assert cluster.get(Deployment, "web").metadata.annotations[REVISION] == "3"
    assert len(cluster.all(ReplicaSet)) == 2


async def test_recreate_never_mixes_versions(cluster: Cluster):
    await start(cluster, strategy={"type": "Recreate"})
    mixed = []

    def watch(old: Pod | None, new: Pod | None) -> None:
        images = {image for pod in cluster.informers.of(Pod).list() for image in image_of(pod)}
        mixed.append(len(images) > 1)

    cluster.informers.of(Pod).on_change(watch)
    await set_image(cluster, "img:2")
    await cluster.until(lambda: done(cluster) and all("img:2" in image_of(pod) for pod in cluster.all(Pod)))
    assert not any(mixed)


async def test_paused_collects_changes_and_scales(cluster: Cluster):
    await start(cluster)
    await cluster.client.patch(Deployment, "web", "default", {"spec": {"paused": True}})
    await cluster.until(
        lambda: condition(cluster.get(Deployment, "web").status.conditions, "Progressing").reason == "DeploymentPaused"
    )
    await set_image(cluster, "img:2")
    await cluster.client.patch(Deployment, "web", "default", {"spec": {"replicas": 5}})
    await cluster.until(lambda: cluster.get(Deployment, "web").status.availableReplicas == 5)
    await cluster.settle()
    assert len(cluster.all(ReplicaSet)) == 1
    await cluster.client.patch(Deployment, "web", "default", {"spec": {"paused": False}})
    await cluster.until(lambda: done(cluster) and all("img:2" in image_of(pod) for pod in cluster.all(Pod)))
    await cluster.settle()
    progress = condition(cluster.get(Deployment, "web").status.conditions, "Progressing")
    assert progress.reason == "NewReplicaSetAvailable"


async def test_scale_up_and_down(cluster: Cluster):
    await start(cluster)
    for size in (7, 2, 0, 4):
        await cluster.client.patch(Deployment, "web", "default", {"spec": {"replicas": size}})
        await cluster.until(lambda size=size: done(cluster) and len(cluster.all(Pod)) == size)
    assert len(cluster.all(ReplicaSet)) == 1


async def test_history_limit(cluster: Cluster):
    await start(cluster, 1, revisionHistoryLimit=1)
    for number in range(2, 6):
        await set_image(cluster, f"img:{number}")
        await cluster.until(
            lambda n=number: done(cluster) and all(f"img:{n}" in image_of(pod) for pod in cluster.all(Pod))
        )
    await cluster.until(lambda: len(cluster.all(ReplicaSet)) == 2)


async def test_a_taken_name_leads_to_another(cluster: Cluster):
    await start(cluster, 1)
    name = cluster.all(ReplicaSet)[0].metadata.name
    await cluster.client.delete(Deployment, "web", "default")
    await cluster.until(lambda: not cluster.all(ReplicaSet) and not cluster.all(Pod))
    stranger = workload("stranger", replicas=0)
    stranger["metadata"]["name"] = name
    await cluster.client.create(ReplicaSet, stranger)
    deployment = await start(cluster, 1)
    assert deployment.status.collisionCount == 1
    assert len(cluster.all(ReplicaSet)) == 2


async def test_a_field_that_the_structs_do_not_know_rolls_out_too(cluster: Cluster):
    await start(cluster, 1)
    await cluster.client.patch(
        Deployment, "web", "default", {"spec": {"template": {"spec": {"runtimeClassName": "other"}}}}
    )
    await cluster.until(lambda: len(cluster.all(ReplicaSet)) == 2 and done(cluster))
    raw = await cluster.client.raw(Pod, cluster.all(Pod)[0].metadata.name, "default")
    assert raw["spec"]["runtimeClassName"] == "other"


@pytest.mark.looptime
async def test_a_stuck_rollout_is_called_so_at_its_deadline():
    loop = asyncio.get_running_loop()
    async with control_plane(clock=lambda: NOW + loop.time()) as cluster:
        cluster.kubelet.behave = lambda pod: None  # never becomes ready
        await cluster.client.create(Deployment, workload(replicas=2, progressDeadlineSeconds=60))

        def stuck() -> Deployment | None:
            found = cluster.get(Deployment, "web")
            progress = condition(found.status.conditions, "Progressing") if found else None
            return found if progress and progress.status == "False" else None

        found = await cluster.until_virtual(stuck, 200)
        progress = condition(found.status.conditions, "Progressing")
        assert progress.reason == "ProgressDeadlineExceeded"
        assert progress.message == f'ReplicaSet "{cluster.all(ReplicaSet)[0].metadata.name}" has timed out progressing.'
        assert 58 <= loop.time() <= 64
        assert condition(found.status.conditions, "Available").reason == "MinimumReplicasUnavailable"


@pytest.mark.looptime
async def test_pods_are_available_after_min_ready_seconds():
    loop = asyncio.get_running_loop()
    async with control_plane(clock=lambda: NOW + loop.time(), settings=PATIENT) as cluster:
        await cluster.client.create(Deployment, workload(replicas=3, minReadySeconds=30))
        await cluster.until_virtual(lambda: (d := cluster.get(Deployment, "web")) and d.status.readyReplicas == 3, 5)
        assert cluster.get(Deployment, "web").status.availableReplicas == 0
        await cluster.until_virtual(lambda: done(cluster), 60)
        assert 29 <= loop.time() <= 32


@pytest.mark.looptime
async def test_nothing_is_written_when_nothing_changes():
    """Ten minutes with a Deployment, a DaemonSet and a Service at rest: the store's revision stands still."""
    loop = asyncio.get_running_loop()
    async with control_plane(clock=lambda: NOW + loop.time(), settings=PATIENT) as cluster:
        await cluster.client.create(Deployment, workload(replicas=5))
        await cluster.client.create(DaemonSet, workload("agent"))
        body = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
        await cluster.client.create(Service, {"metadata": {"name": "web", "namespace": "default"}, "spec": body})
        await cluster.until_virtual(lambda: done(cluster), 30)
        await asyncio.sleep(30)
        before = (await cluster.client.list(Pod)).metadata.resourceVersion
        await asyncio.sleep(600)
        assert (await cluster.client.list(Pod)).metadata.resourceVersion == before
