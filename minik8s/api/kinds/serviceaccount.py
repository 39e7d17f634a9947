"""ServiceAccount: who a pod is when it speaks to the API."""

from __future__ import annotations

from minik8s.api.kinds.columns import AGE, NAME
from minik8s.api.meta import LocalObjectReference, Object, ObjectReference
from minik8s.api.resource import Column, Json, Resource


class ServiceAccount(Object):
    secrets: tuple[ObjectReference, ...] = ()
    imagePullSecrets: tuple[LocalObjectReference, ...] = ()
    automountServiceAccountToken: bool | None = None


def _secrets(account: Json, now: float) -> int:
    return len(account.get("secrets") or ())


RESOURCE = Resource(
    kind="ServiceAccount",
    plural="serviceaccounts",
    type=ServiceAccount,
    definition="io.k8s.api.core.v1.ServiceAccount",
    shortNames=("sa",),
    subresources=frozenset(("token",)),
    spec_generation=False,
    columns=(NAME, Column("Secrets", _secrets, type="integer", description="Secrets that it names."), AGE),
)
