"""EndpointSlices follow the pods of each Service at once: one that turns unready is out of them milliseconds later."""

from __future__ import annotations

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
from minik8s.controllers.crowd import patience
from minik8s.controllers.endpoint_render import facts, families, is_managed, labels, render, selects_pod
from minik8s.controllers.ownership import owner_reference
from minik8s.controllers.slice_plan import plan

MANAGER = "endpointslice-controller.k8s.io"
BY_SERVICE = "service"


class PodFollower(Controller):
    """Brings every Service back whose endpoints a changed pod may touch."""

    def __init__(self, client: Client, informers: Informers) -> None:
        super().__init__(client, informers)
        self._services = informers.of(Service)
        self._pods = informers.of(Pod)
        self._services.on_change(lambda old, new: self.queue.add((new or old or Service()).key))
        self._pods.on_change(self._pod_changed)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and facts(old) == facts(new):
            return
        known = [pod for pod in (old, new) if pod is not None]
        namespace = known[0].metadata.namespace
        wait = self.patience(namespace)
        for service in self._services.list(namespace):
            if is_managed(service) and any(selects_pod(service, pod) for pod in known):
                self.queue.add_after(service.key, wait)

    def patience(self, namespace: str) -> float:
        """Seconds to wait for more: a look goes through all pods of the namespace."""
        return patience(len(self._pods.list(namespace)))


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

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Others' meddling is repaired; one's own writes come back too, and cost one look that finds nothing to do."""
        each = new or old
        if each is not None and each.metadata.labels.get(MANAGED_BY_LABEL) == MANAGER:
            for key in service_of(each):
                self.queue.add_after(key, self.patience(each.metadata.namespace))

    async def reconcile(self, key: str) -> float | None:
        service = self._services.by_key(key)
        if service is None or service.deleting:
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
        pods = self._pods.list(service.metadata.namespace)
        for family in families(service):
            todo = plan(render(service, pods, family), [each for each in mine if each.addressType == family], marks)
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
