"""Ingress: HTTP hosts and paths to services."""

from __future__ import annotations

from typing import Any

from minik8s.api.kinds.columns import AGE, NAME, NONE, dig
from minik8s.api.meta import Object
from minik8s.api.resource import Column, Json, Resource


class Ingress(Object):
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


def _hosts(ingress: Json, now: float) -> str:
    hosts = [rule.get("host") for rule in dig(ingress, "spec.rules", ()) if rule.get("host")]
    return ",".join(hosts) or "*"


def _address(ingress: Json, now: float) -> str:
    return ",".join(i.get("ip") or i.get("hostname", "") for i in dig(ingress, "status.loadBalancer.ingress", ()))


def _default(ingress: Json) -> None:
    ingress.setdefault("status", {}).setdefault("loadBalancer", {})


RESOURCE = Resource(
    kind="Ingress",
    plural="ingresses",
    group="networking.k8s.io",
    type=Ingress,
    definition="io.k8s.api.networking.v1.Ingress",
    shortNames=("ing",),
    subresources=frozenset(("status",)),
    columns=(
        NAME,
        Column("Class", lambda ing, now: dig(ing, "spec.ingressClassName", NONE), description="Who serves it."),
        Column("Hosts", _hosts, description="Host names."),
        Column("Address", _address, description="Where it answers."),
        Column("Ports", lambda ing, now: "80, 443" if dig(ing, "spec.tls") else "80", description="Ports."),
        AGE,
    ),
    default=_default,
)
