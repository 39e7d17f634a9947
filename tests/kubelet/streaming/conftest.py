from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minik8s.runtime.docker import DockerRuntime
from minik8s.runtime.fake import FakeRuntime
from tests.images import BUSYBOX, docker_answers, make_images
from tests.kubelet.streaming.cluster import KUBECTLS, Cluster, cluster


@pytest.fixture
async def fake() -> AsyncIterator[Cluster]:
    async with FakeRuntime(images=[BUSYBOX]) as runtime, cluster(runtime) as running:
        yield running


@pytest.fixture
async def docker() -> AsyncIterator[Cluster]:
    if not docker_answers():
        pytest.skip("no Docker Engine answers")
    make_images("busybox")
    async with DockerRuntime(f"stream-{uuid.uuid4()}") as runtime, cluster(runtime) as running:
        try:
            yield running
        finally:
            for info in await runtime.containers():
                await runtime.remove(info.id)


@pytest.fixture(params=KUBECTLS or [None], ids=lambda path: path.name if path else "none")
def kubectl(request: pytest.FixtureRequest) -> Path:
    if request.param is None:
        pytest.skip("no kubectl")
    return request.param  # type: ignore[no-any-return]
