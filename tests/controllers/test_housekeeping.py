"""Namespaces and their furniture, garbage collection, pod GC, event expiry: against the real API server."""

from __future__ import annotations

import asyncio
from typing import Any

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.event import Event
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.rbac import ClusterRole
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.kinds.secret import Secret
from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.api.meta import Object, condition
from minik8s.apiserver.tokens import bootstrap_secret
from minik8s.clock import ManualClock, rfc3339
from minik8s.controllers import token_cleaner
from minik8s.controllers.settings import Settings

from .cluster import Cluster, control_plane, exists, workload


async def config_map(cluster: Cluster, name: str, *owners: Object, block: bool = True, **meta: Any) -> ConfigMap:
    references = [
        {
            "apiVersion": cluster.client.resource(type(owner)).api_version,
            "kind": cluster.client.resource(type(owner)).kind,
            "name": owner.metadata.name,
            "uid": owner.metadata.uid,
            "blockOwnerDeletion": block,
        }
        for owner in owners
    ]
    document = {"metadata": {"namespace": "default", "name": name, "ownerReferences": references, **meta}}
    return await cluster.client.create(ConfigMap, document)


async def release(cluster: Cluster, name: str, namespace: str = "default") -> None:
    await cluster.client.patch(ConfigMap, name, namespace, {"metadata": {"finalizers": None}})


# -- namespaces


async def test_each_namespace_has_an_account_and_the_ca():
    async with control_plane(settings=Settings(ca="-----BEGIN CERTIFICATE-----")) as cluster:
        await cluster.client.create(Namespace, {"metadata": {"name": "team"}})
        for name in ("default", "team"):
            await cluster.until(
                lambda name=name: (
                    cluster.get(ServiceAccount, "default", name) and cluster.get(ConfigMap, "kube-root-ca.crt", name)
                )
            )
        await cluster.client.delete(ServiceAccount, "default", "team")
        await cluster.client.patch(ConfigMap, "kube-root-ca.crt", "team", {"data": {"ca.crt": "forged", "more": "x"}})
        await cluster.until(lambda: cluster.get(ServiceAccount, "default", "team"))
        await cluster.settle()
        found = await cluster.client.get(ConfigMap, "kube-root-ca.crt", "team")
        assert found.data["ca.crt"] == "-----BEGIN CERTIFICATE-----"


async def test_a_deleted_namespace_takes_everything_along(cluster: Cluster):
    await cluster.client.create(Namespace, {"metadata": {"name": "team"}})
    await cluster.until(lambda: cluster.get(ServiceAccount, "default", "team"))
    body = workload(replicas=3)
    body["metadata"]["namespace"] = "team"
    await cluster.client.create(Deployment, body)
    await cluster.until(lambda: len([p for p in cluster.all(Pod, "team") if p.status.phase == "Running"]) == 3)
    await cluster.client.delete(Namespace, "team")
    await cluster.until(lambda: not cluster.get(Namespace, "team", None))
    for kind in (Pod, ReplicaSet, Deployment, ServiceAccount, Event):
        assert not (await cluster.client.list(kind, "team")).items


async def test_a_namespace_says_what_holds_it_up(cluster: Cluster):
    await cluster.client.create(Namespace, {"metadata": {"name": "team"}})
    await config_map(cluster, "held", namespace="team", finalizers=["example.com/wait"])
    await cluster.client.delete(Namespace, "team")

    def said() -> Namespace | None:
        found = cluster.get(Namespace, "team", None)
        holds = condition(found.status.conditions, "NamespaceFinalizersRemaining") if found else None
        return found if holds and holds.status == "True" else None

    found = await cluster.until(said)
    remaining = condition(found.status.conditions, "NamespaceContentRemaining")
    holds = condition(found.status.conditions, "NamespaceFinalizersRemaining")
    assert found.status.phase == "Terminating"
    assert remaining.message == "Some resources are remaining: configmaps. has 1 resource instances"
    assert holds.message == (
        "Some content in the namespace has finalizers remaining: example.com/wait in 1 resource instances"
    )
    await release(cluster, "held", "team")
    await cluster.until(lambda: not cluster.get(Namespace, "team", None))


