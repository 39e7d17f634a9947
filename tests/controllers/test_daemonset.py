"""DaemonSets: on which nodes, and how they are replaced."""

from __future__ import annotations

import msgspec
import pytest

from minik8s.api.kinds.controllerrevision import ControllerRevision
from minik8s.api.kinds.daemonset import DaemonSet
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod, PodSpec
from minik8s.controllers.daemon_plan import fit, node_of
from minik8s.controllers.pod_facts import is_active, is_finished, is_ready

from .cluster import Cluster, add_node, control_plane, image_of, workload
from .objects import node

NODES = ("n1", "n2", "n3", "n4")


def taint(key: str, effect: str) -> dict[str, str]:
    return {"key": key, "effect": effect}


@pytest.mark.parametrize(
    ("spec", "taints", "expected"),
    [
        ({}, [], (True, True)),
        ({}, [taint("a", "NoSchedule")], (False, True)),
        ({}, [taint("a", "NoExecute")], (False, False)),
        ({}, [taint("a", "PreferNoSchedule")], (True, True)),
        ({}, [taint("node.kubernetes.io/unschedulable", "NoSchedule")], (True, True)),
        ({}, [taint("node.kubernetes.io/unreachable", "NoExecute")], (True, True)),
        ({}, [taint("node.kubernetes.io/network-unavailable", "NoSchedule")], (False, True)),
        ({"hostNetwork": True}, [taint("node.kubernetes.io/network-unavailable", "NoSchedule")], (True, True)),
        ({"nodeSelector": {"disk": "ssd"}}, [], (False, False)),
        ({"nodeName": "other"}, [], (False, False)),
        ({"tolerations": [{"operator": "Exists"}]}, [taint("a", "NoExecute")], (True, True)),
    ],
)
def test_where_daemons_belong(spec, taints, expected):
    assert fit(msgspec.convert(spec, PodSpec), node(taints=taints)) == expected


def settled(cluster: Cluster, count: int) -> DaemonSet | None:
    found = cluster.get(DaemonSet, "web")
    if found is None or found.status.observedGeneration < found.metadata.generation:
        return None
    status = found.status
    same = status.desiredNumberScheduled == status.updatedNumberScheduled == status.numberAvailable == count
    return found if same else None


async def set_image(cluster: Cluster, image: str) -> None:
    template = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}
    await cluster.client.patch(
        DaemonSet, "web", "default", template, content_type="application/strategic-merge-patch+json"
    )


async def test_one_pod_on_each_node_also_on_those_that_come():
    async with control_plane(nodes=NODES[:2]) as cluster:
        await cluster.client.create(DaemonSet, workload())
        found = await cluster.until(lambda: settled(cluster, 2))
        assert (found.status.currentNumberScheduled, found.status.numberReady, found.status.numberMisscheduled) == (
            2,
            2,
            0,
        )
        assert sorted(map(node_of, cluster.all(Pod))) == ["n1", "n2"]
        await add_node(cluster.client, "n3", cluster.clock)
        await cluster.until(lambda: settled(cluster, 3))
        await cluster.client.patch(Node, "n3", None, {"spec": {"taints": [taint("gone", "NoExecute")]}})
        await cluster.until(lambda: settled(cluster, 2) and len(cluster.all(Pod)) == 2)
        first = cluster.all(Pod)[0]
        await cluster.client.delete(Pod, first.metadata.name, "default")
        await cluster.until(
            lambda: settled(cluster, 2) and first.metadata.uid not in {pod.metadata.uid for pod in cluster.all(Pod)}
        )


async def test_rolling_update_replaces_as_many_as_allowed_and_undo_works():
    async with control_plane(nodes=NODES) as cluster:
        await cluster.client.create(DaemonSet, workload())
        await cluster.until(lambda: settled(cluster, 4))
        least = 99

        def watch(old: Pod | None, new: Pod | None) -> None:
            nonlocal least
            least = min(least, sum(is_active(pod) and is_ready(pod) for pod in cluster.informers.of(Pod).list()))

        cluster.informers.of(Pod).on_change(watch)
        least = 99
        await set_image(cluster, "img:2")
        await cluster.until(lambda: settled(cluster, 4) and all("img:2" in image_of(pod) for pod in cluster.all(Pod)))
        assert least == 3
        revisions = sorted(cluster.all(ControllerRevision), key=lambda each: each.revision)
        assert [each.revision for each in revisions] == [1, 2]
        await cluster.client.patch(  # as `kubectl rollout undo` does
            DaemonSet, "web", "default", revisions[0].data, content_type="application/strategic-merge-patch+json"
        )
        await cluster.until(lambda: settled(cluster, 4) and all("img:1" in image_of(pod) for pod in cluster.all(Pod)))
        await cluster.settle()
        assert sorted(each.revision for each in cluster.all(ControllerRevision)) == [2, 3]


async def test_surge_makes_the_new_one_first():
    async with control_plane(nodes=NODES[:2]) as cluster:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        await cluster.client.create(DaemonSet, workload(updateStrategy=strategy))
        await cluster.until(lambda: settled(cluster, 2))
        least = 99

        def watch(old: Pod | None, new: Pod | None) -> None:
            nonlocal least
            ready = {node_of(p) for p in cluster.informers.of(Pod).list() if is_active(p) and is_ready(p)}
            least = min(least, len(ready))

        cluster.informers.of(Pod).on_change(watch)
        least = 99
        await set_image(cluster, "img:2")
        await cluster.until(
            lambda: len(cluster.all(Pod)) == 2 and all("img:2" in image_of(p) for p in cluster.all(Pod))
        )
        assert least == 2


async def test_on_delete_waits_for_people(cluster: Cluster):
    await cluster.client.create(DaemonSet, workload(updateStrategy={"type": "OnDelete"}))
    await cluster.until(lambda: settled(cluster, 1))
    await set_image(cluster, "img:2")
    await cluster.until(
        lambda: (ds := cluster.get(DaemonSet, "web")).status.observedGeneration == ds.metadata.generation
    )
    await cluster.settle()
    old = cluster.all(Pod)[0]
    assert "img:1" in image_of(old)
    await cluster.client.delete(Pod, old.metadata.name, "default")
    await cluster.until(lambda: (pods := cluster.all(Pod)) and all("img:2" in image_of(pod) for pod in pods))


async def test_failed_daemons_are_replaced(cluster: Cluster):
    kubelet, run = cluster.kubelet, cluster.kubelet.behave
    kubelet.behave = lambda pod: kubelet.ended(pod, code=1) if not is_finished(pod) else None
    await cluster.client.create(DaemonSet, workload())
    failed = await cluster.until(lambda: [pod for pod in cluster.all(Pod) if pod.status.phase == "Failed"])
    kubelet.behave = run
    await cluster.until(lambda: settled(cluster, 1))
    assert failed[0].metadata.uid not in {pod.metadata.uid for pod in cluster.all(Pod)}
    assert (await cluster.events("FailedDaemonPod"))[0].type == "Warning"
