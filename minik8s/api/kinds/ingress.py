"""Ingress: HTTP hosts and paths to services."""

from __future__ import annotations

from typing import Any

from minik8s.api.meta import Object
from minik8s.api.resource import Resource


class Ingress(Object):
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


RESOURCE = Resource(
    kind="Ingress",
    plural="ingresses",
    group="networking.k8s.io",
    type=Ingress,
    definition="io.k8s.api.networking.v1.Ingress",
    shortNames=("ing",),
    subresources=frozenset(("status",)),
)