# -- owners and dependents


async def test_background_deletion_takes_pods_and_sets(cluster: Cluster):
    await cluster.client.create(Deployment, workload(replicas=2))
    await cluster.until(lambda: len(cluster.all(Pod)) == 2)
    await cluster.client.delete(Deployment, "web", "default", propagation="Background")
    await cluster.until(lambda: not cluster.all(Pod) and not cluster.all(ReplicaSet))


async def test_foreground_deletion_waits_for_dependents(cluster: Cluster):
    cluster.kubelet.ends = False
    await cluster.client.create(Deployment, workload(replicas=1))
    await cluster.until(lambda: any(pod.status.phase == "Running" for pod in cluster.all(Pod)))
    await cluster.settle()
    await cluster.client.delete(Deployment, "web", "default", propagation="Foreground")
    await cluster.until(lambda: cluster.all(Pod)[0].deleting)
    await cluster.settle()
    assert cluster.get(Deployment, "web").deleting
    assert cluster.all(ReplicaSet)[0].deleting
    pod = cluster.all(Pod)[0]
    await cluster.client.delete(Pod, pod.metadata.name, "default", grace=0)
    await cluster.until(lambda: not cluster.all(Deployment) and not cluster.all(ReplicaSet) and not cluster.all(Pod))


async def test_orphaned_dependents_stay(cluster: Cluster):
    await cluster.client.create(ReplicaSet, workload(replicas=2))
    await cluster.until(lambda: len([p for p in cluster.all(Pod) if p.status.phase == "Running"]) == 2)
    await cluster.client.delete(ReplicaSet, "web", "default", propagation="Orphan")
    await cluster.until(lambda: not cluster.all(ReplicaSet))
    await cluster.settle()
    pods = cluster.all(Pod)
    assert len(pods) == 2
    assert not any(pod.metadata.ownerReferences or pod.deleting for pod in pods)


async def test_two_owners_keep_until_both_are_gone(cluster: Cluster):
    first, second = await config_map(cluster, "first"), await config_map(cluster, "second")
    await config_map(cluster, "child", first, second)
    await cluster.client.delete(ConfigMap, "first", "default")
    await cluster.until(
        lambda: (
            (child := cluster.get(ConfigMap, "child"))
            and [ref.name for ref in child.metadata.ownerReferences] == ["second"]
        )
    )
    await cluster.client.delete(ConfigMap, "second", "default")
    await cluster.until(lambda: not cluster.get(ConfigMap, "child"))


async def test_a_child_of_somebody_long_gone_is_collected(cluster: Cluster):
    owner = await config_map(cluster, "owner")
    await cluster.client.delete(ConfigMap, "owner", "default")
    await config_map(cluster, "owner")  # the same name, another one
    await config_map(cluster, "late", owner)
    await cluster.until(lambda: not cluster.get(ConfigMap, "late") and cluster.get(ConfigMap, "owner"))


async def test_owners_in_other_namespaces_do_not_count(cluster: Cluster):
    await cluster.client.create(Namespace, {"metadata": {"name": "team"}})
    owner = await config_map(cluster, "owner", namespace="team")
    role = await cluster.client.create(ClusterRole, {"metadata": {"name": "r"}, "rules": []})
    await config_map(cluster, "of-role", role)
    await config_map(cluster, "stray", owner)
    await cluster.until(lambda: not cluster.get(ConfigMap, "stray") and cluster.get(ConfigMap, "of-role"))
    await cluster.settle()
    assert await exists(cluster.client, ConfigMap, "of-role")
    await cluster.client.delete(ClusterRole, "r")
    await cluster.until(lambda: not cluster.get(ConfigMap, "of-role"))


