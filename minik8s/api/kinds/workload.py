"""What ReplicaSet, Deployment, DaemonSet and Job have in common: a template, a selector that must fit it, replicas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from minik8s.api.errors import Cause, forbidden, invalid, not_supported, required
from minik8s.api.kinds.pod_defaults import default_template
from minik8s.api.kinds.pod_validation import validate_spec
from minik8s.api.kinds.validation import validate_labels
from minik8s.api.labels import selects
from minik8s.api.meta import LabelSelector
from minik8s.api.resource import Json

PERCENT = re.compile(r"[0-9]{1,9}%")
OPERATORS = ("DoesNotExist", "Exists", "In", "NotIn")


def default_workload(obj: Json) -> None:
    default_template(obj.setdefault("spec", {}).setdefault("template", {}))


def validate_workload(
    obj: Json, old: Json | None, *, restart_policies: tuple[str, ...] = ("Always",)
) -> Iterator[Cause]:
    spec = obj["spec"]
    replicas = spec.get("replicas")
    if replicas is not None and replicas < 0:
        yield invalid("spec.replicas", replicas, "must be greater than or equal to 0")
    if spec.get("minReadySeconds", 0) < 0:
        yield invalid("spec.minReadySeconds", spec["minReadySeconds"], "must be greater than or equal to 0")
    if spec.get("revisionHistoryLimit", 0) < 0:
        yield invalid("spec.revisionHistoryLimit", spec["revisionHistoryLimit"], "must be greater than or equal to 0")
    faults = list(validate_selector(spec.get("selector"), "spec.selector"))
    yield from faults
    yield from validate_template(spec.get("template"), restart_policies)
    selector, labels = spec.get("selector") or {}, (spec["template"].get("metadata") or {}).get("labels") or {}
    if not faults and not selects(msgspec.convert(selector, LabelSelector), labels):
        yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if old is not None and old.get("spec", {}).get("selector") != selector:
        yield invalid("spec.selector", _text(selector), "field is immutable")


def validate_template(template: Any, restart_policies: tuple[str, ...]) -> Iterator[Cause]:
    if not template:
        yield required("spec.template")
        return
    yield from validate_labels((template.get("metadata") or {}).get("labels") or {}, "spec.template.metadata.labels")
    yield from validate_spec(template.get("spec") or {}, "spec.template.spec", template=True)
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy not in restart_policies:
        yield not_supported("spec.template.spec.restartPolicy", policy, restart_policies)
    if (template.get("spec") or {}).get("activeDeadlineSeconds") is not None and "Always" in restart_policies:
        yield forbidden(
            "spec.template.spec.activeDeadlineSeconds", "activeDeadlineSeconds in a workload is not supported"
        )


def validate_selector(selector: Json | None, path: str) -> Iterator[Cause]:
    if not selector or not (selector.get("matchLabels") or selector.get("matchExpressions")):
        yield invalid(path, "", "empty selector is invalid: name at least one label")
        return
    yield from validate_labels(selector.get("matchLabels") or {}, f"{path}.matchLabels")
    for index, demand in enumerate(selector.get("matchExpressions") or ()):
        here, operator = f"{path}.matchExpressions[{index}]", demand.get("operator")
        if not demand.get("key"):
            yield required(f"{here}.key")
        if operator not in OPERATORS:
            yield not_supported(f"{here}.operator", operator, OPERATORS)
        elif operator in ("In", "NotIn") and not demand.get("values"):
            yield required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and demand.get("values"):
            yield forbidden(f"{here}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")


def validate_share(value: Any, path: str, name: str) -> Iterator[Cause]:
    """maxSurge and maxUnavailable: a number from 0, or a percentage."""
    if isinstance(value, int):
        if value < 0:
            yield invalid(path, value, "must be greater than or equal to 0")
    elif value is not None and not PERCENT.fullmatch(value):
        yield invalid(path, value, "a valid percent string must be a numeric string followed by an ending '%' "
                      "(e.g. '1%' or '93%')")  # fmt: skip
    elif value is not None and name == "maxUnavailable" and int(value[:-1]) > 100:
        yield invalid(path, value, "must not be greater than 100%")


def is_zero(value: Any) -> bool:
    return value == 0 or (isinstance(value, str) and bool(PERCENT.fullmatch(value)) and int(value[:-1]) == 0)


def _text(selector: Json) -> str:
    return msgspec.json.encode(selector).decode()
