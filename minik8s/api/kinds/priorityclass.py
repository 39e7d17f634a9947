"""PriorityClass: a name for a pod's priority."""

from __future__ import annotations

from minik8s.api.errors import Cause, forbidden, invalid
from minik8s.api.kinds.columns import AGE, NAME, number
from minik8s.api.meta import Object
from minik8s.api.resource import Column, Json, Resource


class PriorityClass(Object):
    value: int = 0
    globalDefault: bool = False
    description: str = ""
    preemptionPolicy: str = "PreemptLowerPriority"


HIGHEST = 1_000_000_000  # HighestUserDefinablePriority


def _default(obj: Json) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")
    obj.setdefault("value", 0)


def _validate(obj: Json, old: Json | None) -> list[Cause]:
    causes = []
    system = str(obj["metadata"].get("name", "")).startswith("system-")
    if obj["value"] > HIGHEST and not system:
        causes.append(forbidden("value", f"maximum allowed value of a user defined priority is {HIGHEST}"))
    if old is not None and old.get("value") != obj["value"]:
        causes.append(invalid("value", obj["value"], "field is immutable"))
    return causes


RESOURCE = Resource(
    kind="PriorityClass",
    plural="priorityclasses",
    group="scheduling.k8s.io",
    type=PriorityClass,
    definition="io.k8s.api.scheduling.v1.PriorityClass",
    shortNames=("pc",),
    namespaced=False,
    spec_generation=False,
    columns=(
        NAME,
        number("value", "Value", "The priority."),
        Column(
            "Global-Default",
            lambda obj, now: "true" if obj.get("globalDefault") else "false",
            description="Whether pods without a class get it.",
        ),
        AGE,
        Column(
            "PreemptionPolicy", lambda obj, now: obj.get("preemptionPolicy", ""), description="May it displace others?"
        ),
    ),
    default=_default,
    validate=_validate,
)
