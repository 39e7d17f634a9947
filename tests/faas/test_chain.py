"""Chains of Invokes as state machines: what is made of functions, and what a hop may be."""

from __future__ import annotations

from typing import Any

import pytest

from minik8s.faas import resources
from minik8s.faas.admission import faults
from minik8s.faas.chain import REFUSED, Hop, asked, definition, outcome
from minik8s.faas.workflow import errors
from minik8s.faas.workflow.drawing import text
from minik8s.faas.workflow.errors import StateError

DECLARED = {"calculator": ("addition", "round"), "addition": ("round",), "round": ()}


def test_every_function_is_a_state_and_leads_to_whom_it_may_hand_over() -> None:
    made = definition("calculator", DECLARED)
    assert faults(made) == []
    assert made["StartAt"] == "calculator"
    drawn = text(made)
    assert "→ calculator [Task] → after calculator" in drawn
    assert "after calculator [Choice] → addition (rule 1), round (rule 2), Answer (default)" in drawn
    assert "round [Task] → Answer" in drawn
    assert faults(definition("a", {"a": ("a", "a", "gone"), "gone": ()})) == []  # a circle, one twice, one not there
    assert faults(definition("a", {"a": ()})) == []


def test_a_hop_has_its_functions_before_it_and_what_comes_next() -> None:
    hop = asked({"params": {"x": 1}, "chain": ["calculator"], "to": ["round"]})
    assert outcome(hop, "addition", "round", {"x": 3}) == {
        "next": "round", "params": {"x": 3}, "chain": ["calculator", "addition"]}  # fmt: skip
    assert outcome(hop, "addition", "", None) == {"next": "", "response": None}


@pytest.mark.parametrize(
    ("chain", "following", "why"),
    [
        ([], "other", "a does not declare"),
        ([], "a", "a cycle: a -> a"),
        (["b"], "b", "a cycle: b -> a -> b"),
        ([f"f{n}" for n in range(31)], "b", "more than 32"),
    ],
)
def test_a_hop_to_nobody_declared_in_a_circle_or_too_deep_is_refused(chain: Any, following: str, why: str) -> None:
    with pytest.raises(StateError, match=why) as refused:
        outcome(Hop(None, chain, ["a", "b"]), "a", following, {})
    assert refused.value.error == REFUSED
    assert outcome(Hop(None, [f"f{n}" for n in range(30)], ["b"]), "a", "b", {})["next"] == "b"


@pytest.mark.parametrize("parameters", [None, [], {"chain": "a"}, {"to": [1]}, {"parms": 1}])
def test_parameters_that_are_none_are_named(parameters: Any) -> None:
    with pytest.raises(StateError, match="params, chain and to") as refused:
        asked(parameters)
    assert refused.value.error == errors.RUNTIME


def test_the_resource_is_a_function_of_the_namespace() -> None:
    assert resources.parse("invoke:add") == resources.Resource("invoke", "add")
    assert resources.fault("invoke:ns/add")
    assert "leave .waitForTaskToken out" in resources.fault("invoke:add.waitForTaskToken")
    assert ".sync" in resources.fault("invoke:add.sync")
    assert resources.parse("invoke") == resources.Resource("function", "invoke")
