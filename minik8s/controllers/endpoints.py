"""Endpoints, the old form of EndpointSlices: one object per Service with all its addresses, for those who read it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from minik8s.api.errors import AlreadyExists, NotFound
from minik8s.api.kinds.endpoints import EndpointAddress, Endpoints, EndpointSubset
from minik8s.api.kinds.endpointslice import Endpoint
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.service import Service
from minik8s.api.meta import Json
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.controllers.endpoint_render import Kept, families, is_managed, labels, render
from minik8s.controllers.endpointslice import PodFollower

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MAX_ADDRESSES = 1000  # in one object; more are cut off and marked so, as in Kubernetes


def subsets(service: Service, pods: Iterable[Pod], kept: Kept | None = None) -> tuple[tuple[EndpointSubset, ...], bool]:
    """What the object should say, and whether addresses had to be left out. Terminating pods are not in it."""
    found, room, cut = [], MAX_ADDRESSES, False
    for ports, endpoints in sorted(
        render(service, pods, families(service)[0], kept).items(), key=lambda item: repr(item[0])
    ):
        alive = [e for e in endpoints if not e.conditions.terminating or service.spec.publishNotReadyAddresses]
        alive.sort(key=lambda e: (not e.conditions.ready, e.addresses))
        cut = cut or len(alive) > room
        alive = alive[:room]
        room -= len(alive)
        if alive:
            found.append(
                EndpointSubset(
                    addresses=tuple(_address(e) for e in alive if e.conditions.ready),
                    notReadyAddresses=tuple(_address(e) for e in alive if not e.conditions.ready),
                    ports=ports,
                )
            )
    return tuple(found), cut


def _address(endpoint: Endpoint) -> EndpointAddress:
    return EndpointAddress(endpoint.addresses[0], endpoint.hostname, endpoint.nodeName, endpoint.targetRef)


class EndpointsController(PodFollower):
    name = "endpoint-controller"

    def __init__(self, client: Client, informers: Informers) -> None:
        super().__init__(client, informers)
        self._kept: dict[str, Kept] = {}
        self._endpoints = informers.of(Endpoints)
        self._endpoints.on_change(self._endpoints_changed)

    def _endpoints_changed(self, old: Endpoints | None, new: Endpoints | None) -> None:
        each = new or old
        if each is not None and each.metadata.labels.get(MANAGED_BY) == MANAGER:
            self.soon(each.key)

    async def reconcile(self, key: str) -> float | None:
        service, known = self._services.by_key(key), self._endpoints.by_key(key)
        if service is None or service.deleting or service.spec.type == "ExternalName":
            self._kept.pop(key, None)
            if known is not None and known.metadata.labels.get(MANAGED_BY) == MANAGER:
                await self._remove(known)
            return None
        if is_managed(service):
            await self._write(service, known)
        return None

    async def _remove(self, known: Endpoints) -> None:
        try:
            await self.client.delete(Endpoints, known.metadata.name, known.metadata.namespace, uid=known.metadata.uid)
        except NotFound:
            return

    async def _write(self, service: Service, known: Endpoints | None) -> None:
        kept = self._kept.setdefault(service.key, Kept())
        wanted, cut = subsets(service, self.selected(service.key), kept)
        marks = labels(service, **{MANAGED_BY: MANAGER})
        full = {OVER_CAPACITY: "truncated"} if cut else {}
        meta = {"name": service.metadata.name, "namespace": service.metadata.namespace}
        if known is None:
            document: Json = {"metadata": {**meta, "labels": marks, "annotations": full}, "subsets": _shown(wanted)}
            try:
                made = await self.client.create(Endpoints, document)
            except AlreadyExists:
                made = await self.client.get(Endpoints, meta["name"], meta["namespace"])
                self.queue.add(service.key)
        else:
            has = known.metadata
            if (known.subsets, has.labels) == (wanted, marks) and (OVER_CAPACITY in has.annotations) == cut:
                return
            gone = dict.fromkeys(has.labels.keys() - marks.keys())
            patch: Json = {
                "metadata": {"labels": {**marks, **gone}, "annotations": full or {OVER_CAPACITY: None}},
                "subsets": _shown(wanted),
            }
            made = await self.client.patch(Endpoints, meta["name"], meta["namespace"], patch)
        await self._endpoints.caught_up(made.metadata.resourceVersion)


def _shown(wanted: tuple[EndpointSubset, ...]) -> list[Json]:
    found: list[Json] = msgspec.to_builtins(wanted)
    for subset in found:
        subset["ports"] = [{"protocol": "TCP", **port} for port in subset.get("ports", ())]
    return found
