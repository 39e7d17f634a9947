"""Namespace: a room for names; deleting it deletes what is in it."""

from __future__ import annotations

from minik8s.api.kinds.columns import AGE, NAME, dig
from minik8s.api.meta import Condition, Object, Struct
from minik8s.api.resource import Column, Json, Resource


class NamespaceSpec(Struct):
    finalizers: tuple[str, ...] = ()


class NamespaceStatus(Struct):
    phase: str = ""
    conditions: tuple[Condition, ...] = ()


class Namespace(Object):
    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()


NAME_LABEL = "kubernetes.io/metadata.name"
FINALIZER = "kubernetes"


def _default(namespace: Json) -> None:
    meta = namespace["metadata"]
    if meta.get("name"):
        meta["labels"] = {**(meta.get("labels") or {}), NAME_LABEL: meta["name"]}


def _prepare(namespace: Json, old: Json | None) -> None:
    """A namespace is Active until it is deleted, and then stays until the controller has emptied it."""
    if old is None:
        namespace["spec"] = {"finalizers": [FINALIZER]}
        namespace["status"] = {"phase": "Active"}


RESOURCE = Resource(
    kind="Namespace",
    plural="namespaces",
    type=Namespace,
    definition="io.k8s.api.core.v1.Namespace",
    shortNames=("ns",),
    namespaced=False,
    subresources=frozenset(("status", "finalize")),
    spec_generation=False,
    columns=(
        NAME,
        Column("Status", lambda ns, now: dig(ns, "status.phase", ""), description="Active or Terminating."),
        AGE,
    ),
    default=_default,
    prepare=_prepare,
    selectable={"status.phase": lambda ns: str(dig(ns, "status.phase", ""))},
)
