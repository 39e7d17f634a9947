"""Many pods on many simulated nodes: how fast pods that are created get bound, and what that costs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.cli.token import new_token
from tests.bench.agent import Agent, agent, cpu_seconds, resident_mb
from tests.bench.api import load
from tests.bench.following import Followed, follow, is_ready
from tests.bench.report import Result

NAMES = ("fleet",)


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    """The nodes are one worker's, which has joined over HTTPS as any other."""
    count = 100 if quick else 1000
    async with agent("--role", "master") as master:
        token = await new_token(master.data, ttl=3600.0, description="bench")
        async with agent(
            "--role", "worker", "--runtime", "fake", "--replicas", str(count), "--node-name", "fleet",
            "--join", f"127.0.0.1:{master.port}", "--token", token, master=False,
        ) as worker, follow(master, Node, Pod) as seen:  # fmt: skip
            await seen.until(lambda: sum(map(is_ready, seen.list(Node))) == count, f"{count} nodes")
            yield Result(f"{count} simulated nodes Ready after", time.monotonic() - worker.started, "s")
            async for result in bind(master, worker, seen, count):
                yield result


async def bind(master: Agent, worker: Agent, seen: Followed, count: int) -> AsyncIterator[Result]:
    pid = master.process.pid
    memory, cpu, begun = resident_mb(pid), cpu_seconds(pid), time.perf_counter()
    container = {"name": "web", "image": "web", "resources": {"requests": {"cpu": "10m"}}}
    bodies = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{n}"}, "spec": {"containers": [container]}}
        for n in range(count)
    ]
    path = "/api/v1/namespaces/default/pods"
    created = await load(master, "closed", what="bodies", path=path, bodies=bodies, connections=32)
    bound = await seen.until(lambda: sum(bool(p.spec.nodeName) for p in seen.list(Pod)) == count, f"{count} bindings")
    each = (cpu_seconds(pid) - cpu) / count * 1e3
    beside = f"created at {created['count'] / created['seconds']:.0f}/s, {each:.2f} ms CPU of the master each"
    yield Result(f"{count} pods created and bound on {count} nodes", count / (bound - begun), "/s", 1000, more=True,
                 beside=beside)  # fmt: skip
    running = await seen.until(lambda: sum(map(is_ready, seen.list(Pod))) == count, f"{count} pods")
    beside = f"{(cpu_seconds(pid) - cpu) / count * 1e3:.2f} ms CPU of the master each"
    yield Result(f"{count} pods Ready after", running - begun, "s", beside=beside)
    yield Result(f"resident memory of a master of {count} pods and nodes", resident_mb(pid), "MB", 110)
    yield Result("… of it for the pods", resident_mb(pid) - memory, "MB")
