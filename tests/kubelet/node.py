"""One node in a test: an API in memory, a kubelet on a runtime, and waits that end with the event, not with a guess."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from minik8s.aio import background
from minik8s.api.errors import AlreadyExists, NotFound, ServiceUnavailable
from minik8s.api.kinds.event import Event
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.pod import Pod
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import User
from minik8s.apiserver.handler import AllowAll
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.client.base import Client, Transport
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import system_clock
from minik8s.kubelet.kit import Settings
from minik8s.kubelet.kubelet import Kubelet
from minik8s.net.base import PodNetwork
from minik8s.net.fake import FakePodNetwork
from minik8s.runtime.base import ContainerInfo, Runtime
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache
from tests.images import BUSYBOX
from tests.patience import patience

ADMIN = User("admin", ("system:masters", "system:authenticated"))
NODE = "n1"


@asynccontextmanager
async def api_server(clock: Callable[[], float] = system_clock, tokens: Any = None) -> AsyncIterator[Client]:
    async with MemoryStore() as store, WatchCache(store) as cache:
        handler = build_handler(cache, authenticator=None, authorizer=AllowAll(), clock=clock, tokens=tokens)
        client = Client(LoopbackTransport(handler, ADMIN))
        for name in ("default", "kube-node-lease", "kube-system"):
            with contextlib.suppress(AlreadyExists):
                await client.create(Namespace, {"metadata": {"name": name}})
        yield client


class Node:
    """A kubelet that runs, and what a test asks of it."""

    def __init__(self, client: Client, kubelet: Kubelet, informers: Informers) -> None:
        self.client = client
        self.kubelet = kubelet
        self.runtime = kubelet.kit.runtime
        self._pods = informers.of(Pod, fields=f"spec.nodeName={kubelet.settings.node_name}")
        self._changed = asyncio.Event()
        self._pods.on_change(lambda old, new: self._changed.set())

    async def create(self, name: str, *containers: dict[str, Any], **spec: Any) -> Pod:
        meta = {"name": name, **spec.pop("metadata", {})}
        listed = [{"image": BUSYBOX, "imagePullPolicy": "IfNotPresent", **c} for c in containers]
        init = [{"image": BUSYBOX, "imagePullPolicy": "IfNotPresent", **c} for c in spec.pop("init", ())]
        document = {
            "metadata": meta,
            "spec": {
                "containers": listed,
                "initContainers": init,
                "nodeName": self.kubelet.settings.node_name,
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False,
                **spec,
            },
        }
        return await self.client.create(Pod, document, "default")

    async def until(self, name: str, test: Callable[[Pod], Any], seconds: float = 30) -> Pod:
        """The pod once `test` holds of it as the API has it."""
        try:
            async with asyncio.timeout(patience(seconds)):
                while True:
                    self._changed.clear()
                    pod = self._pods.get("default", name)
                    if pod is not None and test(pod):
                        return pod
                    await self._changed.wait()
        except TimeoutError:
            found = self._pods.get("default", name)
            told = msgspec.json.format(msgspec.json.encode(found.status if found else None)).decode()
            raise AssertionError(f"{name} did not get there: {told}\n{await self.events(name)}") from None

    async def ready(self, name: str, seconds: float = 30) -> Pod:
        return await self.until(name, is_ready, seconds)

    async def gone(self, name: str, seconds: float = 30) -> None:
        async with asyncio.timeout(patience(seconds)):
            while True:
                self._changed.clear()
                if self._pods.get("default", name) is None:
                    return
                await self._changed.wait()

    async def events(self, name: str) -> list[str]:
        found = await self.client.list(Event, "default")
        mine = [e for e in found.items if e.involvedObject.name == name]
        return [f"{e.type} {e.reason} {e.message}" for e in sorted(mine, key=lambda e: e.firstTimestamp)]

    async def seen(self, pod: Pod) -> dict[str, ContainerInfo]:
        """The newest attempt of each of a pod's containers."""
        infos = await self.runtime.containers(pod.metadata.uid)
        return {info.name: info for info in sorted(infos, key=lambda info: info.attempt)}

    async def delete(self, name: str, grace: int | None = None) -> None:
        with contextlib.suppress(NotFound):
            await self.client.delete(Pod, name, "default", grace=grace)
        await self.gone(name)


async def eventually(test: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """For what has no event of its own to wait for, such as files and the engine's list."""
    async with asyncio.timeout(patience(seconds)):
        while not await test():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def node(
    client: Client,
    runtime: Runtime,
    data: Path | None,
    network: PodNetwork | None = None,
    *,
    clock: Callable[[], float] = system_clock,
    registered: bool = True,
    name: str = NODE,
    **settings: Any,
) -> AsyncIterator[Node]:
    """`registered` False: do not wait for the API, which may be away."""
    informers = Informers(client)
    recorder = Recorder(client, "kubelet", host=name)
    setup = Settings(node_name=name, node_ip="127.0.0.1", data_dir=data, **settings)
    kubelet = Kubelet(client, informers, runtime, network or FakePodNetwork(), recorder, setup, clock)
    one = Node(client, kubelet, informers)
    async with background(informers.run(), recorder.run(), kubelet.run()):
        if registered:
            await kubelet.node.registered.wait()
        yield one


class Cuttable:
    """A transport that can be cut: then every request fails and every watch ends, as when the master is away."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._up = asyncio.Event()
        self._up.set()
        self._down = asyncio.Event()

    def cut(self) -> None:
        self._up.clear()
        self._down.set()

    def heal(self) -> None:
        self._down.clear()
        self._up.set()

    async def request(self, method: str, path: str, **more: Any) -> bytes:
        if self._down.is_set():
            raise ServiceUnavailable("the API server does not answer")
        return await self._inner.request(method, path, **more)

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[Sequence[bytes]]]:
        if self._down.is_set():
            raise ServiceUnavailable("the API server does not answer")
        async with self._inner.stream(path, query=query) as batches:
            yield self._until_cut(batches)

    async def _until_cut(self, batches: AsyncIterator[Sequence[bytes]]) -> AsyncIterator[Sequence[bytes]]:
        while True:
            following = asyncio.ensure_future(anext(batches))
            cut = asyncio.ensure_future(self._down.wait())
            try:
                await asyncio.wait((following, cut), return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    return
                yield following.result()
            except StopAsyncIteration:
                return
            finally:
                for task in (following, cut):
                    task.cancel()
                await asyncio.gather(following, cut, return_exceptions=True)


def is_ready(pod: Pod) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)


def restarts(pod: Pod, name: str) -> int:
    return next(s.restartCount for s in pod.status.containerStatuses if s.name == name)


def waiting(pod: Pod, name: str) -> str:
    every = (*pod.status.initContainerStatuses, *pod.status.containerStatuses)
    state = next((s.state.waiting for s in every if s.name == name), None)
    return state.reason if state is not None else ""


def unique() -> str:
    return uuid.uuid4().hex[:8]


def stopwatch() -> Callable[[], float]:
    begun = time.monotonic()
    return lambda: time.monotonic() - begun
