"""What the metrics pipeline adds to an agent's memory: two agents with the same pods, one of which measures nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from minik8s.api.errors import StatusError
from minik8s.api.kinds.pod import Pod
from tests.bench.agent import agent, resident_mb
from tests.bench.following import follow
from tests.bench.report import Result

NAMES = ("metrics",)
PODS = 100
NODE = "measured"
SETTLED = 35.0  # seconds: two rounds of the dashboard's history, three of the kubelet's figures
KUBELETS = ("stats/summary", "metrics", "metrics/cadvisor", "metrics/resource")
PAGES = (
    "/metrics", "/apis/metrics.k8s.io/v1beta1/pods", "/apis/metrics.k8s.io/v1beta1/nodes",
    *(f"/api/v1/nodes/{NODE}/proxy/{page}" for page in KUBELETS),
)  # fmt: skip


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    settled = 10.0 if quick else SETTLED
    with_them = await _resident("minik8s", settled)
    without = await _resident("tests.bench.without_metrics", settled)
    beside = f"{with_them:.1f} MB with, {without:.1f} MB without"
    yield Result(f"metrics: memory that they add, {PODS} pods", with_them - without, "MB", 15, beside=beside)


async def _resident(module: str, settled: float) -> float:
    """Of an idle agent with pods, all of whose pages of metrics have been read."""
    options = ("--runtime", "fake", "--node-name", NODE, "--dashboard-listen", "127.0.0.1:0", "--store", "memory")
    async with agent(*options, module=module) as running, follow(running, Pod) as seen:
        for number in range(PODS):
            spec = {"containers": [{"name": "c", "image": "i:1"}]}
            await seen.client.create(Pod, {"metadata": {"name": f"p{number}"}, "spec": spec}, "default")
        await seen.until(lambda: all(pod.status.phase == "Running" for pod in seen.list(Pod)), "the pods")
        await asyncio.sleep(settled)
        for page in PAGES:
            with suppress(StatusError):  # the agent without metrics has no such pages
                await seen.client.transport.request("GET", page)
        return resident_mb(running.process.pid)
