"""ReplicaSets against the real API server."""

from __future__ import annotations

import time

from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.controllers.pod_facts import is_active

from .cluster import Cluster, workload


async def test_keeps_as_many_as_wanted(cluster: Cluster):
    await cluster.client.create(ReplicaSet, workload(replicas=3))
    ready = await cluster.until(
        lambda: (rs := cluster.get(ReplicaSet, "web")) and rs.status.availableReplicas == 3 and rs
    )
    assert (ready.status.replicas, ready.status.fullyLabeledReplicas, ready.status.readyReplicas) == (3, 3, 3)
    assert ready.status.observedGeneration == ready.metadata.generation
    pods = cluster.all(Pod)
    owner = pods[0].controller
    assert (owner.kind, owner.name, owner.uid, owner.blockOwnerDeletion) == (
        "ReplicaSet",
        "web",
        ready.metadata.uid,
        True,
    )
    await cluster.client.delete(Pod, pods[0].metadata.name, "default")
    await cluster.until(
        lambda: pods[0].metadata.name not in [p.metadata.name for p in cluster.all(Pod)] and len(cluster.all(Pod)) == 3
    )
    await cluster.client.patch(ReplicaSet, "web", "default", {"spec": {"replicas": 1}})
    await cluster.until(lambda: len(cluster.all(Pod)) == 1 and cluster.get(ReplicaSet, "web").status.replicas == 1)
    await cluster.settle()
    assert len(await cluster.events("SuccessfulCreate")) == 4
    assert len(await cluster.events("SuccessfulDelete")) == 2
    raw = await cluster.client.raw(ReplicaSet, "web", "default")
    assert raw["status"]["replicas"] == 1


async def test_scale_to_zero_clears_the_counts(cluster: Cluster):
    await cluster.client.create(ReplicaSet, workload(replicas=2))
    await cluster.until(lambda: (rs := cluster.get(ReplicaSet, "web")) and rs.status.readyReplicas == 2)
    await cluster.client.patch(ReplicaSet, "web", "default", {"spec": {"replicas": 0}})
    await cluster.until(lambda: not cluster.all(Pod) and not cluster.get(ReplicaSet, "web").status.replicas)
    await cluster.settle()
    raw = await cluster.client.raw(ReplicaSet, "web", "default")
    assert raw["status"]["replicas"] == 0
    assert "readyReplicas" not in raw["status"]


async def test_thirty_pods_in_a_moment_and_never_too_many(cluster: Cluster):
    most = 0

    def count(old: Pod | None, new: Pod | None) -> None:
        nonlocal most
        most = max(most, sum(is_active(pod) for pod in cluster.informers.of(Pod).list()))

    cluster.informers.of(Pod).on_change(count)
    started = time.perf_counter()
    await cluster.client.create(ReplicaSet, workload(replicas=30))
    await cluster.until(lambda: len(cluster.all(Pod)) == 30)
    seconds = time.perf_counter() - started
    print(f"30 pods created in {seconds * 1000:.0f} ms")
    await cluster.until(lambda: cluster.get(ReplicaSet, "web").status.availableReplicas == 30)
    await cluster.settle()
    assert most == 30
    assert seconds < 2


async def test_adopts_orphans_and_releases_strangers(cluster: Cluster):
    orphan = {"metadata": {"name": "orphan", "namespace": "default", "labels": {"app": "web"}}}
    await cluster.client.create(Pod, {**orphan, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    await cluster.until(lambda: cluster.all(Pod))
    await cluster.client.create(ReplicaSet, workload(replicas=2))
    await cluster.until(lambda: (rs := cluster.get(ReplicaSet, "web")) and rs.status.readyReplicas == 2)
    assert len(cluster.all(Pod)) == 2
    assert cluster.get(Pod, "orphan").controller.name == "web"
    await cluster.client.patch(Pod, "orphan", "default", {"metadata": {"labels": {"app": "other"}}})
    await cluster.until(lambda: len(cluster.all(Pod)) == 3 and cluster.get(Pod, "orphan").controller is None)
    await cluster.settle()
    assert cluster.get(ReplicaSet, "web").status.replicas == 2


async def test_failure_to_create_is_told(cluster: Cluster):
    broken = workload(replicas=2)
    broken["spec"]["template"]["spec"]["serviceAccountName"] = "nobody"
    await cluster.client.create(ReplicaSet, broken)
    failed = await cluster.until(lambda: (rs := cluster.get(ReplicaSet, "web")) and rs.status.conditions and rs)
    found = failed.status.conditions[0]
    assert (found.type, found.status, found.reason) == ("ReplicaFailure", "True", "FailedCreate")
    assert 'serviceaccount "nobody" not found' in found.message
    await cluster.client.create(ServiceAccount, {"metadata": {"name": "nobody", "namespace": "default"}})
    await cluster.until(
        lambda: (rs := cluster.get(ReplicaSet, "web")).status.readyReplicas == 2 and not rs.status.conditions
    )
    event = (await cluster.events("FailedCreate"))[0]
    assert event.type == "Warning"
    assert event.message.startswith('Error creating: pods "web-')
