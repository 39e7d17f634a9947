"""IngressClass: which controller serves an Ingress."""

from __future__ import annotations

from minik8s.api.kinds.columns import AGE, NAME, NONE, dig
from minik8s.api.meta import Object, Struct
from minik8s.api.resource import Column, Json, Resource

IS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"  # annotation; "true" on the class of those that name none


class IngressClassSpec(Struct):
    controller: str = ""


class IngressClass(Object):
    spec: IngressClassSpec = IngressClassSpec()


def _parameters(obj: Json, now: float) -> str:
    found = dig(obj, "spec.parameters", {})
    kind = f"{found.get('kind', '')}.{found['apiGroup']}" if found.get("apiGroup") else found.get("kind", "")
    return f"{kind}/{found.get('name', '')}" if found else NONE


RESOURCE = Resource(
    kind="IngressClass",
    plural="ingressclasses",
    group="networking.k8s.io",
    type=IngressClass,
    definition="io.k8s.api.networking.v1.IngressClass",
    namespaced=False,
    columns=(
        NAME,
        Column("Controller", lambda obj, now: dig(obj, "spec.controller", ""), description="Who serves the class."),
        Column("Parameters", _parameters, description="Settings of the class."),
        AGE,
    ),
)
