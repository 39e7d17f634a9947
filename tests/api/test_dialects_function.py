"""Older Functions, Actions and HTTP triggers become native ones."""

from __future__ import annotations

from typing import Any

import pytest

from minik8s.api.dialects import convert
from minik8s.api.dialects_function import SOURCE_ANNOTATION, function_name
from minik8s.api.errors import StatusError
from minik8s.api.kinds import function, trigger

Json = dict[str, Any]


def only(doc: Json) -> Json:
    converted = convert(doc)
    assert converted.changed
    (made,) = converted.objects
    return made


def test_a_function_with_a_folder() -> None:
    made = only({"kind": "Function", "apiVersion": "v1", "metadata": {"name": "addFive", "namespace": "n"},
                 "spec": {"userUploadFilePath": "/home/me/add"}})  # fmt: skip
    assert made == {
        "apiVersion": "faas.minik8s.io/v1", "kind": "Function",
        "metadata": {"name": "addfive", "namespace": "n", "annotations": {SOURCE_ANNOTATION: "/home/me/add"}},
        "spec": {},
    }  # fmt: skip


def test_an_action_declares_whom_it_invokes() -> None:
    made = only({"kind": "Action", "metadata": {"name": "calc"}, "spec": {"invokeActions": ["add", "Multiply_All"]}})
    assert made["kind"] == "Function"
    assert made["spec"] == {"invokes": ["add", "multiply-all"]}
    function.RESOURCE.default(made)
    assert function.RESOURCE.validate(made, None) == []
    assert only({"kind": "Action", "metadata": {"name": "calc"}})["spec"] == {}


def test_an_ingress_with_a_trigger_is_none_of_kubernetes() -> None:
    doc = {"kind": "Ingress", "apiVersion": "v1", "metadata": {"name": "hello"},
           "spec": {"trigger": "/hello", "invokeAction": "Hello", "httpType": "get"}}  # fmt: skip
    made = only(doc)
    assert made["kind"] == "Trigger"
    assert made["spec"] == {"function": "hello", "http": {"path": "/hello", "method": "GET"}}
    assert trigger.RESOURCE.validate(made, None) == []
    native = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"}, "spec": {"rules": []}}
    assert convert(native).objects == [native]


def test_native_ones_are_left_alone() -> None:
    native = {"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": {"name": "f"},
              "spec": {"code": {"inline": "x"}}}  # fmt: skip
    assert convert(native).objects == [native]
    assert not convert(native).changed


@pytest.mark.parametrize(("doc", "words"), [
    ({"kind": "Function", "metadata": {"name": "f"}, "spec": {}}, "spec.userUploadFilePath"),
    ({"kind": "Function", "metadata": {"name": "f"}, "spec": {"userUploadFilePath": "d", "cpu": 1}}, "spec.cpu"),
    ({"kind": "Action", "metadata": {"name": "f"}, "spec": {"invokes": []}}, "spec.invokes"),
    ({"kind": "Action", "metadata": {"name": "f"}, "spec": {"invokeActions": "add"}}, "spec.invokeActions"),
    ({"kind": "Action", "metadata": {"name": "f"}, "script": "x"}, "script"),
    ({"kind": "Ingress", "metadata": {"name": "f"}, "spec": {"trigger": "/x"}}, "spec.invokeAction"),
    ({"kind": "Ingress", "metadata": {"name": "f"}, "spec": {"trigger": "", "invokeAction": "f"}}, "spec.trigger"),
    ({"kind": "Ingress", "metadata": {"name": "f"}, "spec": {"trigger": "/x", "invokeAction": "f", "httpType": "TAKE"}},
     "spec.httpType"),
])  # fmt: skip
def test_mistakes_name_the_field(doc: Json, words: str) -> None:
    with pytest.raises(StatusError) as caught:
        convert(doc)
    assert words in str(caught.value)


def test_names_become_what_functions_are_called() -> None:
    named = ("addFive", "add_five", "Add.Five", "x")
    assert [function_name(name) for name in named] == ["addfive", "add-five", "add-five", "x"]
