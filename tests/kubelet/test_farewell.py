"""A pod is told to end only when nobody is led to it any more; but it does end, whatever Services do."""

from __future__ import annotations

import asyncio
import time

import pytest

from minik8s.aio import background
from minik8s.api.kinds.pod import Pod
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.kubelet.kit import Settings
from minik8s.kubelet.kubelet import Kubelet
from minik8s.net.fake import FakePodNetwork
from minik8s.runtime.fake import FakeRuntime

from .node import NODE, Node, api_server


@pytest.mark.parametrize(("withdrawn_at_last", "seconds"), [(True, 30), (False, 2), (False, 0)])
async def test_the_end_waits_for_services(withdrawn_at_last: bool, seconds: int) -> None:
    asked, may_end = asyncio.Event(), asyncio.Event()

    async def withdrawn(pod: Pod) -> None:
        asked.set()
        await may_end.wait()

    async with api_server() as client, FakeRuntime() as runtime:
        informers, recorder = Informers(client), Recorder(client, "kubelet", host=NODE)
        settings = Settings(node_name=NODE, node_ip="127.0.0.1", data_dir=None)
        network = FakePodNetwork()
        kubelet = Kubelet(client, informers, runtime, network, recorder, settings, withdrawn=withdrawn)
        one = Node(client, kubelet, informers)
        async with background(informers.run(), recorder.run(), kubelet.run()):
            await kubelet.node.registered.wait()
            await one.create("p", {"name": "c"})
            pod = await one.ready("p")
            await client.delete(Pod, "p", "default", grace=seconds)
            begun = time.monotonic()
            if withdrawn_at_last:
                await asked.wait()
                await asyncio.sleep(0.1)
                assert (await one.seen(pod))["c"].state == "running"
                may_end.set()
            await one.gone("p")
            assert time.monotonic() - begun < 5
            assert asked.is_set() == bool(seconds)
