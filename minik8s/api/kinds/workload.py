"""What ReplicaSet, Deployment, DaemonSet and Job have in common: a template, a selector that must fit it, replicas."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from minik8s.api.errors import Cause, forbidden, invalid, not_supported, required
from minik8s.api.kinds.pod_defaults import default_template
from minik8s.api.kinds.pod_validation import validate_spec
from minik8s.api.labels import selects
from minik8s.api.meta import LabelSelector
from minik8s.api.resource import Json

OPERATORS = ("DoesNotExist", "Exists", "In", "NotIn")


def default_workload(obj: Json) -> None:
    """Template defaults, and a selector for those who wrote none: the template's labels, or a generated one.

    apps/v1 demands a selector; older manifests leave it out, and the labels are what they mean.
    """
    spec = obj.setdefault("spec", {})
    template = spec.setdefault("template", {})
    default_template(template)
    if not spec.get("selector"):
        labels = template["metadata"].setdefault("labels", {}) or {}
        if not labels:
            labels = {"minik8s.io/workload": _short_hash(obj)}
            template["metadata"]["labels"] = labels
        spec["selector"] = {"matchLabels": dict(labels)}


def _short_hash(obj: Json) -> str:
    meta = obj.get("metadata") or {}
    identity = f"{obj.get('kind')}/{meta.get('namespace')}/{meta.get('name')}/{meta.get('uid', '')}"
    return hashlib.blake2b(identity.encode(), digest_size=5).hexdigest()


def validate_workload(
    obj: Json, old: Json | None, *, restart_policies: tuple[str, ...] = ("Always",)
) -> Iterator[Cause]:
    spec = obj["spec"]
    replicas = spec.get("replicas")
    if replicas is not None and replicas < 0:
        yield invalid("spec.replicas", replicas, "must be greater than or equal to 0")
    if spec.get("minReadySeconds", 0) < 0:
        yield invalid("spec.minReadySeconds", spec["minReadySeconds"], "must be greater than or equal to 0")
    yield from validate_selector(spec.get("selector"), "spec.selector")
    yield from validate_template(spec.get("template"), restart_policies)
    selector, labels = spec.get("selector") or {}, (spec["template"].get("metadata") or {}).get("labels") or {}
    if selector and not selects(msgspec.convert(selector, LabelSelector), labels):
        yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if old is not None and old.get("spec", {}).get("selector") != selector:
        yield invalid("spec.selector", _text(selector), "field is immutable")


def validate_template(template: Any, restart_policies: tuple[str, ...]) -> Iterator[Cause]:
    if not template:
        yield required("spec.template")
        return
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


def validate_share(value: Any, path: str) -> Iterator[Cause]:
    """maxSurge and maxUnavailable: a number from 0, or a percentage."""
    if isinstance(value, int):
        if value < 0:
            yield invalid(path, value, "must be greater than or equal to 0")
    elif value is not None and not (value.endswith("%") and value[:-1].isdigit()):
        yield invalid(path, value, "a valid percent string must be a numeric string followed by an ending '%'")


def is_zero(value: Any) -> bool:
    return value in (0, "0", "0%")


def _text(selector: Json) -> str:
    return msgspec.json.encode(selector).decode()
