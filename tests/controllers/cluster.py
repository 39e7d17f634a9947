"""A control plane in memory for tests: the real API server, real controllers, and a kubelet whose pods do as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from minik8s.aio import background
from minik8s.api.errors import NotFound
from minik8s.api.kinds.event import Event
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import MASTERS, User
from minik8s.apiserver.handler import AllowAll
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, rfc3339, system_clock
from minik8s.controllers import build
from minik8s.controllers.daemon_plan import node_of
from minik8s.controllers.pod_facts import is_finished
from minik8s.controllers.settings import Settings
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache

PATIENCE = 5.0  # seconds that a test waits for what must come
DEFAULTS = Settings()
Json = dict[str, Any]


class Kubelet(Controller):
    """Binds pods, runs them, ends them. `behave(pod)` gives the status of a bound pod; None leaves it as it is."""

    name = "test-kubelet"

    def __init__(self, client: Client, informers: Informers, clock: Clock) -> None:
        super().__init__(client, informers)
        self._clock = clock
        self._addresses = iter(range(1, 65536))
        self.behave: Callable[[Pod], Json | None] = lambda pod: (
            self.running(pod) if not pod.status.phase or pod.status.phase == "Pending" else None
        )
        self.ends = True  # whether deleted pods are ended
        self._pods = informers.of(Pod)
        self._pods.on_change(lambda old, new: self.queue.add(new.key) if new is not None else None)

    def running(self, pod: Pod, *, ready: bool = True) -> Json:
        number = next(self._addresses)
        ip = pod.status.podIP or f"10.244.{number // 250}.{number % 250 + 1}"
        now = rfc3339(self._clock())
        conditions = [
            {"type": type, "status": str(ready), "lastTransitionTime": now} for type in ("Ready", "ContainersReady")
        ]
        return {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now, "conditions": conditions}

    def ended(self, pod: Pod, *, code: int = 0) -> Json:
        now = rfc3339(self._clock())
        state = {"terminated": {"exitCode": code, "finishedAt": now, "reason": "Completed" if code == 0 else "Error"}}
        name = pod.spec.containers[0].name
        statuses = [{"name": name, "state": state, "image": "x", "imageID": "", "ready": False, "restartCount": 0}]
        return {"phase": "Failed" if code else "Succeeded", "containerStatuses": statuses}

    async def reconcile(self, key: str) -> float | None:
        pod = self._pods.by_key(key)
        if pod is None:
            return None
        meta = pod.metadata
        if pod.deleting:
            if self.ends and pod.metadata.deletionGracePeriodSeconds != 0:
                if not is_finished(pod):
                    await self.set_status(pod, self.ended(pod, code=137))
                await self.client.delete(Pod, meta.name, meta.namespace, grace=0, uid=meta.uid)
            return None
        if not pod.spec.nodeName:
            node = node_of(pod) or "n1"
            body = {"metadata": {"name": meta.name}, "target": {"kind": "Node", "name": node}}
            await self.client.post(Pod, meta.name, meta.namespace, "binding", body)
            return None
        status = self.behave(pod)
        if status is not None:
            await self.set_status(pod, status)
        return None

    async def set_status(self, pod: Pod, status: Json) -> None:
        meta = pod.metadata
        await self.client.patch(Pod, meta.name, meta.namespace, {"status": status}, subresource="status")


class Cluster:
    def __init__(self, client: Client, informers: Informers, clock: Clock, settings: Settings) -> None:
        self.client = client
        self.informers = informers
        self.clock = clock
        self.recorders: dict[str, Recorder] = {}
        self.kubelet = Kubelet(client, informers, clock)
        self.controllers = build(client, informers, self.recorder, clock, settings)
        self._changed = asyncio.Event()
        self._watched: set[type[Any]] = set()

    def recorder(self, name: str) -> Recorder:
        if name not in self.recorders:
            self.recorders[name] = Recorder(self.client, name, clock=self.clock)
        return self.recorders[name]

    def all(self, kind: type[Any], namespace: str | None = None) -> list[Any]:
        """The objects of a kind, from a copy that `until` follows."""
        informer = self.informers.of(kind)
        if kind not in self._watched:
            self._watched.add(kind)
            informer.on_change(lambda old, new: self._changed.set())
        return sorted(informer.list(namespace), key=lambda each: each.key)

    def get(self, kind: type[Any], name: str, namespace: str | None = "default") -> Any:
        self.all(kind)
        return self.informers.of(kind).get(namespace, name)

    async def until(self, check: Callable[[], Any]) -> Any:
        """Wait, woken by changes of what `check` looks at, until it returns something true."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self._changed.clear()
                found = check()
                if found:
                    return found
                await self._changed.wait()

    async def until_virtual(self, check: Callable[[], Any], limit: float) -> Any:
        """`until` in virtual time, of which it may take `limit` seconds."""
        async with asyncio.timeout(limit):
            while not (found := check()):
                self._changed.clear()
                await self._changed.wait()
        return found

    async def settle(self) -> None:
        """Wait until no controller has anything to do at this moment."""
        async with asyncio.timeout(PATIENCE):
            quiet = 0
            while quiet < 20:
                quiet = quiet + 1 if all(each.queue.idle for each in [*self.controllers, self.kubelet]) else 0
                await asyncio.sleep(0.001)

    async def events(self, reason: str) -> list[Event]:
        for recorder in self.recorders.values():
            while not recorder.idle:
                await asyncio.sleep(0)
        return [each for each in (await self.client.list(Event)).items if each.reason == reason]


@asynccontextmanager
async def control_plane(
    *, clock: Clock = system_clock, settings: Settings = DEFAULTS, nodes: Sequence[str] = ("n1",)
) -> AsyncIterator[Cluster]:
    async with MemoryStore() as store, WatchCache(store) as cache:
        handler = build_handler(cache, authenticator=None, authorizer=AllowAll(), clock=clock)
        client = Client(LoopbackTransport(handler, User("system:test", (MASTERS,))))
        for name in ("default", "kube-node-lease"):
            await client.create(Namespace, {"metadata": {"name": name}})
        for name in nodes:
            await add_node(client, name, clock)
        informers = Informers(client)
        cluster = Cluster(client, informers, clock, settings)
        cluster.all(Node)
        async with background(informers.run()):
            await informers.synced()
            parts = [each.run() for each in [*cluster.controllers, cluster.kubelet, *cluster.recorders.values()]]
            async with background(*parts):
                yield cluster


async def add_node(client: Client, name: str, clock: Clock, *, ip: str = "192.0.2.1", **spec: Any) -> None:
    now = rfc3339(clock())
    await client.create(Node, {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": spec})
    status = {
        "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}],
        "addresses": [{"type": "InternalIP", "address": ip}],
    }
    await client.patch(Node, name, None, {"status": status}, subresource="status")


async def exists(client: Client, kind: type[Any], name: str, namespace: str | None = "default") -> bool:
    try:
        await client.get(kind, name, namespace)
    except NotFound:
        return False
    return True


def workload(name: str = "web", **spec: Any) -> Json:
    """The spec that ReplicaSet, Deployment and DaemonSet share."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "img:1"}]}}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def image_of(obj: Any) -> Iterator[str]:
    return (container.image for container in obj.spec.containers)
