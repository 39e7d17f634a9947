"""Runtimes to test: the fake, and Docker Engine with a node uid of the test's own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from minik8s.runtime.base import ContainerSpec, Runtime, SandboxSpec
from minik8s.runtime.docker import DockerRuntime
from minik8s.runtime.fake import FakeRuntime
from tests.images import BUSYBOX, docker_answers, make_images


@pytest.fixture
async def docker() -> AsyncIterator[DockerRuntime]:
    if not docker_answers():
        pytest.skip("no Docker Engine answers")
    make_images("busybox")
    async with DockerRuntime(f"test-{uuid.uuid4()}") as runtime:
        try:
            yield runtime
        finally:
            for info in await runtime.containers():
                await runtime.remove(info.id)


@pytest.fixture
async def fake() -> AsyncIterator[FakeRuntime]:
    async with FakeRuntime(images=[BUSYBOX]) as runtime:
        yield runtime


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


class Pod:
    """A pod on a runtime, with names of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.uid = str(uuid.uuid4())
        self.spec = SandboxSpec(self.uid, "web-0", "default", hostname="web-0")
        self.sandbox = ""  # its id

    async def up(self) -> Pod:
        self.sandbox = await self.runtime.create_sandbox(self.spec)
        await self.runtime.start_sandbox(self.sandbox)
        return self

    def container(self, *command: str, name: str = "app", **more: object) -> ContainerSpec:
        spec = ContainerSpec(
            self.uid, "web-0", "default", name, 0, "hash", BUSYBOX, self.spec, self.sandbox, command=command
        )
        return replace(spec, **more)  # type: ignore[arg-type]

    async def run(self, *command: str, **more: object) -> str:
        container_id = await self.runtime.create_container(self.container(*command, **more))
        await self.runtime.start(container_id)
        return container_id


@pytest.fixture
def pod(runtime: Runtime) -> Pod:
    return Pod(runtime)


@pytest.fixture
def docker_pod(docker: DockerRuntime) -> Pod:
    return Pod(docker)
