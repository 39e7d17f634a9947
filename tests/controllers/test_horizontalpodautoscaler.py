"""The autoscaler in a control plane in memory, with measurements as the test wants them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from minik8s.api.autoscaling import SYNC_PERIOD
from minik8s.api.errors import Invalid, NotFound
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.horizontalpodautoscaler import HorizontalPodAutoscaler
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import condition
from minik8s.clock import ManualClock, rfc3339
from minik8s.controllers.horizontalpodautoscaler import METRICS

from .cluster import Cluster, control_plane, workload
from .objects import NOW


class Measurements:
    """metrics.k8s.io with made-up figures: millicores for each pod, or no answer at all."""

    def __init__(self, cluster: Cluster) -> None:
        self.millis: int | None = 50
        self._cluster = cluster
        self._below = cluster.client.transport.request
        cluster.client.transport.request = self.request  # type: ignore[method-assign]

    async def request(self, method: str, path: str, **more: Any) -> bytes:
        if not path.startswith(METRICS):
            return await self._below(method, path, **more)
        if self.millis is None:
            raise NotFound("the server could not find the requested resource")
        pods = [
            {
                "metadata": {"name": name, "namespace": "default"},
                "timestamp": rfc3339(self._cluster.clock()),
                "window": "10s",
                "containers": [{"name": "c", "usage": {"cpu": f"{self.millis}m", "memory": "64Mi"}}],
            }
            for name in self._names()
        ]
        return msgspec.json.encode({"items": pods})

    def _names(self) -> list[str]:
        return [pod.metadata.name for pod in self._cluster.all(Pod)]


class World:
    def __init__(self, cluster: Cluster, clock: ManualClock) -> None:
        self.cluster = cluster
        self.clock = clock
        self.measured = Measurements(cluster)

    async def deployment(self, replicas: int, **request: str) -> None:
        body = workload("web", replicas=replicas)
        body["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100m"} | request}
        await self.cluster.client.create(Deployment, body)
        await self.cluster.until(lambda: self.web.status.readyReplicas == replicas)

    async def autoscaler(self, **spec: Any) -> None:
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        target = {"type": "Utilization", "averageUtilization": 50}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        body = {"minReplicas": 1, "maxReplicas": 10, "scaleTargetRef": reference, "metrics": metrics, **spec}
        meta = {"name": "web", "namespace": "default", "annotations": {SYNC_PERIOD: "1s"}}
        await self.cluster.client.create(HorizontalPodAutoscaler, {"metadata": meta, "spec": body})

    @property
    def web(self) -> Deployment:
        return self.cluster.get(Deployment, "web") or Deployment()

    @property
    def hpa(self) -> HorizontalPodAutoscaler:
        return self.cluster.get(HorizontalPodAutoscaler, "web") or HorizontalPodAutoscaler()

    def says(self, type: str, reason: str) -> bool:
        found = condition(self.hpa.status.conditions, type)
        return found is not None and found.reason == reason

    async def told(self, type: str, reason: str) -> str:
        await self.cluster.until(lambda: self.says(type, reason))
        found = condition(self.hpa.status.conditions, type)
        assert found is not None
        return found.message


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = ManualClock(NOW)
    async with control_plane(clock=clock) as cluster:
        found = World(cluster, clock)
        yield found


async def test_up_by_load_and_down_when_it_has_been_quiet_for_long(world: World) -> None:
    await world.deployment(2)
    world.clock.advance(400)  # the pods are not young any more
    world.measured.millis = 100
    await world.autoscaler()
    await world.cluster.until(lambda: world.web.spec.replicas == 4)
    assert [event.message for event in await world.cluster.events("SuccessfulRescale")] == [
        "New size: 4 (was 2); reason: cpu utilization above target"
    ]
    await world.cluster.until(lambda: world.hpa.status.currentReplicas == 4)
    assert world.hpa.status.currentMetrics[0]["resource"]["current"] == {
        "averageUtilization": 100,
        "averageValue": "100m",
    }
    world.measured.millis = 5
    await world.told("AbleToScale", "ScaleDownStabilized")
    assert world.web.spec.replicas == 4
    world.clock.advance(301)
    await world.cluster.until(lambda: world.web.spec.replicas == 1)


async def test_what_is_out_of_bounds_comes_back_without_a_measurement(world: World) -> None:
    world.measured.millis = None
    await world.deployment(3)
    await world.autoscaler(maxReplicas=2)
    await world.cluster.until(lambda: world.web.spec.replicas == 2)
    message = await world.told("ScalingActive", "FailedGetResourceMetric")
    assert "no measurements" in message
    assert world.web.spec.replicas == 2
    assert await world.cluster.events("FailedGetResourceMetric")


async def test_zero_by_hand_is_left_alone(world: World) -> None:
    await world.deployment(0)
    await world.autoscaler()
    await world.told("ScalingActive", "ScalingDisabled")
    assert world.web.spec.replicas == 0


@pytest.mark.parametrize(
    ("kind", "words"), [("ConfigMap", "no kind that can be scaled"), ("Deployment", "not found"), ("Depl", "no kind")]
)
async def test_a_target_that_cannot_be_scaled_is_told(world: World, kind: str, words: str) -> None:
    await world.cluster.client.create(ConfigMap, {"metadata": {"name": "web", "namespace": "default"}})
    version = "v1" if kind == "ConfigMap" else "apps/v1"
    await world.autoscaler(scaleTargetRef={"apiVersion": version, "kind": kind, "name": "web"})
    assert words in await world.told("AbleToScale", "FailedGetScale")


async def test_metrics_that_are_not_known_do_not_scale_down(world: World) -> None:
    await world.deployment(2)
    world.clock.advance(400)
    world.measured.millis = 1
    target = {"type": "Utilization", "averageUtilization": 50}
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    pods = {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": 1}}}
    fast = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    await world.autoscaler(metrics=[cpu, pods], behavior=fast)
    assert "Pods are not supported" in await world.told("ScalingActive", "InvalidMetricSourceType")
    assert world.web.spec.replicas == 2
    world.measured.millis = 100  # but up is never wrong
    await world.cluster.until(lambda: world.web.spec.replicas == 4)


async def test_containers_by_themselves_and_average_values(world: World) -> None:
    await world.deployment(1)
    world.clock.advance(400)
    world.measured.millis = 30
    target = {"type": "Utilization", "averageUtilization": 10}
    one = {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": target}}
    memory = {"name": "memory", "target": {"type": "AverageValue", "averageValue": "32Mi"}}
    await world.autoscaler(metrics=[one, {"type": "Resource", "resource": memory}])
    await world.cluster.until(lambda: world.web.spec.replicas == 3)
    shown = await world.cluster.until(lambda: world.hpa.status.currentMetrics)
    assert shown[0]["containerResource"]["current"]["averageUtilization"] == 30
    assert shown[1]["resource"]["current"]["averageValue"] == "64Mi"


async def test_the_classic_pace_is_one_pod_in_an_interval(world: World) -> None:
    await world.deployment(1)
    world.clock.advance(400)
    world.measured.millis = 500
    pace = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 10}], "stabilizationWindowSeconds": 0}
    await world.autoscaler(behavior={"scaleUp": pace, "scaleDown": pace})
    for replicas in (2, 3):
        await world.cluster.until(lambda wanted=replicas: world.web.status.readyReplicas == wanted)
        await world.told("ScalingLimited", "ScaleUpLimit")
        world.clock.advance(400)


async def test_a_period_that_cannot_be_read_is_refused(world: World) -> None:
    meta = {"name": "web", "namespace": "default", "annotations": {SYNC_PERIOD: "often"}}
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    with pytest.raises(Invalid, match="number of seconds"):
        await world.cluster.client.create(
            HorizontalPodAutoscaler, {"metadata": meta, "spec": {"maxReplicas": 2, "scaleTargetRef": reference}}
        )


@pytest.mark.parametrize("labels", [{"app": "web"}, {}])
async def test_a_pod_by_itself_becomes_one_of_many(world: World, labels: dict[str, str]) -> None:
    container = {"name": "c", "image": "img:1", "resources": {"requests": {"cpu": "100m"}}}
    meta = {"name": "lone", "namespace": "default", "labels": labels}
    made = await world.cluster.client.create(Pod, {"metadata": meta, "spec": {"containers": [container]}})
    await world.cluster.until(lambda: (world.cluster.get(Pod, "lone") or made).status.phase == "Running")
    world.clock.advance(400)
    world.measured.millis = 100
    await world.autoscaler(scaleTargetRef={"apiVersion": "v1", "kind": "Pod", "name": "lone"})
    await world.cluster.until(lambda: len(world.cluster.all(Pod)) >= 2)
    pods = world.cluster.all(Pod)
    assert made.metadata.uid in {pod.metadata.uid for pod in pods}  # it runs on
    assert {pod.controller.name for pod in pods} == {"lone"}
    assert world.hpa.spec.scaleTargetRef.kind == "ReplicaSet"
    assert await world.cluster.events("PodAdopted")


async def test_a_pod_that_is_not_there_is_told(world: World) -> None:
    await world.autoscaler(scaleTargetRef={"apiVersion": "v1", "kind": "Pod", "name": "lone"})
    assert "not found" in await world.told("AbleToScale", "FailedGetScale")
