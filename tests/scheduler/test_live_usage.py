"""The strategies by live utilisation, through a whole cluster: kubelet, metrics.k8s.io, scheduler."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.pod import Pod
from minik8s.scheduler import scheduler
from minik8s.scheduler.model import Usage
from minik8s.scheduler.usage import measured
from minik8s.testing import Cluster, cluster

POD: dict[str, Any] = {"containers": [{"name": "c", "image": "app:1"}]}


def test_what_node_metrics_say() -> None:
    document = {
        "items": [
            {
                "metadata": {"name": "a"},
                "timestamp": "2024-05-01T10:00:00Z",
                "usage": {"cpu": "250000000n", "memory": "2048Ki"},
            },
            {"metadata": {"name": "half"}, "usage": {"cpu": "1"}},
        ]
    }
    assert measured(msgspec.json.encode(document)) == {"a": Usage(0.25, 2 << 20, 1714557600.0)}
    assert measured(b"{}") == {}


def says(it: Cluster, node: str, cores: float, memory: int) -> None:
    """Let a node's kubelet say that it uses so much."""
    usage = {"cpu": {"time": "2024-05-01T10:00:00Z", "usageNanoCores": round(cores * 1e9)}}
    summary = {"node": {**usage, "memory": {"workingSetBytes": memory}}, "pods": []}

    async def page() -> tuple[str, bytes]:
        return "application/json", msgspec.json.encode(summary)

    it.master.kubelets.here[node] = page


async def test_pods_go_where_least_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "USAGE_PERIOD", 0.02)
    looked = asyncio.Event()
    told = scheduler.from_api

    def noted(transport: Any) -> Any:
        read = told(transport)

        async def look() -> Any:
            usage = await read()
            if len(usage) == 2:
                looked.set()
            return usage

        return look

    monkeypatch.setattr(scheduler, "from_api", noted)
    async with cluster(nodes=2) as it:
        says(it, "node-0", 3.0, 1 << 20)  # much CPU, little memory
        says(it, "node-1", 0.1, 4 << 30)
        for strategy, node in (("min-cpu", "node-1"), ("min-mem", "node-0")):
            metadata = {"name": "minik8s-config", "namespace": "kube-system"}
            if strategy == "min-cpu":
                assert not looked.is_set()  # nobody asks while it does not matter
                await it.client.create(ConfigMap, {"metadata": metadata, "data": {"sched": strategy}})
            else:
                changed = {"data": {"sched": strategy}}
                looked.clear()
                await it.client.patch(ConfigMap, metadata["name"], metadata["namespace"], changed)
            async with asyncio.timeout(5):
                await looked.wait()
            looked.clear()
            async with asyncio.timeout(5):
                await looked.wait()  # what the first look has told is in the snapshot now
            await it.client.create(Pod, {"metadata": {"name": strategy}, "spec": POD}, "default")
            placed = await it.until(Pod, lambda pod, name=strategy: pod.metadata.name == name and pod.spec.nodeName)
            assert placed.spec.nodeName == node
