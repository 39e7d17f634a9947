"""EndpointSlices follow the pods of each Service at once: one that turns unready is out of them milliseconds later."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from minik8s.api.errors import NotFound
from minik8s.api.kinds.endpointslice import MANAGED_BY_LABEL, SERVICE_NAME_LABEL, EndpointSlice
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.service import Service
from minik8s.api.meta import Json
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informer, Informers
from minik8s.controllers.crowd import pause
from minik8s.controllers.endpoint_render import Kept, facts, families, is_managed, labels, render, selects_pod
from minik8s.controllers.ownership import owner_reference
from minik8s.controllers.slice_plan import plan

MANAGER = "endpointslice-controller.k8s.io"
BY_SERVICE = "service"


class PodFollower(Controller):
    """Knows which pods each Service selects, and brings a Service back when one of them changes in what matters."""

    def __init__(self, client: Client, informers: Informers) -> None:
        super().__init__(client, informers)
        self._services = informers.of(Service)
        self._pods = informers.of(Pod)
        self._managed: dict[str, dict[str, Service]] = {}  # by namespace and key: those whose endpoints are found here
        self._selected: dict[str, set[str]] = {}  # Service's key -> its pods' keys
        self._looked: dict[str, float] = {}  # Service's key -> when it was looked at, by the loop's clock
        self._services.on_change(self._service_changed)
        self._pods.on_change(self._pod_changed)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        service = new or old or Service()
        key, managed = service.key, self._managed.setdefault(service.metadata.namespace, {})
        if new is not None and is_managed(new):
            managed[key] = new
        else:
            managed.pop(key, None)
        if new is None:
            self._selected.pop(key, None)
            self._looked.pop(key, None)
        elif old is None or old.spec.selector != new.spec.selector or is_managed(old) != is_managed(new):
            candidates = self._pods.list(new.metadata.namespace) if is_managed(new) else []
            self._selected[key] = {pod.key for pod in candidates if selects_pod(new, pod)}
        self.queue.add(key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        managed = self._managed.get(pod.metadata.namespace)
        if not managed or (old is not None and new is not None and facts(old) == facts(new)):
            return
        for key, service in managed.items():
            selected = self._selected[key]
            if new is not None and selects_pod(service, new):
                selected.add(pod.key)
            elif pod.key in selected:
                selected.discard(pod.key)
            else:
                continue
            self.soon(key)

    def soon(self, key: str) -> None:
        """Look again, after a while if it has just been looked at."""
        since = asyncio.get_running_loop().time() - self._looked.get(key, 0.0)
        self.queue.add_after(key, pause(len(self._selected.get(key, ())), since))

    def selected(self, key: str) -> list[Pod]:
        """The Service's pods, for a look that is made now."""
        self._looked[key] = asyncio.get_running_loop().time()
        found = (self._pods.by_key(each) for each in self._selected.get(key, ()))
        return [pod for pod in found if pod is not None]


def index_by_service(slices: Informer[EndpointSlice]) -> None:
    slices.add_index(BY_SERVICE, service_of)


def service_of(each: EndpointSlice) -> tuple[str, ...]:
    name = each.metadata.labels.get(SERVICE_NAME_LABEL)
    return (f"{each.metadata.namespace}/{name}",) if name else ()


class EndpointSliceController(PodFollower):
    name = "endpointslice-controller"

    def __init__(self, client: Client, informers: Informers) -> None:
        super().__init__(client, informers)
        self._slices = informers.of(EndpointSlice)
        index_by_service(self._slices)
        self._slices.on_change(self._slice_changed)
        self._writer = SliceWriter(client, self._slices)
        self._kept: dict[str, Kept] = {}

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Others' meddling is repaired; one's own writes come back too, and cost one look that finds nothing to do."""
        each = new or old
        if each is not None and each.metadata.labels.get(MANAGED_BY_LABEL) == MANAGER:
            for key in service_of(each):
                self.soon(key)

    async def reconcile(self, key: str) -> float | None:
        service = self._services.by_key(key)
        if service is None or service.deleting:
            self._kept.pop(key, None)
            return None  # garbage collection removes the slices with their owner
        mine = [
            each
            for each in self._slices.by_index(BY_SERVICE, key)
            if each.metadata.labels.get(MANAGED_BY_LABEL) == MANAGER and not each.deleting
        ]
        if not is_managed(service):
            if service.spec.type == "ExternalName":
                await self._writer.delete(mine)
            return None
        marks = labels(service, **{SERVICE_NAME_LABEL: service.metadata.name, MANAGED_BY_LABEL: MANAGER})
        pods = self.selected(key)
        kept = self._kept.setdefault(key, Kept())
        for family in families(service):
            todo = plan(
                render(service, pods, family, kept), [each for each in mine if each.addressType == family], marks
            )
            await self._writer.delete(todo.delete)
            await self._writer.update(todo.update)
            for ports, endpoints in todo.create:
                await self._writer.create(service, {"addressType": family, **body(ports, endpoints)}, marks)
        await self._writer.delete([each for each in mine if each.addressType not in families(service)])
        return None


def body(ports: Any, endpoints: Any) -> Json:
    # Structs leave out what is at its default; `TCP` is the wire's default too, but clients like to see it.
    shown = [{"protocol": "TCP", "name": "", **msgspec.to_builtins(port)} for port in ports]
    return {"endpoints": msgspec.to_builtins(endpoints), "ports": shown}


class SliceWriter:
    """Writes slices and waits until the copy shows it, so that the next look does not write again."""

    def __init__(self, client: Client, slices: Informer[EndpointSlice]) -> None:
        self._client = client
        self._slices = slices

    async def create(self, service: Service, content: Json, marks: dict[str, str]) -> None:
        meta: Json = {
            "generateName": f"{service.metadata.name}-",
            "namespace": service.metadata.namespace,
            "labels": marks,
            "ownerReferences": [owner_reference(service, self._client.resource(Service))],
        }
        made = await self._client.create(EndpointSlice, {"metadata": meta, **content})
        await self._slices.caught_up(made.metadata.resourceVersion)

    async def update(self, slices: list[EndpointSlice]) -> None:
        for each in slices:
            meta = each.metadata
            known = self._slices.by_key(each.key)
            gone = dict.fromkeys(known.metadata.labels.keys() - meta.labels.keys()) if known is not None else {}
            patch: Json = {"metadata": {"uid": meta.uid, "labels": {**meta.labels, **gone}}}
            patch["endpoints"] = msgspec.to_builtins(each.endpoints)
            written = await self._client.patch(EndpointSlice, meta.name, meta.namespace, patch)
            await self._slices.caught_up(written.metadata.resourceVersion)

    async def delete(self, slices: list[EndpointSlice]) -> None:
        for each in slices:
            try:
                await self._client.delete(EndpointSlice, each.metadata.name, each.metadata.namespace)
            except NotFound:
                continue
