"""Both older forms of Workflow become state machines that the engine takes; what is wrong is told in their terms."""

from __future__ import annotations

from typing import Any

import pytest

from minik8s.api.dialects import convert
from minik8s.api.errors import StatusError
from minik8s.faas.admission import faults

Json = dict[str, Any]
NODES: Json = {
    "apiVersion": "/api/v1", "kind": "Workflow", "metadata": {"namespace": "default", "name": "print"},
    "startAt": "addFive", "params": {"x": 5},
    "nodes": {
        "addFive": {"type": "Task", "next": "judge"},
        "judge": {"type": "Choice", "choices": [
            {"variable": "x", "numericEquals": "10", "next": "printEquals"},
            {"variable": "$.x", "numericNotEquals": 10, "next": "printNotEquals"}]},
        "printEquals": {"type": "Task"}, "printNotEquals": {"type": "Task", "function": "say"}}}  # fmt: skip
LIST: Json = {
    "apiVersion": "v1", "kind": "Workflow", "metadata": {"name": "list"},
    "spec": {"entryParams": '{"x": 1}', "entryNodeName": "n1", "workflowNodes": [
        {"name": "n1", "type": "func", "funcData": {"funcName": "f", "funcNamespace": "ns", "nextNodeName": "c"}},
        {"name": "c", "type": "choice", "choiceData": {"trueNextNodeName": "n2", "falseNextNodeName": "n3",
            "checkType": "numGreaterThan", "checkVarName": "x", "compareValue": "3"}},
        {"name": "n2", "type": "func", "funcData": {"funcName": "g"}},
        {"name": "n3", "type": "func", "funcData": {}}]}}  # fmt: skip


def native(document: Json) -> Json:
    conversion = convert(document)
    assert conversion.changed
    made = conversion.objects[0]
    assert (made["apiVersion"], made["kind"]) == ("faas.minik8s.io/v1", "Workflow")
    assert faults(made["spec"]["definition"]) == []
    return made


def test_nodes() -> None:
    made = native(NODES)
    assert made["metadata"] == {"namespace": "default", "name": "print"}
    assert made["spec"] == {
        "input": {"x": 5},
        "definition": {
            "StartAt": "addFive",
            "States": {
                "addFive": {"Type": "Task", "Resource": "function:addfive", "Next": "judge"},
                "judge": {
                    "Type": "Choice",
                    "Choices": [
                        {"Variable": "$.x", "NumericEquals": 10, "Next": "printEquals"},
                        {"Not": {"Variable": "$.x", "NumericEquals": 10}, "Next": "printNotEquals"},
                    ],
                },
                "printEquals": {"Type": "Task", "Resource": "function:printequals", "End": True},
                "printNotEquals": {"Type": "Task", "Resource": "function:say", "End": True},
            },
        },
    }


def test_a_list_of_nodes() -> None:
    spec = native(LIST)["spec"]
    assert spec["input"] == {"x": 1}
    assert spec["definition"]["StartAt"] == "n1"
    states = spec["definition"]["States"]
    assert states["n1"] == {"Type": "Task", "Resource": "function:ns/f", "Next": "c"}
    assert states["c"] == {
        "Type": "Choice", "Choices": [{"Variable": "$.x", "NumericGreaterThan": 3, "Next": "n2"}], "Default": "n3",
    }  # fmt: skip
    assert states["n3"] == {"Type": "Task", "Resource": "function:n3", "End": True}


@pytest.mark.parametrize(
    ("check", "rule"),
    [
        ("numEqual", {"Variable": "$.x", "NumericEquals": 3}),
        ("numNotEqual", {"Not": {"Variable": "$.x", "NumericEquals": 3}}),
        ("numLessThan", {"Variable": "$.x", "NumericLessThan": 3}),
        ("numGreaterAndEqualThan", {"Variable": "$.x", "NumericGreaterThanEquals": 3}),
        ("strEqual", {"Variable": "$.x", "StringEquals": "3"}),
    ],
)
def test_checks(check: str, rule: Json) -> None:
    nodes = [dict(node) for node in LIST["spec"]["workflowNodes"]]
    nodes[1]["choiceData"] = {**nodes[1]["choiceData"], "checkType": check}
    states = native({**LIST, "spec": {**LIST["spec"], "workflowNodes": nodes}})["spec"]["definition"]["States"]
    assert states["c"]["Choices"] == [{**rule, "Next": "n2"}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nodes": {"a": {"type": "Wait"}}}, "nodes.a.type"),
        ({"nodes": {}}, "nodes"),
        ({"nodes": {"a": {"type": "Task", "nxt": "b"}}}, "nodes.a.nxt"),
        ({"nodes": {"a": {"type": "Choice", "choices": [{"variable": "x", "next": "a"}]}}}, "exactly one comparison"),
        (
            {"nodes": {"a": {"type": "Choice", "choices": [{"variable": "x", "numericEquals": "five", "next": "a"}]}}},
            "is no number",
        ),
        ({"colour": 1}, "colour"),
    ],
)
def test_faults_are_told_in_the_dialects_words(change: Json, words: str) -> None:
    with pytest.raises(StatusError, match=words.replace(".", r"\.")):
        convert({**NODES, **change})


def test_a_native_workflow_passes() -> None:
    document = {"apiVersion": "faas.minik8s.io/v1", "kind": "Workflow", "metadata": {"name": "n"}, "spec": {}}
    assert convert(document).objects[0] is document
