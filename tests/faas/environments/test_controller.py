"""The controller on a whole control plane in memory; the test is the node that builds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from minik8s.aio import background
from minik8s.api.kinds.environment import Environment
from minik8s.api.kinds.function import Function
from minik8s.api.kinds.job import Job
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import Object, condition
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.faas.environments import plan
from minik8s.faas.environments.controller import EnvironmentController
from minik8s.testing import Cluster, cluster

ROOT = Path("/var/lib/minik8s/environments")


@asynccontextmanager
async def running() -> AsyncIterator[Cluster]:
    async with cluster(nodes=0, functions=False) as it:
        informers = Informers(it.client)
        recorder = Recorder(it.client, "environment-controller")
        controller = EnvironmentController(it.client, informers, recorder, ROOT, lambda: "runtime:1")
        async with background(informers.run(), recorder.run(), controller.run()):
            for name in ("n1", "n2"):
                await it.client.create(Node, {"metadata": {"name": name}})
            yield it


def ready(environment: Environment) -> str:
    found = condition(environment.status.conditions, "Ready")
    return found.reason if found is not None else ""


async def gone(it: Cluster, kind: type[Object]) -> None:
    """Wait until there is no object of a kind."""
    none = asyncio.Event()
    informer = it.informers.of(kind)
    informer.on_change(lambda old, new: None if len(informer) else none.set())
    async with asyncio.timeout(10):
        await none.wait()


async def end(it: Cluster, node: str, phase: str, said: str, *, of: str = "") -> Pod:
    """Play a node on which the pod of a build ends."""
    pod = await it.until(Pod, lambda p: p.metadata.name.startswith(f"build-{of}") and p.status.phase in ("", "Pending"))
    meta = pod.metadata
    binding = {"target": {"apiVersion": "v1", "kind": "Node", "name": node}}
    if not pod.spec.nodeName:
        await it.client.post(Pod, meta.name, meta.namespace, "binding", binding)
    code = 0 if phase == "Succeeded" else 1
    state = {"terminated": {"exitCode": code, "message": said, "reason": "Completed"}}
    status = {"phase": phase, "containerStatuses": [{"name": "build", "image": "", "imageID": "", "ready": False,
              "restartCount": 0, "state": state}]}  # fmt: skip
    await it.client.patch(Pod, meta.name, meta.namespace, {"status": status}, subresource="status")
    return pod


def function(name: str, *requirements: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"requirements": list(requirements), "code": {"inline": "x = 1"}}}


async def test_requirements_are_built_once_and_follow_pods() -> None:
    async with running() as it:
        await it.client.create(Function, function("f", "a>=1"), "default")
        environment = await it.until(Environment, lambda e: ready(e) == "Building")
        assert environment.metadata.name == plan.implicit_name(["a>=1"])
        job = await it.until(Job, lambda job: True)
        container = job.spec.template.spec.containers[0]
        assert container.image == "runtime:1"
        assert container.args[2:] == ("a>=1", "")
        await end(it, "n1", "Succeeded", "a==1.5\nb==2")
        environment = await it.until(Environment, lambda e: ready(e) == "Built")
        assert environment.status.nodes == ("n1",)
        assert environment.status.installed == ("a==1.5", "b==2")

        # A second function with the same requirements builds nothing; one of its pods comes to another node.
        await it.client.create(Function, function("g", "a>=1"), "default")
        await it.until(Environment, lambda e: len(e.metadata.ownerReferences) == 2)
        volumes, mounts = plan.volumes(ROOT, environment.status.hash)
        pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n2", "volumes": volumes, "containers": [
            {"name": "c", "image": "runtime:1", "volumeMounts": mounts}]}}  # fmt: skip
        await it.client.create(Pod, pod, "default")
        job = await it.until(Job, lambda job: job.metadata.annotations.get(plan.NODE_ANNOTATION) == "n2")
        assert job.spec.template.spec.containers[0].args[2:] == ("a==1.5\nb==2", "pinned")
        await end(it, "n2", "Succeeded", "a==1.5\nb==2")
        await it.until(Environment, lambda e: e.status.nodes == ("n1", "n2"))

        # It goes with the last that refers to it.
        for name in ("f", "g"):
            await it.client.delete(Function, name, "default")
        await gone(it, Environment)


async def test_a_failed_build_says_what_pip_said() -> None:
    async with running() as it:
        await it.client.create(
            Environment, {"metadata": {"name": "e"}, "spec": {"requirements": ["absent"]}}, "default"
        )
        for _ in range(plan.TRIES):
            await end(it, "n1", "Failed", "ERROR: No matching distribution found for absent\n")
        environment = await it.until(Environment, lambda e: ready(e) == "BuildFailed")
        told = condition(environment.status.conditions, "Ready")
        assert told is not None
        assert "No matching distribution found for absent" in told.message
        # Mended: built anew.
        change = {"spec": {"requirements": ["present"]}}
        await it.client.patch(Environment, "e", "default", change)
        await it.until(Environment, lambda e: ready(e) == "Building")
        await end(it, "n1", "Succeeded", "present==1")
        await it.until(Environment, lambda e: e.status.installed == ("present==1",))
