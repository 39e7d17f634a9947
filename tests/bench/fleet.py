"""Many pods on many simulated nodes: how fast pods that are created get bound, and what that costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.cli.token import new_token
from tests.bench.agent import Agent, agent, cpu_seconds, resident_mb
from tests.bench.api import load
from tests.bench.following import Followed, follow, is_ready
from tests.bench.report import Result

NAMES = ("bind", "fleet")
MANY = 32  # requests at once while nodes are made


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    count = 100 if quick else 1000
    if "bind" in names:
        async with agent("--role", "master") as master, follow(master, Node, Pod) as seen:
            await nodes(seen, count)
            async for result in bind(master, seen, count, "nodes without kubelets"):
                yield result
    if "fleet" in names:
        async for result in fleet(count):
            yield result


async def fleet(count: int) -> AsyncIterator[Result]:
    """The nodes are one worker's, which has joined over HTTPS as any other, and their kubelets run what they get."""
    async with agent("--role", "master") as master:
        token = await new_token(master.data, ttl=3600.0, description="bench")
        options = ("--runtime", "fake", "--replicas", str(count), "--node-name", "fleet")
        joining = ("--role", "worker", "--join", f"127.0.0.1:{master.port}", "--token", token)
        async with (
            agent(*joining, *options, master=False) as worker,
            follow(master, Node, Pod, others=[worker]) as seen,
        ):
            await seen.until(lambda: sum(map(is_ready, seen.list(Node))) == count, f"{count} nodes")
            yield Result(f"{count} simulated nodes Ready after", time.monotonic() - worker.started, "s")
            async for result in bind(master, seen, count, "simulated nodes"):
                yield result


async def nodes(seen: Followed, count: int) -> None:
    """Nodes that only the API knows, ready as far as it can tell."""
    turns = asyncio.Semaphore(MANY)
    size = {"cpu": "16", "memory": "64Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}

    async def make(name: str) -> None:
        async with turns:
            await seen.client.create(Node, {"metadata": {"name": name}})
            status = {"status": {"capacity": size, "allocatable": size, "conditions": [ready]}}
            await seen.client.patch(Node, name, None, status, subresource="status")

    await asyncio.gather(*(make(f"node-{number}") for number in range(count)))

    def usable(node: Node) -> bool:
        return is_ready(node) and not node.spec.taints

    await seen.until(lambda: sum(map(usable, seen.list(Node))) == count, f"{count} nodes without taints")


async def bind(master: Agent, seen: Followed, count: int, where: str) -> AsyncIterator[Result]:
    """From the first pod's creation to the last one's binding, as a watch sees it."""
    pid = master.process.pid
    memory, cpu, begun = resident_mb(pid), cpu_seconds(pid), time.perf_counter()
    container = {"name": "web", "image": "web", "resources": {"requests": {"cpu": "10m"}}}
    bodies = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{n}"}, "spec": {"containers": [container]}}
        for n in range(count)
    ]
    path = "/api/v1/namespaces/default/pods"
    loading = asyncio.create_task(load(master, "closed", what="bodies", path=path, bodies=bodies, connections=32))
    begun = await seen.until(lambda: bool(seen.list(Pod)), "a pod")
    bound = await seen.until(lambda: sum(bool(p.spec.nodeName) for p in seen.list(Pod)) == count, f"{count} bindings")
    created = await loading
    each = (cpu_seconds(pid) - cpu) / count * 1e3
    beside = f"created at {created['count'] / created['seconds']:.0f}/s, {each:.2f} ms CPU of the master each"
    rate = count / (bound - begun)
    yield Result(f"{count} pods created and bound on {where}", rate, "/s", 1000, more=True, beside=beside)
    if where == "simulated nodes":
        running = await seen.until(lambda: sum(map(is_ready, seen.list(Pod))) == count, f"{count} pods")
        beside = f"{(cpu_seconds(pid) - cpu) / count * 1e3:.2f} ms CPU of the master each"
        yield Result(f"{count} pods Ready after", running - begun, "s", beside=beside)
    more = f"{resident_mb(pid) - memory:.0f} MB of it since the first pod"
    yield Result(f"resident memory of a master of {count} pods and nodes", resident_mb(pid), "MB", 110, beside=more)
