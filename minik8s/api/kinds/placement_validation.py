"""What makes tolerations, affinity and spreading wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minik8s.api.errors import Cause, forbidden, invalid, not_supported, required
from minik8s.api.kinds.validation import choice
from minik8s.api.resource import Json

NODE_OPERATORS = ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn")


def validate_tolerations(tolerations: Any, path: str) -> Iterator[Cause]:
    for index, t in enumerate(tolerations):
        here = f"{path}[{index}]"
        yield from choice(t, here, "operator", ("Equal", "Exists"))
        yield from choice(t, here, "effect", ("NoExecute", "NoSchedule", "PreferNoSchedule"))
        if not t.get("key") and t.get("operator", "Equal") != "Exists":
            yield invalid(f"{here}.operator", t.get("operator", ""), "operator must be Exists when `key` is empty, "
                          "which means \"match all values and all keys\"")  # fmt: skip
        if t.get("operator") == "Exists" and t.get("value"):
            yield invalid(f"{here}.operator", t["value"], "value must be empty when `operator` is 'Exists'")
        if t.get("tolerationSeconds") is not None and t.get("effect") != "NoExecute":
            yield invalid(f"{here}.effect", t.get("effect", ""),
                          "effect must be 'NoExecute' when `tolerationSeconds` is set")  # fmt: skip


def validate_affinity(affinity: Json, path: str) -> Iterator[Cause]:
    needed = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    here = f"{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    if needed is not None and not needed.get("nodeSelectorTerms"):
        yield required(here, "must have at least one node selector term")
    for index, term in enumerate((needed or {}).get("nodeSelectorTerms") or ()):
        yield from _node_term(term, f"{here}[{index}]")
    here = f"{path}.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution"
    wished = (affinity.get("nodeAffinity") or {}).get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    for index, weighted in enumerate(wished):
        if not 1 <= weighted.get("weight", 0) <= 100:
            yield invalid(f"{here}[{index}].weight", weighted.get("weight", 0), "must be in the range 1-100")
        yield from _node_term(weighted.get("preference") or {}, f"{here}[{index}].preference")
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        for index, term in enumerate(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            if not term.get("topologyKey"):
                yield required(f"{path}.{kind}.requiredDuringSchedulingIgnoredDuringExecution[{index}].topologyKey",
                               "can not be empty")  # fmt: skip
        for index, weighted in enumerate(rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            here = f"{path}.{kind}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            if not 1 <= weighted.get("weight", 0) <= 100:
                yield invalid(f"{here}.weight", weighted.get("weight", 0), "must be in the range 1-100")
            if not (weighted.get("podAffinityTerm") or {}).get("topologyKey"):
                yield required(f"{here}.podAffinityTerm.topologyKey", "can not be empty")


def _node_term(term: Json, path: str) -> Iterator[Cause]:
    """One term of node affinity: demands on labels and on the name."""
    for part in ("matchExpressions", "matchFields"):
        for index, demand in enumerate(term.get(part) or ()):
            here, operator, values = f"{path}.{part}[{index}]", demand.get("operator"), demand.get("values") or ()
            if not demand.get("key"):
                yield required(f"{here}.key")
            if operator not in NODE_OPERATORS:
                yield not_supported(f"{here}.operator", operator, NODE_OPERATORS)
            elif operator in ("In", "NotIn") and not values:
                yield required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'")
            elif operator in ("Exists", "DoesNotExist") and values:
                yield forbidden(f"{here}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
            elif operator in ("Gt", "Lt") and len(values) != 1:
                yield required(f"{here}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")


def validate_spread(constraints: Any, path: str) -> Iterator[Cause]:
    for index, constraint in enumerate(constraints):
        here = f"{path}[{index}]"
        if constraint.get("maxSkew", 0) <= 0:
            yield invalid(f"{here}.maxSkew", constraint.get("maxSkew"), "must be greater than zero")
        if not constraint.get("topologyKey"):
            yield required(f"{here}.topologyKey", "can not be empty")
        choices = ("DoNotSchedule", "ScheduleAnyway")
        if constraint.get("whenUnsatisfiable") not in choices:
            yield not_supported(f"{here}.whenUnsatisfiable", constraint.get("whenUnsatisfiable"), choices)
