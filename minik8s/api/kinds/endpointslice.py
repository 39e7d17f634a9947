"""EndpointSlice: up to a hundred of a Service's endpoints with their conditions; the proxy and DNS read these."""

from __future__ import annotations

from minik8s.api.errors import Cause, invalid, not_supported
from minik8s.api.kinds.columns import AGE, NAME, UNKNOWN
from minik8s.api.kinds.endpoints import EndpointPort
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import Object, ObjectReference, Struct
from minik8s.api.resource import Column, Json, Resource

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


class EndpointSlice(Object):
    addressType: str = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


LIMIT = 1000  # endpoints in a slice; discovery/v1 validation
TYPES = ("FQDN", "IPv4", "IPv6")


def _ports(slice: Json, now: float) -> str:
    return ",".join(str(port.get("port", "*")) for port in slice.get("ports") or ()) or "<unset>"


def _addresses(slice: Json, now: float) -> str:
    found = [address for endpoint in slice.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more or "<unset>"


def _default(slice: Json) -> None:
    for port in slice.get("ports") or ():
        port.setdefault("name", "")
        fill(port, "protocol", "TCP")


def _validate(slice: Json, old: Json | None) -> list[Cause]:
    causes = []
    if slice.get("addressType") not in TYPES:
        causes.append(not_supported("addressType", slice.get("addressType"), TYPES))
    if len(slice.get("endpoints") or ()) > LIMIT:
        causes.append(invalid("endpoints", len(slice["endpoints"]), f"must have at most {LIMIT} items"))
    if old is not None and old.get("addressType") != slice.get("addressType"):
        causes.append(invalid("addressType", slice.get("addressType"), "field is immutable"))
    return causes


RESOURCE = Resource(
    kind="EndpointSlice",
    plural="endpointslices",
    group="discovery.k8s.io",
    type=EndpointSlice,
    definition="io.k8s.api.discovery.v1.EndpointSlice",
    columns=(
        NAME,
        Column("AddressType", lambda slice, now: slice.get("addressType", UNKNOWN), description="Sort of address."),
        Column("Ports", _ports, description="Ports of every endpoint."),
        Column("Endpoints", _addresses, description="Addresses."),
        AGE,
    ),
    default=_default,
    validate=_validate,
)
