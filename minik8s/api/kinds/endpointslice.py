"""EndpointSlice: up to a hundred of a Service's endpoints with their conditions; the proxy and DNS read these."""

from __future__ import annotations

from minik8s.api.meta import Object, ObjectReference, Struct
from minik8s.api.resource import Resource

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"


class EndpointConditions(Struct):
    """None means unknown, to be read as ready = true, serving = ready, terminating = false."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Struct):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    nodeName: str = ""
    zone: str = ""
    targetRef: ObjectReference | None = None


class EndpointPort(Struct):
    name: str = ""
    port: int = 0
    protocol: str = "TCP"
    appProtocol: str = ""


class EndpointSlice(Object):
    addressType: str = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


RESOURCE = Resource(
    kind="EndpointSlice",
    plural="endpointslices",
    group="discovery.k8s.io",
    type=EndpointSlice,
    definition="io.k8s.api.discovery.v1.EndpointSlice",
)
