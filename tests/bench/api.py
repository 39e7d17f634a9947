"""What the API server alone can do: one master on its own disk, with no node and nothing to control."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.pod import Pod
from tests.bench.agent import Agent, BenchError, agent, resident_mb
from tests.bench.report import Result, percentile
from tests.bench.wire import send_seconds

NAMESPACE = "bench"
PODS = 1000
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
NAMES = ("start", "create", "get", "list", "watch")


async def load(running: Agent, kind: str, **more: Any) -> dict[str, Any]:
    """Let the load generator work; its answer. Raises BenchError when requests failed."""
    spec = json.dumps({**running.spec(), "kind": kind, **more}).encode()
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.bench.load", stdin=pipe, stdout=pipe)
    out, _ = await process.communicate(spec)
    if process.returncode:
        raise BenchError(f"the load generator failed; the agent's log ends with:\n{running.log[-2000:]}")
    answer: dict[str, Any] = json.loads(out)
    if answer["failed"]:
        raise BenchError(f"requests failed: {answer['failed']}")
    return answer


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    seconds = 1.0 if quick else 5.0
    if "start" in names:
        async for result in start():
            yield result
    if not set(names) & set(NAMES[1:]):
        return
    async with agent("--role", "master") as running, running.client() as client:
        await client.create(Namespace, {"metadata": {"name": NAMESPACE}})
        if "create" in names:
            async for result in create(running, seconds):
                yield result
        if "get" in names:
            async for result in get(running, seconds):
                yield result
        if "watch" in names:
            async for result in watch(running, seconds):
                yield result
        if "list" in names:
            async for result in list_(running, seconds):
                yield result


async def start() -> AsyncIterator[Result]:
    """A first start makes keys and an empty database; later ones find them."""
    with tempfile.TemporaryDirectory(prefix="minik8s-bench-") as folder:
        for which in ("first start", "later start"):
            async with agent("--role", "master", folder=Path(folder)) as running:
                yield Result(f"{which} to /readyz, master", running.ready, "s", 1.0)


def rate(name: str, answer: dict[str, Any], goal: float, micros: float | None, beside: str = "") -> Sequence[Result]:
    """Requests a second and, if there is a goal for it, the server's processor time for each."""
    per_second = answer["count"] / answer["seconds"]
    latency = percentile(answer["latencies"], 0.5) * 1e3
    results = [Result(name, per_second, "/s", goal, more=True, beside=beside or f"p50 {latency:.2f} ms")]
    if micros is not None:
        results.append(Result(f"{name}: CPU each", answer["cpu"] / answer["count"] * 1e6, "µs", micros))
    return results


async def create(running: Agent, seconds: float) -> AsyncIterator[Result]:
    floor = f"{1 / await asyncio.to_thread(fsync_seconds, running.data):,.0f} fsyncs/s of this disk".replace(",", " ")
    answer = await load(running, "closed", what="create", namespace=NAMESPACE, connections=64, seconds=seconds)
    for result in rate("CREATE of 1 KiB, durable, 64 clients", answer, 5000, 200):
        yield result
    answer = await load(running, "serial", what="create", namespace=NAMESPACE, first=10**9, seconds=seconds)
    for result in rate("CREATE of 1 KiB, durable, 1 client", answer, 1300, None, floor):
        yield result
    yield Result(f"resident memory after {answer['count']} objects more", resident_mb(running.process.pid), "MB")


def fsync_seconds(folder: Path) -> float:
    """The time of appending 4 KiB durably: below it no durable write can be. The median of 200."""
    path, times = folder / "floor", []
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(200):
            begun = time.perf_counter()
            os.write(file, b"x" * 4096)
            os.fdatasync(file)
            times.append(time.perf_counter() - begun)
    finally:
        os.close(file)
        path.unlink()
    return percentile(times, 0.5)


async def get(running: Agent, seconds: float) -> AsyncIterator[Result]:
    where = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    async with running.client() as client:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"filling": "x" * 900}}
        await client.transport.request("POST", where, body=json.dumps(body).encode())
    for clients, kind, goal, micros in ((64, "closed", 10_000, 80), (1, "serial", 3500, None)):
        answer = await load(running, kind, what="get", path=f"{where}/one", connections=clients, seconds=seconds)
        plural = "s" if clients > 1 else ""
        for result in rate(f"GET of 1 KiB, {clients} client{plural}", answer, goal, micros):
            yield result


async def watch(running: Agent, seconds: float) -> AsyncIterator[Result]:
    async with running.client() as client:
        await client.create(Namespace, {"metadata": {"name": "watched"}})
        after = (await client.list(Pod, "watched")).metadata.resourceVersion
    serving = (running.data / "pki/apiserver.crt", running.data / "pki/apiserver.key")
    floor = f"{await asyncio.to_thread(send_seconds, serving, str(running.ca_file)) * 1e6:.1f} µs: one record, one send"
    answer = await load(running, "watch", namespace="watched", connections=100, after=after, seconds=2 * seconds)
    yield Result("watch, 100 × 200 events/s, p50", percentile(answer["latencies"], 0.5) * 1e3, "ms", 1.5)
    yield Result("watch, 100 × 200 events/s, p99", percentile(answer["latencies"], 0.99) * 1e3, "ms", 8)
    yield Result("watch: CPU per delivered event", answer["cpu"] / answer["count"] * 1e6, "µs", 5, beside=floor)


async def list_(running: Agent, seconds: float) -> AsyncIterator[Result]:
    """1 000 pods as they are when they run; no scheduler is theirs, so they stay as they are."""
    before = resident_mb(running.process.pid)
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    await load(running, "closed", what="bodies", path=path, bodies=[a_pod(n) for n in range(PODS)], connections=16)
    async with running.client() as client:
        await asyncio.gather(*(
            client.patch(Pod, f"pod-{n:04}", NAMESPACE, {"status": RUNNING}, subresource="status") for n in range(PODS)
        ))  # fmt: skip
    for name, accept, goal in (("LIST of 1000 pods, p50", "application/json", 6), ("… as a Table, p50", TABLE, 8)):
        answer = await load(running, "serial", what="get", path=path, accept=accept, seconds=seconds)
        size = f"{answer['size'] / 1e6:.2f} MB, CPU {answer['cpu'] / answer['count'] * 1e3:.1f} ms each"
        yield Result(name, percentile(answer["latencies"], 0.5) * 1e3, "ms", goal, beside=size)
    yield Result("resident memory that 1000 pods add", resident_mb(running.process.pid) - before, "MB")


def a_pod(number: int) -> dict[str, Any]:
    container = {
        "name": "web", "image": "minik8s.test/nginx:1", "ports": [{"containerPort": 80}],
        "env": [{"name": "MODE", "value": "bench"}], "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": f"pod-{number:04}", "labels": {"app": "web", "number": str(number)}},
        "spec": {"schedulerName": "nobody", "containers": [container]},
    }  # fmt: skip


_SINCE = "2026-01-01T00:00:00Z"
RUNNING = {
    "phase": "Running", "hostIP": "192.0.2.1", "podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}],
    "startTime": _SINCE,
    "conditions": [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": _SINCE}
        for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ],
    "containerStatuses": [
        {
            "name": "web", "image": "minik8s.test/nginx:1", "imageID": "docker://sha256:" + "0" * 64, "ready": True,
            "restartCount": 0, "started": True, "containerID": "docker://" + "0" * 64,
            "state": {"running": {"startedAt": _SINCE}}, "lastState": {},
        }
    ],
}  # fmt: skip
