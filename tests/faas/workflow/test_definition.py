"""Faults of definitions: each is found, at its place, in words that help; what is right passes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from minik8s.faas.workflow.definition import problems

from .test_execution import EVERYTHING
from .world import machine

PASS = {"Type": "Pass", "End": True}
TASK = {"Type": "Task", "Resource": "f", "End": True}


def one(definition: Any) -> tuple[str, str]:
    (problem,) = problems(definition)
    return problem.pointer, problem.reason


def test_all_that_can_be_run_is_right() -> None:
    assert problems(EVERYTHING) == []
    assert problems(machine({"P": PASS}, Version="1.0", Comment="x", TimeoutSeconds=5)) == []


STATES: list[tuple[dict[str, Any], str, str]] = [
    ({"Type": "Passs"}, "/Type", "one of Pass"),
    ({"Type": "Pass"}, "", 'either "Next" or "End"'),
    ({"Type": "Pass", "End": False}, "/End", "must be true"),
    ({"Type": "Pass", "Next": "Q"}, "/Next", "no state 'Q'"),
    ({**PASS, "Reslt": 1}, "/Reslt", "unknown field"),
    ({**PASS, "Assign": {}}, "/Assign", "not supported yet"),
    ({**PASS, "QueryLanguage": "JSONata"}, "/QueryLanguage", "JSONata"),
    ({**PASS, "InputPath": "x"}, "/InputPath", "begin with $"),
    ({**PASS, "InputPath": "$.a["}, "/InputPath", "no JSONPath"),
    ({**PASS, "ResultPath": "$.a[*]"}, "/ResultPath", "Reference Path"),
    ({**PASS, "ResultPath": "$$.x"}, "/ResultPath", "cannot be written"),
    ({**PASS, "Parameters": {"a": [{"b.$": 5}]}}, "/Parameters/a/0/b.$", "must be a path"),
    ({**PASS, "Parameters": {"a.$": "States.Nope()"}}, "/Parameters/a.$", "no intrinsic function"),
    ({**PASS, "Parameters": {"a.$": "States.MathAdd(1)"}}, "/Parameters/a.$", "takes 2 arguments"),
    ({"Type": "Task", "End": True}, "/Resource", "what does the task"),
    ({**TASK, "TimeoutSeconds": 0}, "/TimeoutSeconds", "from 1 to"),
    ({**TASK, "TimeoutSeconds": 5, "HeartbeatSeconds": 5}, "/HeartbeatSeconds", "less than TimeoutSeconds"),
    ({**TASK, "TimeoutSeconds": 5, "TimeoutSecondsPath": "$.t"}, "", "only one of TimeoutSeconds"),
    ({**TASK, "Retry": {}}, "/Retry", "array"),
    ({**TASK, "Retry": [{"ErrorEquals": []}]}, "/Retry/0/ErrorEquals", "at least one"),
    ({**TASK, "Retry": [{"ErrorEquals": ["a"], "MaxAttempts": -1}]}, "/Retry/0/MaxAttempts", "from 0"),
    ({**TASK, "Retry": [{"ErrorEquals": ["a"], "BackoffRate": 0.5}]}, "/Retry/0/BackoffRate", "from 1"),
    ({**TASK, "Retry": [{"ErrorEquals": ["a"], "JitterStrategy": "SOME"}]}, "/Retry/0/JitterStrategy", "FULL"),
    ({**TASK, "Retry": [{"ErrorEquals": ["States.ALL"]}, {"ErrorEquals": ["a"]}]}, "/Retry/0/ErrorEquals", "alone"),
    ({**TASK, "Catch": [{"ErrorEquals": ["a"], "Next": "Q"}]}, "/Catch/0/Next", "no state"),
    ({"Type": "Wait", "End": True}, "", "exactly one of Seconds"),
    ({"Type": "Wait", "Seconds": -1, "End": True}, "/Seconds", "from 0"),
    ({"Type": "Wait", "Timestamp": "tomorrow", "End": True}, "/Timestamp", "RFC 3339"),
    ({"Type": "Fail", "Error": 5}, "/Error", "string"),
    ({"Type": "Fail", "Error": "a", "ErrorPath": "$.a"}, "", "only one of Error"),
    ({"Type": "Choice", "Choices": []}, "/Choices", "at least one rule"),
    ({"Type": "Choice", "Choices": [{"Variable": "$.x", "IsNull": True}]}, "/Choices/0/Next", "no state"),
    ({"Type": "Choice", "Choices": [{"Variable": "$.x", "Next": "S"}]}, "/Choices/0", "exactly one operator"),
    (
        {"Type": "Choice", "Choices": [{"Variable": "$.x", "NumericEquals": "5", "Next": "S"}]},
        "/Choices/0/NumericEquals",
        "a number",
    ),
    (
        {"Type": "Choice", "Choices": [{"And": [{"Variable": "x", "IsNull": True}], "Next": "S"}]},
        "/Choices/0/And/0/Variable",
        "begin with $",
    ),
    ({"Type": "Parallel", "Branches": [], "End": True}, "/Branches", "at least one branch"),
    ({"Type": "Parallel", "Branches": [{"StartAt": "A"}], "End": True}, "/Branches/0/States", "at least one state"),
    ({"Type": "Map", "End": True}, "", "exactly one of ItemProcessor"),
    (
        {"Type": "Map", "ItemProcessor": machine({"A": PASS}, ProcessorConfig={"Mode": "DISTRIBUTED"}), "End": True},
        "/ItemProcessor/ProcessorConfig/Mode",
        "distributed",
    ),
    (
        {"Type": "Map", "ItemReader": {}, "ItemProcessor": machine({"A": PASS}), "End": True},
        "/ItemReader",
        "not supported yet",
    ),
    (
        {"Type": "Map", "ItemProcessor": machine({"S": PASS}), "End": True},
        "/ItemProcessor/States/S",
        "taken by /States/S",
    ),
]


@pytest.mark.parametrize(("state", "place", "words"), STATES)
def test_fault_of_a_state(state: dict[str, Any], place: str, words: str) -> None:
    definition = machine({"S": {"Type": "Succeed"}})
    definition["States"] = {"First": {"Type": "Choice", "Choices": [], "Default": "S"}, "S": state}
    definition["States"]["First"]["Choices"] = [{"Variable": "$.x", "IsNull": True, "Next": "S"}]
    definition["StartAt"] = "First"
    pointer, reason = one(definition)
    assert pointer.startswith("/States/S")
    assert pointer == f"/States/S{place}"
    assert words in reason


@pytest.mark.parametrize(
    ("definition", "place", "words"),
    [
        ([], "", "must be an object"),
        ({"States": {}}, "/States", "at least one state"),
        ({"States": {"P": PASS}}, "/StartAt", "one of the states: P"),
        (machine({"P": PASS}, Version="2.0"), "/Version", '"1.0"'),
        (machine({"P": PASS, "a/b~": PASS}), "/States/a~1b~0", "no state leads here"),
        (machine({"P" * 81: PASS}), f"/States/{'P' * 81}", "80 characters"),
        (machine({"P": PASS}, Stats={}), "/Stats", "unknown field"),
    ],
)
def test_fault_of_a_machine(definition: Any, place: str, words: str) -> None:
    pointer, reason = one(definition)
    assert pointer == place
    assert words in reason


def test_wrong_types_anywhere_are_told_and_never_crash() -> None:
    def spoilt(node: Any) -> Any:
        """The definition with each of its values replaced in turn."""
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            kept = node[key]
            for odd in (None, 7, "x", [], {}, True, [None], {"x": None}):
                node[key] = odd
                yield
            node[key] = kept
            if isinstance(kept, dict | list):
                yield from spoilt(kept)

    definition = copy.deepcopy(EVERYTHING)
    tried = 0
    for _ in spoilt(definition):
        problems(definition)
        tried += 1
    assert tried > 500
    assert definition == EVERYTHING
