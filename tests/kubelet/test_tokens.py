"""ServiceAccount tokens in pods: held in memory, renewed in place at four fifths of their life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.client.base import Client
from minik8s.kubelet.mounts import unmount_below
from minik8s.runtime.fake import FakeRuntime

from .node import Cuttable, api_server, eventually, node

pytestmark = [pytest.mark.looptime, pytest.mark.root]
APP = {"name": "app", "image": "web:1"}


def clock() -> float:
    return 1_700_000_000.0 + asyncio.get_running_loop().time()


class Numbered:
    """Issues token-1, token-2, … as bound to what was asked for."""

    def __init__(self) -> None:
        self.issued: list[tuple[str, str, str]] = []

    def issue(
        self, account: ServiceAccount, *, audiences: Sequence[str], seconds: int, bound: tuple[str, str, str]
    ) -> tuple[str, float]:
        self.issued.append(bound)
        return f"token-{len(self.issued)}", clock() + seconds


@pytest.fixture
def data(tmp_path: Path):
    yield tmp_path
    unmount_below(tmp_path)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with api_server(clock, Numbered()) as client:
        await client.create(ServiceAccount, {"metadata": {"name": "default"}}, "default")
        await client.create(ConfigMap, {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "CA"}}, "default")
        yield client


async def test_tokens_are_renewed_in_place(client: Client, data: Path):
    transport = Cuttable(client.transport)
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 1000, "audience": "me"}}
    volumes = [{"name": "t", "projected": {"sources": [source, {"configMap": {"name": "kube-root-ca.crt"}}]}}]
    app = {**APP, "volumeMounts": [{"name": "t", "mountPath": "/t"}]}
    async with FakeRuntime(clock=clock) as runtime, node(Client(transport), runtime, data, clock=clock) as one:
        await one.create("who", app, volumes=volumes)
        pod = await one.ready("who")
        folder = data / "pods" / pod.metadata.uid / "volumes" / "kubernetes.io~projected" / "t"
        assert (folder / "token").read_text() == "token-1"
        assert (folder / "ca.crt").read_text() == "CA"
        assert folder.is_mount(), "secrets are held in memory"
        await asyncio.sleep(700)
        assert (folder / "token").read_text() == "token-1"
        transport.cut()
        await asyncio.sleep(150)  # past the time of renewal: the old one is still good
        assert (folder / "token").read_text() == "token-1"
        transport.heal()

        async def renewed() -> bool:
            return (folder / "token").read_text() == "token-2"

        await eventually(renewed, 60)
        await one.delete("who")
        assert not folder.exists()


async def test_the_default_token_is_bound_to_its_pod(client: Client, data: Path):
    async with FakeRuntime(clock=clock) as runtime, node(client, runtime, data, clock=clock) as one:
        await one.create("auto", APP, automountServiceAccountToken=True)
        pod = await one.ready("auto")
        mount = next(m for m in pod.spec.containers[0].volumeMounts if m.mountPath.endswith("serviceaccount"))
        folder = data / "pods" / pod.metadata.uid / "volumes" / "kubernetes.io~projected" / mount.name
        assert {path.name for path in folder.iterdir() if not path.name.startswith("..")} == {
            "token",
            "ca.crt",
            "namespace",
        }
        assert (folder / "namespace").read_text() == "default"
