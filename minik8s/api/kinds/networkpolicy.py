"""NetworkPolicy: who may speak with which pods."""

from __future__ import annotations

from typing import Any

from minik8s.api.kinds.columns import AGE, NAME, dig, selector_text
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import Object
from minik8s.api.resource import Column, Json, Resource


class NetworkPolicy(Object):
    spec: dict[str, Any] = {}


def _default(policy: Json) -> None:
    spec = policy.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction) or ():
            for port in rule.get("ports") or ():
                fill(port, "protocol", "TCP")


RESOURCE = Resource(
    kind="NetworkPolicy",
    plural="networkpolicies",
    group="networking.k8s.io",
    type=NetworkPolicy,
    definition="io.k8s.api.networking.v1.NetworkPolicy",
    shortNames=("netpol",),
    columns=(
        NAME,
        Column(
            "Pod-Selector", lambda obj, now: selector_text(dig(obj, "spec.podSelector", {})), description="Its pods."
        ),
        AGE,
    ),
    default=_default,
)
