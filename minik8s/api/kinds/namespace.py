"""Namespace: a room for names; deleting it deletes what is in it."""

from __future__ import annotations

from minik8s.api.meta import Condition, Object, Struct
from minik8s.api.resource import Resource


class NamespaceSpec(Struct):
    finalizers: tuple[str, ...] = ()


class NamespaceStatus(Struct):
    phase: str = ""
    conditions: tuple[Condition, ...] = ()


class Namespace(Object):
    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()


RESOURCE = Resource(
    kind="Namespace",
    plural="namespaces",
    type=Namespace,
    definition="io.k8s.api.core.v1.Namespace",
    shortNames=("ns",),
    namespaced=False,
    subresources=frozenset(("status", "finalize")),
    spec_generation=False,
)
