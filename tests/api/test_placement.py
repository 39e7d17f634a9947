from __future__ import annotations

from typing import Any

import msgspec
import pytest

from minik8s.api.kinds.node import Node, Taint
from minik8s.api.kinds.pod import PodSpec, Toleration
from minik8s.api.meta import LabelSelectorRequirement
from minik8s.api.placement import demand_holds, pinned_nodes, selects_node, tolerates, untolerated

TAINT = Taint(key="gpu", value="yes", effect="NoSchedule")


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"operator": "Exists"}, True),
        ({"key": "other", "operator": "Exists"}, False),
        ({"value": "yes"}, False),
    ],
)
def test_tolerations(toleration: dict[str, str], expected: bool) -> None:
    assert tolerates(msgspec.convert(toleration, Toleration), TAINT) is expected


def test_only_hard_effects_stand_in_the_way() -> None:
    soft = Taint(key="slow", effect="PreferNoSchedule")
    assert untolerated((soft, TAINT), ()) == TAINT
    assert untolerated((soft,), ()) is None
    assert untolerated((soft,), (), frozenset(("PreferNoSchedule",))) == soft


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", ("7",), True), ("In", ("8",), False), ("NotIn", ("8",), True), ("NotIn", ("7",), False),
        ("Exists", (), True), ("DoesNotExist", (), False), ("Gt", ("6",), True), ("Gt", ("7",), False),
        ("Lt", ("8",), True), ("Lt", ("7",), False), ("Gt", ("x",), False), ("Gt", (), False), ("What", ("7",), False),
    ],
)  # fmt: skip
def test_operators_of_node_affinity(operator: str, values: tuple[str, ...], expected: bool) -> None:
    demand = LabelSelectorRequirement(key="size", operator=operator, values=values)
    assert demand_holds(demand, {"size": "7"}) is expected


def test_an_absent_label_meets_only_what_says_no() -> None:
    holding = [o for o in ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
               if demand_holds(LabelSelectorRequirement(key="no", operator=o, values=("1",)), {})]  # fmt: skip
    assert holding == ["NotIn", "DoesNotExist"]


def _affine(*terms: Any) -> PodSpec:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return msgspec.convert({"affinity": {"nodeAffinity": required}}, PodSpec)


def _named(*names: str) -> dict[str, Any]:
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": list(names)}]}


def test_terms_are_alternatives_and_an_empty_one_selects_nothing() -> None:
    node = msgspec.convert({"metadata": {"name": "n1", "labels": {"disk": "ssd"}}}, Node)
    ssd = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    assert selects_node(_affine({}, ssd), node)
    assert not selects_node(_affine({}), node)
    assert not selects_node(_affine(), node)
    assert selects_node(_affine(_named("n1")), node)
    assert not selects_node(_affine(_named("n2") | ssd), node)
    assert selects_node(msgspec.convert({"nodeSelector": {"disk": "ssd"}}, PodSpec), node)
    assert not selects_node(msgspec.convert({"nodeSelector": {"disk": "hdd"}}, PodSpec), node)


def test_pinned_nodes_are_those_that_every_term_names() -> None:
    assert pinned_nodes(_affine(_named("a"), _named("b", "c"))) == {"a", "b", "c"}
    assert pinned_nodes(_affine(_named("a"), {"matchExpressions": [{"key": "x", "operator": "Exists"}]})) is None
    assert pinned_nodes(PodSpec()) is None
