"""What one agent with everything does with real containers: a master that is a node, on this host's Docker Engine."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp

from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.kinds.service import Service
from tests.bench.agent import ROOT, Agent, BenchError, agent, cpu_seconds, resident_mb
from tests.bench.following import Followed, follow, is_ready
from tests.bench.report import Result

IMAGE = "minik8s.test/nginx:1"  # ends at once on SIGTERM: its deletion costs no grace
SPACE = "default"
SETTLED = 3.0  # seconds after the last change until an agent is called idle
NAMES = ("node", "idle", "pod", "replicaset", "rollout", "service")


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    if os.geteuid() != 0:
        raise BenchError("containers and their network need root")
    await asyncio.to_thread(subprocess.run, [ROOT / "scripts" / "images", "nginx"], check=True)
    async with agent("--role", "all", host=True) as running:
        async with follow(running, Node, Pod, ReplicaSet, Deployment, EndpointSlice) as seen:
            await seen.until(lambda: any(is_ready(node) for node in seen.list(Node)), "the node")
            if "node" in names:
                yield Result("start to node Ready", time.monotonic() - running.started, "s", 3)
            await asyncio.sleep(SETTLED)
            if "idle" in names:
                async for result in idle(running, 5.0 if quick else 60.0):
                    yield result
            if "pod" in names:
                async for result in pod(seen, 3 if quick else 11):
                    yield result
            if "replicaset" in names:
                async for result in replica_set(running, seen, 10 if quick else 30):
                    yield result
            if "rollout" in names:
                yield await rollout(seen, 10)
            if "service" in names:
                async for result in service(seen):
                    yield result


async def idle(running: Agent, seconds: float) -> AsyncIterator[Result]:
    before, said = cpu_seconds(running.process.pid), running.log.count("\n")
    await asyncio.sleep(seconds)
    share = (cpu_seconds(running.process.pid) - before) / seconds * 100
    yield Result("idle: resident memory of one agent with all", resident_mb(running.process.pid), "MB", 100)
    yield Result("idle: share of a core", share, "%", 0.5)
    yield Result("idle: lines in its log", (running.log.count("\n") - said) * 60 / seconds, "a minute", 1)


def pod_spec() -> dict[str, Any]:
    return {"containers": [{"name": "web", "image": IMAGE, "ports": [{"containerPort": 80}]}]}


def template() -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()}


def workload(name: str, replicas: int) -> dict[str, Any]:
    selector = {"matchLabels": {"app": "web"}}
    return {
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {"replicas": replicas, "selector": selector, "template": template()},
    }


async def pod(seen: Followed, count: int) -> AsyncIterator[Result]:
    """One pod after the other, and beside each the least that any runtime must do: make and start two containers."""
    starts, ends, raw = [], [], []
    for number in range(count):
        name = f"single-{number}"
        begun = time.perf_counter()
        await seen.client.create(Pod, {"metadata": {"name": name, "namespace": SPACE}, "spec": pod_spec()})
        ready = await seen.until(lambda n=name: is_ready(seen.get(Pod, SPACE, n)), f"pod {name}")  # type: ignore[misc]
        starts.append(ready - begun)
        begun = time.perf_counter()
        await seen.client.delete(Pod, name, SPACE)
        gone = await seen.until(lambda n=name: seen.get(Pod, SPACE, n) is None, f"the end of {name}")  # type: ignore[misc]
        ends.append(gone - begun)
        raw.append(await two_containers())
    floor = f"{statistics.median(raw):.3f} s for two raw containers"
    yield Result(f"apply → pod Ready, p50 of {count}", statistics.median(starts), "s", 0.2, beside=floor)
    yield Result(f"delete of a pod → gone, p50 of {count}", statistics.median(ends), "s", 0.5)


async def two_containers() -> float:
    """Seconds to create and start, through the Engine's socket, a container with a network and one that joins it."""
    path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    made: list[str] = []
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:

        async def start(network: str) -> None:
            body = {"Image": IMAGE, "HostConfig": {"NetworkMode": network}}
            async with session.post("http://docker/containers/create", json=body) as answer:
                made.append((await answer.json())["Id"])
            async with session.post(f"http://docker/containers/{made[-1]}/start") as answer:
                if answer.status >= 300:
                    raise BenchError(f"the Docker Engine: {await answer.text()}")

        try:
            begun = time.perf_counter()
            await start("bridge")
            await start(f"container:{made[0]}")
            return time.perf_counter() - begun
        finally:
            for id in reversed(made):
                async with session.delete(f"http://docker/containers/{id}?force=true"):
                    pass


