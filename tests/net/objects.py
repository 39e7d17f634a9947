"""Services and slices in a few words, and informers that are fed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import msgspec

from minik8s.api.kinds import endpointslice, ingress, service
from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.ingress import Ingress
from minik8s.api.kinds.service import Service
from minik8s.api.meta import Object
from minik8s.client.informer import Informer

T = TypeVar("T", bound=Object)


def make_service(
    name: str = "web", ip: str = "10.96.0.7", *, ports: Sequence[dict[str, Any]] = (), **spec: Any
) -> Service:
    status = spec.pop("status", {})
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default", "labels": spec.pop("labels", {})},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": list(ports) or [{"port": 80}], **spec},
            "status": status,
        },
        Service,
    )


def endpoint(ip: str, node: str = "n1", *, hostname: str = "", **conditions: bool) -> dict[str, Any]:
    return {"addresses": [ip], "nodeName": node, "hostname": hostname, "conditions": {"ready": True} | conditions}


def make_slice(
    *endpoints: dict[str, Any], of: str = "web", name: str = "", ports: Sequence[dict[str, Any]] = ({"port": 8080},)
) -> EndpointSlice:
    return msgspec.convert(
        {
            "metadata": {
                "name": name or f"{of}-x1",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": of},
            },
            "endpoints": list(endpoints),
            "ports": list(ports),
        },
        EndpointSlice,
    )


def make_ingress(*hosts: str, name: str = "shop", at: Sequence[str] = ("192.0.2.80",)) -> Ingress:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"rules": [{"host": host} for host in hosts]},
            "status": {"loadBalancer": {"ingress": [{"ip": ip} for ip in at]}},
        },
        Ingress,
    )


class Feed:
    """The informers a node's network follows, without a server behind them."""

    def __init__(self, *, synced: bool = True) -> None:
        self.services: Informer[Service] = Informer(cast(Any, None), service.RESOURCE, Service)
        self.slices: Informer[EndpointSlice] = Informer(cast(Any, None), endpointslice.RESOURCE, EndpointSlice)
        self.ingresses: Informer[Ingress] = Informer(cast(Any, None), ingress.RESOURCE, Ingress)
        if synced:
            self.listed()

    def listed(self) -> None:
        for informer in (self.services, self.slices, self.ingresses):
            informer._synced.set()

    def put(self, *objects: Service | EndpointSlice | Ingress) -> None:
        for obj in objects:
            self._of(obj)._set(obj.key, obj)

    def drop(self, *objects: Service | EndpointSlice | Ingress) -> None:
        for obj in objects:
            self._of(obj)._set(obj.key, None)

    def _of(self, obj: Service | EndpointSlice | Ingress) -> Any:
        if isinstance(obj, Ingress):
            return self.ingresses
        return self.services if isinstance(obj, Service) else self.slices
