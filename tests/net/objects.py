"""Services and slices in a few words, and informers that are fed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import msgspec

from minik8s.api.kinds import endpointslice, service
from minik8s.api.kinds.endpointslice import EndpointSlice
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


class Feed:
    """Both informers a node's network follows, without a server behind them."""

    def __init__(self) -> None:
        self.services: Informer[Service] = Informer(cast(Any, None), service.RESOURCE, Service)
        self.slices: Informer[EndpointSlice] = Informer(cast(Any, None), endpointslice.RESOURCE, EndpointSlice)
        self.services._synced.set()
        self.slices._synced.set()

    def put(self, *objects: Service | EndpointSlice) -> None:
        for obj in objects:
            informer: Any = self.services if isinstance(obj, Service) else self.slices
            informer._set(obj.key, obj)

    def drop(self, *objects: Service | EndpointSlice) -> None:
        for obj in objects:
            informer: Any = self.services if isinstance(obj, Service) else self.slices
            informer._set(obj.key, None)