async def test_a_circle_of_waiting_owners_dissolves(cluster: Cluster):
    first = await config_map(cluster, "first")
    second = await config_map(cluster, "second", first)
    await cluster.client.patch(
        ConfigMap, "first", "default",
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "second",
                                           "uid": second.metadata.uid, "blockOwnerDeletion": True}]}},
    )  # fmt: skip
    await cluster.client.delete(ConfigMap, "first", "default", propagation="Foreground")
    await cluster.until(lambda: not cluster.get(ConfigMap, "first") and not cluster.get(ConfigMap, "second"))


# -- pods that nobody ends, events that nobody reads


async def test_pods_of_a_deleted_node_are_ended_and_made_anew(cluster: Cluster):
    await cluster.client.create(ReplicaSet, workload(replicas=2))
    await cluster.until(lambda: (rs := cluster.get(ReplicaSet, "web")) and rs.status.readyReplicas == 2)
    before = {pod.metadata.uid for pod in cluster.all(Pod)}
    cluster.kubelet.ends = False
    cluster.kubelet.behave = lambda pod: None
    await cluster.client.delete(Node, "n1")
    await cluster.until(lambda: cluster.all(Pod) and not before & {pod.metadata.uid for pod in cluster.all(Pod)})


async def test_finished_pods_beyond_the_threshold_go_oldest_first():
    async with control_plane(settings=Settings(terminated_pod_threshold=2)) as cluster:
        cluster.kubelet.behave = lambda pod: cluster.kubelet.ended(pod) if pod.status.phase != "Succeeded" else None
        spec = {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never"}
        await cluster.until(lambda: cluster.get(ServiceAccount, "default"))
        for number in range(5):
            await cluster.client.create(Pod, {"metadata": {"name": f"p{number}", "namespace": "default"}, "spec": spec})
        await cluster.until(lambda: len(cluster.all(Pod)) == 2)
        assert [pod.metadata.name for pod in cluster.all(Pod)] == ["p3", "p4"]


async def test_events_are_forgotten_after_their_time():
    clock = ManualClock()
    async with control_plane(clock=clock) as cluster:
        sweeper = next(each for each in cluster.controllers if each.name == "event-ttl-controller")
        for name in ("old", "again"):
            event = {
                "metadata": {"name": name, "namespace": "default"},
                "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
                "reason": "Test",
                "lastTimestamp": rfc3339(clock()),
            }
            await cluster.client.create(Event, event)
        clock.advance(3000)
        await cluster.client.patch(Event, "again", "default", {"lastTimestamp": rfc3339(clock())})
        clock.advance(1000)
        sweeper.queue.add("events")
        await cluster.until(lambda: not cluster.get(Event, "old") and cluster.get(Event, "again"))
        clock.advance(3000)
        sweeper.queue.add("events")
        await cluster.until(lambda: not cluster.get(Event, "again"))


async def test_expired_tokens_are_deleted_a_while_later() -> None:
    clock = ManualClock()
    async with control_plane(clock=clock) as cluster:
        await cluster.client.create(Namespace, {"metadata": {"name": "kube-system"}})
        ends = {"gone": clock() - token_cleaner.KEEP - 1, "late": clock() - 1, "good": clock() + 60, "always": 0.0}
        for name, end in ends.items():
            await cluster.client.create(Secret, bootstrap_secret(name, "0" * 16, expires=end))
        odd = bootstrap_secret("odd", "0" * 16, expires=1)
        odd["data"]["expiration"] = "c29vbg=="  # "soon"
        await cluster.client.create(Secret, odd)
        opaque = bootstrap_secret("other", "0" * 16, expires=1) | {"type": "Opaque"}
        await cluster.client.create(Secret, opaque)

        async def left() -> set[str]:
            found = await cluster.client.list(Secret, "kube-system")
            return {secret.metadata.name.removeprefix("bootstrap-token-") for secret in found.items}

        async with asyncio.timeout(10):
            while "gone" in await left():
                await asyncio.sleep(0.01)
        await cluster.settle()
        assert await left() == {"late", "good", "always", "odd", "other"}
