"""Endpoints: the old, whole list of a Service's addresses; kept for clients that still read it."""

from __future__ import annotations

from minik8s.api.kinds.columns import AGE, NAME, NONE
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import Object, ObjectReference, Struct
from minik8s.api.resource import Column, Json, Resource


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


SHOWN = 3  # endpoints in a row of a table, as kubectl shows them


def _addresses(endpoints: Json, now: float) -> str:
    found = [
        f"{address.get('ip')}:{port.get('port')}"
        for subset in endpoints.get("subsets") or ()
        for port in subset.get("ports") or ()
        for address in subset.get("addresses") or ()
    ]
    more = f" + {len(found) - SHOWN} more..." if len(found) > SHOWN else ""
    return ",".join(found[:SHOWN]) + more or NONE


def _default(endpoints: Json) -> None:
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            fill(port, "protocol", "TCP")


RESOURCE = Resource(
    kind="Endpoints",
    plural="endpoints",
    type=Endpoints,
    definition="io.k8s.api.core.v1.Endpoints",
    singular="endpoints",
    shortNames=("ep",),
    columns=(NAME, Column("Endpoints", _addresses, description="Addresses that are ready."), AGE),
    default=_default,
    spec_generation=False,
)