def count_ready(seen: Followed) -> int:
    return sum(1 for pod in seen.list(Pod) if pod.metadata.namespace == SPACE and is_ready(pod))


def none_left(seen: Followed) -> bool:
    return not any(pod.metadata.namespace == SPACE for pod in seen.list(Pod))


async def replica_set(running: Agent, seen: Followed, count: int) -> AsyncIterator[Result]:
    cpu, begun = cpu_seconds(running.process.pid), time.perf_counter()
    await seen.client.create(ReplicaSet, workload("many", count))
    ready = await seen.until(lambda: count_ready(seen) == count, f"{count} pods")
    each = f"{(cpu_seconds(running.process.pid) - cpu) / count * 1e3:.1f} ms CPU of the agent each"
    yield Result(f"{count} pods of one ReplicaSet Ready", ready - begun, "s", 3, beside=each)
    await asyncio.sleep(SETTLED)
    begun = time.perf_counter()
    await seen.client.delete(ReplicaSet, "many", SPACE)
    gone = await seen.until(lambda: none_left(seen), f"the end of {count} pods")
    yield Result(f"{count} pods of one ReplicaSet gone", gone - begun, "s", 3)
    await asyncio.sleep(SETTLED)


async def rollout(seen: Followed, count: int) -> Result:
    """Rolling update with the default strategy: a quarter more, none less at any time."""
    await seen.client.create(Deployment, workload("rolling", count))

    def complete() -> bool:
        found = seen.get(Deployment, SPACE, "rolling")
        if found is None or found.status.observedGeneration < found.metadata.generation:
            return False
        status = found.status
        return status.replicas == status.updatedReplicas == status.availableReplicas == count

    await seen.until(complete, "the deployment")
    await asyncio.sleep(SETTLED)
    begun = time.perf_counter()
    changed = {"spec": {"template": {"metadata": {"annotations": {"release": "2"}}}}}
    updated = await seen.client.patch(Deployment, "rolling", SPACE, changed)
    await seen.until(lambda: _generation(seen) >= updated.metadata.generation, "the update")
    done = await seen.until(complete, "the rolling update")
    await seen.client.delete(Deployment, "rolling", SPACE)
    await seen.until(lambda: none_left(seen), "the end of the deployment")
    return Result(f"rolling update of a Deployment of {count}", done - begun, "s", 2.5)


def _generation(seen: Followed) -> int:
    found = seen.get(Deployment, SPACE, "rolling")
    return found.metadata.generation if found else 0


async def service(seen: Followed) -> AsyncIterator[Result]:
    """A new Service in front of a pod that is ready: when does its address answer?"""
    await seen.client.create(
        Pod, {"metadata": {"name": "server", "namespace": SPACE, "labels": {"app": "served"}}, "spec": pod_spec()}
    )
    await seen.until(lambda: is_ready(seen.get(Pod, SPACE, "server")), "the server")
    await asyncio.sleep(1)
    from_slice, from_service = [], []
    for number in range(5):
        name = f"served-{number}"
        begun = time.perf_counter()
        spec = {"selector": {"app": "served"}, "ports": [{"port": 80}]}
        made = await seen.client.create(Service, {"metadata": {"name": name, "namespace": SPACE}, "spec": spec})
        answers = asyncio.create_task(_answers(made.spec.clusterIP, 80))
        known = await seen.until(lambda n=name: _has_endpoint(seen, n), "the endpoint")  # type: ignore[misc]
        answered = await answers
        from_service.append(answered - begun)
        from_slice.append(max(0.0, answered - known))
        await seen.client.delete(Service, name, SPACE)
    yield Result("new Service → its address answers, p50", statistics.median(from_service) * 1e3, "ms", 20)
    yield Result("endpoint in the API → the address answers, p50", statistics.median(from_slice) * 1e3, "ms", 15)
    await seen.client.delete(Pod, "server", SPACE)
    await seen.until(lambda: none_left(seen), "the end of the server")


def _has_endpoint(seen: Followed, service: str) -> bool:
    label = "kubernetes.io/service-name"
    slices = [found for found in seen.list(EndpointSlice) if found.metadata.labels.get(label) == service]
    return any(found.endpoints for found in slices)


async def _answers(address: str, port: int) -> float:
    """When the address has answered. An attempt that is not accepted at once is given up: its SYN went astray."""
    while True:
        try:
            async with asyncio.timeout(0.02):
                _, writer = await asyncio.open_connection(address, port)
            writer.close()
            return time.perf_counter()
        except (OSError, TimeoutError):
            await asyncio.sleep(0.001)
