"""JSON patch (RFC 6902) and merge patch (RFC 7386): the RFCs' own examples, the API server's extras, and laws."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s.api.errors import BadRequest, Invalid, RequestEntityTooLarge
from minik8s.api.patch import json_patch, merge_patch

Json = dict[str, Any]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab~/", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab~/", max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("ab~/", max_size=3), VALUES, max_size=4)


@pytest.mark.parametrize(
    ("doc", "ops", "expected"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        ({"a": ["x", "z"]}, [{"op": "add", "path": "/a/1", "value": "y"}], {"a": ["x", "y", "z"]}),
        ({"a": ["x"]}, [{"op": "add", "path": "/a/-", "value": ["y"]}], {"a": ["x", ["y"]]}),
        ({"a": ["x"]}, [{"op": "add", "path": "/a/1", "value": None}], {"a": ["x", None]}),
        ({"a": ["x", "y"]}, [{"op": "remove", "path": "/a/0"}], {"a": ["y"]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": {"b": 1}}], {"a": {"b": 1}}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": ["x", "y", "z"]}, [{"op": "move", "from": "/a/0", "path": "/a/2"}], {"a": ["y", "z", "x"]}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/a/c"}], {"a": {"b": 1, "c": {"b": 1}}}),
        ({"a/b": 1, "m~n": 2}, [{"op": "test", "path": "/a~1b", "value": 1}], {"a/b": 1, "m~n": 2}),
        ({"m~1n": 2}, [{"op": "replace", "path": "/m~01n", "value": 3}], {"m~1n": 3}),
        ({"a": 1.0}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1.0}),
        ({"a": 1}, [{"op": "test", "path": "/b", "value": None}], {"a": 1}),
        ({"a": 1}, [{"op": "add", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"": 1}, [{"op": "replace", "path": "/", "value": 2}], {"": 2}),
        ({"a": 1}, [{"op": "move", "from": "/a", "path": "/a"}], {"a": 1}),
    ],
)
def test_json_patch(doc: Json, ops: list[Json], expected: Json) -> None:
    before = copy.deepcopy((doc, ops))
    assert json_patch(doc, ops) == expected
    assert (doc, ops) == before


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        (
            [{"op": "test", "path": "/a", "value": True}],
            'patch[0]: Invalid value: "/a": test: the value is 1, not true',
        ),
        ([{"op": "remove", "path": "/x"}], 'patch[0]: Invalid value: "/x": remove: there is no /x'),
        ([{"op": "replace", "path": "/x", "value": 1}], "there is no /x"),
        ([{"op": "add", "path": "/x/y", "value": 1}], "there is no /x"),
        ([{"op": "add", "path": "/a/y", "value": 1}], "/a is neither an object nor an array"),
        ([{"op": "add", "path": "/l/2", "value": 1}], "the array has 1 items, so there is no 2"),
        ([{"op": "add", "path": "/l/01", "value": 1}], "'01' is not an index of an array"),
        ([{"op": "remove", "path": "/l/-"}], "'-' is not an index of an array"),
        ([{"op": "remove", "path": ""}], "the whole document cannot be removed"),
        (
            [{"op": "test", "path": "/a", "value": 1}, {"op": "move", "from": "/m", "path": "/m/n"}],
            'patch[1]: Invalid value: "/m/n": move: /m cannot move into itself',
        ),
    ],
)
def test_a_json_patch_that_does_not_fit_is_invalid(ops: list[Json], message: str) -> None:
    doc = {"kind": "Pod", "metadata": {"name": "web"}, "a": 1, "l": [0], "m": {}}
    before = copy.deepcopy(doc)
    with pytest.raises(Invalid) as caught:
        json_patch(doc, ops)
    assert message in str(caught.value)
    assert str(caught.value).startswith('Pod "web" is invalid: ')
    assert doc == before


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ({}, "must be an array"),
        ([1], "patch[0].op: must be one of add, remove, replace, test, move, copy"),
        ([{"op": "jump", "path": "/a"}], "patch[0].op"),
        ([{"op": ["add"], "path": "/a"}], "patch[0].op"),
        ([{"op": "remove", "path": "/a"}, {"op": "add", "path": "/a"}], "patch[1].value: add needs it"),
        ([{"op": "move", "path": "/a"}], "patch[0].from: move needs it"),
        ([{"op": "remove", "path": "a"}], "patch[0].path: must be a JSON pointer"),
        ([{"op": "replace", "path": "", "value": 1}], "must leave an object"),
    ],
)
def test_a_malformed_json_patch_is_a_bad_request(ops: Any, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        json_patch({"a": 1}, ops)
    assert message in str(caught.value)


def test_a_json_patch_cannot_be_made_to_explode() -> None:
    with pytest.raises(RequestEntityTooLarge):
        json_patch({"a": {"x": "y" * 1000}}, [{"op": "copy", "from": "/a", "path": f"/a/{i}"} for i in range(60)])
    with pytest.raises(RequestEntityTooLarge):
        json_patch({}, [{"op": "test", "path": "/a", "value": None}] * 10_001)


@given(OBJECTS, st.text("ab~/", max_size=3), VALUES)
def test_what_is_added_can_be_tested_and_removed(doc: Json, key: str, value: Any) -> None:
    path = "/" + key.replace("~", "~0").replace("/", "~1")
    doc.pop(key, None)
    add = {"op": "add", "path": path, "value": value}
    added = json_patch(doc, [add, {"op": "test", "path": path, "value": value}])
    assert added == doc | {key: value}
    assert json_patch(added, [{"op": "remove", "path": path}]) == doc


@settings(max_examples=300)
@given(
    OBJECTS,
    st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
                "path": VALUES,
                "value": VALUES,
            },
            optional={"from": st.sampled_from(["", "/a", "/a/0", "/b/a"])},
        )
    ),
)
def test_whatever_a_json_patch_says_it_applies_or_is_refused(doc: Json, ops: list[Any]) -> None:
    before = copy.deepcopy(doc)
    with suppress(BadRequest, Invalid):
        json_patch(doc, ops)
    assert doc == before


@pytest.mark.parametrize(
    ("doc", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": "foo"}, {"a": {"b": [None]}}, {"a": {"b": [None]}}),
    ],
)
def test_merge_patch(doc: Json, patch: Json, expected: Json) -> None:
    before = copy.deepcopy((doc, patch))
    assert merge_patch(doc, patch) == expected
    assert (doc, patch) == before


def test_a_merge_patch_is_an_object() -> None:
    with pytest.raises(BadRequest):
        merge_patch({}, [])


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_twice_is_as_once(doc: Json, patch: Json) -> None:
    once = merge_patch(doc, patch)
    assert merge_patch(once, patch) == once
    assert merge_patch(doc, {}) == doc


@given(OBJECTS)
def test_results_share_nothing_with_the_inputs(value: Json) -> None:
    patch = {"new": value}
    result = merge_patch({"old": value}, patch)
    result["old"]["x"] = result["new"]["x"] = "changed"
    added = json_patch({}, [{"op": "add", "path": "/new", "value": value}])
    added["new"]["x"] = "changed"
    assert value.get("x") != "changed"


def test_hostile_depth_is_a_bad_request() -> None:
    deep: Any = {}
    for _ in range(3000):
        deep = {"a": deep}
    with pytest.raises(BadRequest):
        merge_patch({}, deep)
    with pytest.raises(BadRequest):
        json_patch({}, [{"op": "add", "path": "/a", "value": deep}])
