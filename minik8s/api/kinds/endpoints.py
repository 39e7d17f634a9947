"""Endpoints: the old, whole list of a Service's addresses; kept for clients that still read it."""

from __future__ import annotations

from minik8s.api.meta import Object, ObjectReference, Struct
from minik8s.api.resource import Resource


class EndpointAddress(Struct):
    ip: str = ""
    hostname: str = ""
    nodeName: str = ""
    targetRef: ObjectReference | None = None


class EndpointPort(Struct):
    name: str = ""
    port: int = 0
    protocol: str = "TCP"
    appProtocol: str = ""


class EndpointSubset(Struct):
    addresses: tuple[EndpointAddress, ...] = ()
    notReadyAddresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Endpoints(Object):
    subsets: tuple[EndpointSubset, ...] = ()


RESOURCE = Resource(
    kind="Endpoints",
    plural="endpoints",
    type=Endpoints,
    definition="io.k8s.api.core.v1.Endpoints",
    singular="endpoints",
    shortNames=("ep",),
)
