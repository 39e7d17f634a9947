"""NetworkPolicy: who may speak with which pods."""

from __future__ import annotations

from typing import Any

from minik8s.api.meta import Object
from minik8s.api.resource import Resource


class NetworkPolicy(Object):
    spec: dict[str, Any] = {}


RESOURCE = Resource(
    kind="NetworkPolicy",
    plural="networkpolicies",
    group="networking.k8s.io",
    type=NetworkPolicy,
    definition="io.k8s.api.networking.v1.NetworkPolicy",
    shortNames=("netpol",),
)
