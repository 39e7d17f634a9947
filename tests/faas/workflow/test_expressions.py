"""Paths, intrinsic functions and choice operators, case by case."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.faas.workflow import choice, intrinsics, paths
from minik8s.faas.workflow.data import Scope
from minik8s.faas.workflow.errors import StateError, means

DATA = {"a": {"b": [1, {"c": 2}], "d e": 3, "it's": 4}, "n": [{"p": 1}, {"p": 5}], "t": "x"}


def scope(data: Any) -> Scope:
    return Scope(data, lambda: {"Execution": {"Name": "run"}}, lambda: random.Random(1))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", DATA),
        ("$.a.b[0]", 1),
        ("$.a.b[1].c", 2),
        ("$.a.b[-1].c", 2),
        ("$['a']['d e']", 3),
        ("$.a['it\\'s']", 4),
        ("$.n[*].p", [1, 5]),
        ("$..p", [1, 5]),
        ("$.n[?@.p > 2].p", [5]),
        ("$.n[?(@.p > 9)]", []),
        ("$.n[0:1]", [{"p": 1}]),
    ],
)
def test_paths_that_lead_somewhere(path: str, value: Any) -> None:
    assert paths.read(paths.parse(path), DATA) == value


@pytest.mark.parametrize("path", ["$.x", "$.a.b[9]", "$.a[0]", "$.t.u", "$.a.b.c"])
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(StateError, match="leads to nothing"):
        paths.read(paths.parse(path), DATA)


def test_queries_that_could_take_for_ever_are_refused_or_end() -> None:
    for text in ("$.n[?match(@.p, '(a+)+b')]", "$.n[?search(@.p, 'a')]", "$.n[?@.p =~ /a/]"):
        with pytest.raises(paths.InvalidPath, match="no JSONPath"):
            paths.parse(text)
    for text in ("$[1e5", "$[?@.p == 1e999]", f"$[?@.p == {'9' * 5000}]", f"$[?{'(' * 5000}@.p]"):
        with pytest.raises(paths.InvalidPath, match="no JSONPath"):
            paths.parse(text)
    with pytest.raises(paths.InvalidPath, match="for ever"):
        paths.parse("$..a..b[?count(@..*) > 1]")
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"a": deep}
    with pytest.raises(StateError, match="recursion"):
        paths.read(paths.parse("$..b"), deep)


def test_a_text_holds_nothing_for_a_query() -> None:
    for text in ("[1, 2]", "{", ""):
        assert paths.read(paths.parse("$[*]"), text) == []


def test_put_copies_what_it_changes() -> None:
    before = {"a": {"b": 1}, "l": [1, 2]}
    after = paths.put(paths.reference("$.a.c.d"), before, 5)
    assert after == {"a": {"b": 1, "c": {"d": 5}}, "l": [1, 2]}
    assert before == {"a": {"b": 1}, "l": [1, 2]}
    assert paths.put(paths.reference("$.l[1]"), before, 9)["l"] == [1, 9]
    for path in ("$.l[2]", "$.l.x", "$.a.b.c"):
        with pytest.raises(StateError, match="ResultPathMatchFailure"):
            paths.put(paths.reference(path), before, 0)


CALLS = [
    ("States.Format('Hi {}, {} of \\{\\}', $.a.b[0], 'two')", "Hi 1, two of {}"),
    ("States.Format('{}', $.n)", '[{"p":1},{"p":5}]'),
    ("States.StringToJson('{\"x\": [1]}')", {"x": [1]}),
    ("States.JsonToString($.n)", '[{"p":1},{"p":5}]'),
    ("States.Array(1, 'a', null, true, $.t)", [1, "a", None, True, "x"]),
    ("States.Array()", []),
    ("States.ArrayPartition(States.ArrayRange(1, 5, 1), 2)", [[1, 2], [3, 4], [5]]),
    ("States.ArrayContains($.n, $.n[1])", True),
    ("States.ArrayContains(States.Array(1), true)", False),
    ("States.ArrayRange(1, 9, 2)", [1, 3, 5, 7, 9]),
    ("States.ArrayRange(3, 1, -1)", [3, 2, 1]),
    ("States.ArrayGetItem($.a.b, 0)", 1),
    ("States.ArrayLength($.n)", 2),
    ("States.ArrayUnique(States.Array(1, 2, 1, '1'))", [1, 2, "1"]),
    ("States.Base64Encode('Data to encode')", "RGF0YSB0byBlbmNvZGU="),
    ("States.Base64Decode('RGF0YSB0byBlbmNvZGU=')", "Data to encode"),
    ("States.Hash('input data', 'SHA-1')", "aaff4a450a104cd177d28d18d74485e8cae074b7"),
    ("States.JsonMerge($.a, $.n[0], false)", {**DATA["a"], "p": 1}),  # type: ignore[dict-item]
    ("States.MathAdd($.a.b[0], -1)", 0),
    ("States.StringSplit('1,2;3', ',;')", ["1", "2", "3"]),
    ("States.Format('it\\'s {}', 1.5)", "it's 1.5"),
    ("States.StringSplit('a,b', '')", ["a,b"]),
    ("States.StringSplit('', '')", []),
    ("States.StringSplit('a]b^c-d', ']^-')", ["a", "b", "c", "d"]),
    # Halves go away from zero.
    ("States.Array(States.MathAdd(0.5, 0), States.MathAdd(2.5, 0), States.MathAdd(-2.5, 0))", [1, 3, -3]),
    ("States.Array(States.MathAdd(1.49, 0), States.MathAdd(-1.51, 0))", [1, -2]),
    # Paths as they may stand elsewhere: filters, several names, names with spaces, commas and brackets.
    ("States.ArrayLength($.n[?(@.p > 2)])", 1),
    ("States.Array( $.n[?@.p > 2].p , 1 )", [[5], 1]),
    ("States.ArrayLength($.n[?(@['p'] == 5 || (@.p < 2))])", 2),
    ("States.Array($.a['d e'], $.a[\"it's\"])", [3, 4]),
    ("States.ArrayLength($.a.b[0, 1])", 2),
    ("States.ArrayLength($['x)]', 'n'])", 1),
]


@pytest.mark.parametrize(("text", "value"), CALLS)
def test_intrinsic_functions(text: str, value: Any) -> None:
    found = scope(DATA).value(text)
    assert (type(found), found) == (type(value), value)


def test_chance_can_be_repeated() -> None:
    for text in ("States.UUID()", "States.MathRandom(1, 1000000)"):
        assert scope({}).value(text) == scope({}).value(text)
    assert scope({}).value("States.MathRandom(1, 1000000, 7)") == random.Random(7).randrange(1, 1000000)
    assert len(scope({}).value("States.UUID()")) == 36


@pytest.mark.parametrize(
    "text",
    [
        "States.StringToJson('{')",
        "States.StringToJson('NaN')",
        "States.StringToJson('1e999')",
        "States.ArrayRange(1, 9000, 1)",
        "States.ArrayRange(1, 2, 0)",
        "States.ArrayPartition($.n, 0)",
        "States.ArrayGetItem($.n, 7)",
        "States.ArrayGetItem($.n, -1)",
        "States.ArrayLength('x')",
        "States.Hash('x', 'CRC')",
        "States.Base64Decode('***')",
        "States.JsonMerge($.a, $.n, false)",
        "States.JsonMerge($.a, $.a, true)",
        "States.MathRandom(5, 1)",
        "States.MathAdd('a', 1)",
        "States.MathAdd(1e300, 1)",
        "States.Format('{}')",
        "States.Format(5)",
    ],
)
def test_wrong_arguments_fail_the_state(text: str) -> None:
    with pytest.raises(StateError) as error:
        scope(DATA).value(text)
    assert error.value.error == "States.IntrinsicFailure"


@pytest.mark.parametrize(
    "text",
    [
        "States.Nope()",
        "States.UUID(1)",
        "States.MathAdd(1,)",
        "States.MathAdd(1 2)",
        "hello",
        "States.UUID() x",
        "'a'",
        "States.Array(01)",
        "States.Array(\u0661)",
    ],
)
def test_what_is_no_call_is_refused(text: str) -> None:
    with pytest.raises(intrinsics.InvalidCall):
        intrinsics.parse(text)


@given(st.text(max_size=40))
def test_no_text_crashes_the_parsers(text: str) -> None:
    for parse, error in ((paths.parse, paths.InvalidPath), (intrinsics.parse, intrinsics.InvalidCall)):
        with suppress(error):
            parse(f"$.{text}" if parse is paths.parse else f"States.Format({text})")


RULES = [
    ({"StringEquals": "x"}, "x", True),
    ({"StringLessThan": "b"}, "a", True),
    ({"StringGreaterThanEquals": "b"}, "b", True),
    ({"StringEquals": "5"}, 5, False),
    ({"NumericEquals": 5}, 5.0, True),
    ({"NumericEquals": 1}, True, False),
    ({"NumericLessThanEquals": 5}, 6, False),
    ({"NumericGreaterThan": 5}, "6", False),
    ({"BooleanEquals": False}, False, True),
    ({"BooleanEquals": False}, 0, False),
    ({"TimestampLessThan": "2026-01-01T00:00:00Z"}, "2025-12-31T23:59:59.5Z", True),
    ({"TimestampEquals": "2026-01-01T01:00:00+01:00"}, "2026-01-01T00:00:00Z", True),
    ({"TimestampEquals": "2026-01-01T00:00:00Z"}, "2026-01-01", False),
    ({"StringMatches": "log-*.txt"}, "log-5.txt", True),
    ({"StringMatches": "log-*.txt"}, "log-5.txtx", False),
    ({"StringMatches": "a\\*b"}, "a*b", True),
    ({"StringMatches": "a\\*b"}, "axb", False),
    ({"StringMatches": "*"}, 5, False),
    ({"StringMatches": "*"}, "", True),
    ({"StringMatches": "ab*ba"}, "aba", False),
    ({"StringMatches": "a**b*c"}, "a\n--b-bc", True),
    ({"StringMatches": "a\\\\*"}, "a\\b", True),
    ({"StringMatches": "*a" * 30 + "*b"}, "a" * 50_000, False),  # ages for a regular expression
    ({"IsNull": True}, None, True),
    ({"IsNull": False}, None, False),
    ({"IsNumeric": True}, 5, True),
    ({"IsNumeric": True}, False, False),
    ({"IsString": True}, "", True),
    ({"IsBoolean": True}, True, True),
    ({"IsTimestamp": True}, "2026-01-01T00:00:00Z", True),
    ({"IsTimestamp": True}, "2026-13-01T00:00:00Z", False),
    ({"IsPresent": True}, 1, True),
    ({"IsPresent": False}, 1, False),
]


@pytest.mark.parametrize(("rule", "value", "holds"), RULES)
def test_operators(rule: dict[str, Any], value: Any, holds: bool) -> None:
    assert choice.holds({"Variable": "$.v", **rule}, scope({"v": value})) is holds
    (name, operand) = next(iter(rule.items()))
    if name in choice.COMPARISONS:  # and against what a path leads to
        assert choice.holds({"Variable": "$.v", f"{name}Path": "$.w"}, scope({"v": value, "w": operand})) is holds


def test_absent_variables() -> None:
    assert choice.holds({"Variable": "$.x", "IsPresent": False}, scope({}))
    with pytest.raises(StateError, match="Variable"):
        choice.holds({"Variable": "$.x", "IsNull": True}, scope({}))
    assert choice.holds({"Variable": "$$.Execution.Name", "StringEquals": "run"}, scope({}))


@pytest.mark.parametrize(
    ("names", "error", "holds"),
    [
        (["A"], "A", True),
        (["States.ALL"], "A", True),
        (["States.TaskFailed"], "A", True),
        (["States.TaskFailed"], "States.Timeout", False),
        (["States.ALL"], "States.Runtime", False),
        (["States.Runtime"], "States.Runtime", True),
        (["States.ALL"], "States.DataLimitExceeded", False),
    ],
)
def test_which_errors_a_name_means(names: list[str], error: str, holds: bool) -> None:
    assert means(names, error) is holds
