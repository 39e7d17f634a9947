"""ControllerRevision: one remembered template of a DaemonSet (later: StatefulSet), for rollback."""

from __future__ import annotations

from typing import Any

from minik8s.api.kinds.columns import AGE, NAME, NONE, number
from minik8s.api.meta import Object
from minik8s.api.resource import Column, Json, Resource


class ControllerRevision(Object):
    data: dict[str, Any] = {}
    revision: int = 0


def _owner(obj: Json, now: float) -> str:
    owners = obj["metadata"].get("ownerReferences") or ()
    owner = next((ref for ref in owners if ref.get("controller")), None)
    return f"{owner['kind'].lower()}.{owner['apiVersion'].partition('/')[0]}/{owner['name']}" if owner else NONE


RESOURCE = Resource(
    kind="ControllerRevision",
    plural="controllerrevisions",
    group="apps",
    type=ControllerRevision,
    definition="io.k8s.api.apps.v1.ControllerRevision",
    spec_generation=False,
    columns=(
        NAME,
        Column("Controller", _owner, description="Whose template it is."),
        number("revision", "Revision", "Its number."),
        AGE,
    ),
)
