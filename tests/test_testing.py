"""The cluster in memory behaves as a cluster: what is applied runs."""

from __future__ import annotations

import msgspec
import pytest

from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.endpoints import Endpoints
from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.service import Service
from minik8s.api.meta import is_true
from minik8s.testing import cluster


def deployment(replicas: int):
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return {"metadata": {"name": "web"}, "spec": spec}


async def test_a_deployment_becomes_available_on_simulated_nodes():
    async with cluster(nodes=3) as it:
        await it.until(Node, lambda node: is_true(node.status.conditions, "Ready"))
        await it.client.create(Deployment, deployment(6), "default")
        await it.until(Deployment, lambda found: found.status.availableReplicas == 6)
        pods = await it.client.list(Pod, "default")
        assert len({pod.spec.nodeName for pod in pods.items}) == 3


async def test_it_ends_without_leaving_tasks():
    async with cluster(nodes=0) as it:
        assert (await it.client.list(Node)).items == ()


@pytest.mark.parametrize("kind", [Service, Endpoints, EndpointSlice])
async def test_the_way_to_the_api_server_comes_back_when_somebody_deletes_it(kind):
    async with cluster(nodes=0) as it:
        before = await it.client.get(kind, "kubernetes", "default")
        await it.client.delete(kind, "kubernetes", "default")
        after = await it.until(kind, lambda one: one.key == before.key and one.metadata.uid != before.metadata.uid)
        assert msgspec.structs.replace(after, metadata=before.metadata) == before
