"""IngressClass: which controller serves an Ingress."""

from __future__ import annotations

from typing import Any

from minik8s.api.meta import Object
from minik8s.api.resource import Resource


class IngressClass(Object):
    spec: dict[str, Any] = {}


RESOURCE = Resource(
    kind="IngressClass",
    plural="ingressclasses",
    group="networking.k8s.io",
    type=IngressClass,
    definition="io.k8s.api.networking.v1.IngressClass",
    namespaced=False,
)
