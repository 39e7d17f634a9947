"""What the tests of the running scheduler do to its world, and how they wait for what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from minik8s.api.kinds.event import Event
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.scheduler.scheduler import Scheduler


class World:
    def __init__(self, client: Client, informers: Informers, scheduler: Scheduler, transport: Any) -> None:
        self.client, self.informers, self.scheduler, self.transport = client, informers, scheduler, transport
        self._changed = asyncio.Event()
        for kind in (Pod, Event, Node):
            informers.of(kind).on_change(lambda old, new: self._changed.set())

    async def node(self, name: str, *, cpu: str = "4", **spec: Any) -> None:
        room = {"cpu": cpu, "memory": "8Gi", "pods": "110"}
        await self.client.create(Node, {"metadata": {"name": name}, "spec": spec, "status": {"allocatable": room}})
        await self.client.patch(
            Node, name, None, {"status": {"allocatable": room, "capacity": room}}, subresource="status"
        )

    async def pod(self, name: str, *, cpu: str = "100m", **spec: Any) -> Pod:
        container = {"name": "c", "image": "app:1", "resources": {"requests": {"cpu": cpu}}}
        return await self.client.create(
            Pod, {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [container], **spec}}
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when `holds()`; it is asked again at every change of a pod, a node or an event."""
        async with asyncio.timeout(10):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def at(self, name: str) -> str:
        found = self.informers.of(Pod).get("default", name)
        return found.spec.nodeName if found else ""

    async def bound(self, *names: str) -> list[str]:
        await self.until(lambda: all(self.at(name) for name in names))
        return [self.at(name) for name in names]

    def condition(self, name: str) -> tuple[str, str, str]:
        """Status, reason and message of PodScheduled."""
        found = self.informers.of(Pod).get("default", name)
        for each in found.status.conditions if found else ():
            if each.type == "PodScheduled":
                return each.status, each.reason, each.message
        return "", "", ""

    async def event(self, reason: str, name: str) -> Event:
        def found() -> list[Event]:
            events = self.informers.of(Event).list()
            return [e for e in events if e.reason == reason and e.involvedObject.name == name]

        await self.until(lambda: bool(found()))
        return found()[-1]

    async def strategy(self, name: str) -> None:
        from minik8s.api.kinds.configmap import ConfigMap

        document = {"metadata": {"name": "minik8s-config", "namespace": "kube-system"}, "data": {"sched": name}}
        informer = self.scheduler._settings.informer
        known = informer.get("kube-system", "minik8s-config")
        if known is None:
            written = await self.client.create(ConfigMap, document)
        else:
            written = await self.client.patch(ConfigMap, "minik8s-config", "kube-system", {"data": {"sched": name}})
        await informer.caught_up(written.metadata.resourceVersion)
