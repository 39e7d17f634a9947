"""Endpoints that people write for Services without selector are mirrored to EndpointSlices, which is what is read."""

from __future__ import annotations

from minik8s.api.kinds.endpoints import EndpointAddress, Endpoints
from minik8s.api.kinds.endpointslice import (
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointConditions,
    EndpointSlice,
)
from minik8s.api.kinds.service import Service
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.controllers.endpoint_render import Ports
from minik8s.controllers.endpointslice import BY_SERVICE, SliceWriter, body, index_by_service, service_of
from minik8s.controllers.slice_plan import plan

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"


def is_mirrored(service: Service | None, endpoints: Endpoints | None) -> bool:
    """Whether slices are to be made of `endpoints`: somebody wrote them for a Service that selects no pods itself."""
    if service is None or endpoints is None or service.deleting or endpoints.deleting or service.spec.selector:
        return False
    meta = endpoints.metadata
    return meta.labels.get(SKIP_LABEL) != "true" and LEADER not in meta.annotations


def mirror(endpoints: Endpoints, family: str) -> dict[Ports, list[Endpoint]]:
    """The endpoints of one address family, by ports."""
    groups: dict[Ports, list[Endpoint]] = {}
    for subset in endpoints.subsets:
        ports = subset.ports
        for ready, addresses in ((True, subset.addresses), (False, subset.notReadyAddresses)):
            found = [_endpoint(each, ready=ready) for each in addresses if (":" in each.ip) == (family == "IPv6")]
            if found:
                groups.setdefault(ports, []).extend(found)
    return groups


def _endpoint(address: EndpointAddress, *, ready: bool) -> Endpoint:
    return Endpoint(
        addresses=(address.ip,),
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname,
        nodeName=address.nodeName,
        targetRef=address.targetRef,
    )


class EndpointSliceMirroringController(Controller):
    """Keys are those of Service and Endpoints, which are the same."""

    name = "endpointslice-mirroring-controller"

    def __init__(self, client: Client, informers: Informers) -> None:
        super().__init__(client, informers)
        self._services = informers.of(Service)
        self._endpoints = informers.of(Endpoints)
        self._slices = informers.of(EndpointSlice)
        index_by_service(self._slices)
        self._writer = SliceWriter(client, self._slices)
        self._services.on_change(lambda old, new: self.queue.add((new or old or Service()).key))
        self._endpoints.on_change(lambda old, new: self.queue.add((new or old or Endpoints()).key))
        self._slices.on_change(self._slice_changed)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for key in service_of(new or old or EndpointSlice()):
            self.queue.add(key)

    async def reconcile(self, key: str) -> float | None:
        service, endpoints = self._services.by_key(key), self._endpoints.by_key(key)
        known = self._slices.by_index(BY_SERVICE, key)
        mine = [each for each in known if each.metadata.labels.get(MANAGED_BY_LABEL) == MANAGER]
        others = any(each not in mine for each in known)  # whoever wrote the Endpoints may have written slices too
        if service is None or endpoints is None or others or not is_mirrored(service, endpoints):
            await self._writer.delete(mine)
            return None
        marks = {**endpoints.metadata.labels, SERVICE_NAME_LABEL: service.metadata.name, MANAGED_BY_LABEL: MANAGER}
        for family in ("IPv4", "IPv6"):
            slices = [each for each in mine if each.addressType == family]
            groups = mirror(endpoints, family)
            if not groups:
                await self._writer.delete(slices)
                continue
            todo = plan(groups, slices, marks)
            await self._writer.delete(todo.delete)
            await self._writer.update(todo.update)
            for ports, found in todo.create:
                await self._writer.create(service, {"addressType": family, **body(ports, found)}, marks)
        return None
