"""YAML in and out: what is written is read back the same, by our reader and by another; scalars mean the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from minik8s.cli.yaml_read import YamlError, load, load_all
from minik8s.cli.yaml_write import to_yaml

AWKWARD = ["yes", "null", "~", "1e3", "0644", "22:30", "2024-01-01", "- a", "a: b", "a #b", "a\n", "\na", " a", "a ",
           "a\n\n", "|", "---", "...", "... a", "<<", "10.96.0.1", "0x1F", "1_0", ".5", "+_", "-_1",
           "a\nb \n", "NO", "=", "%a"]  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(AWKWARD), st.text("ab 0129:#-.\n'\"\\{}[]!&*%@`|>?,~_xoety\t/=+", max_size=14)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    text = to_yaml(value)
    assert load(text, "x") == value
    assert YAML(typ="safe", pure=True).load(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0644", 420), ("0o17", 15), ("0x1f", 31), ("1_000", 1000), ("-3", -3), ("1.5", 1.5), ("1e3", 1000.0),
        ("yes", True), ("Off", False), ("TRUE", True), ("y", "y"), ("~", None), ("22:30", "22:30"),
        ("2024-01-01", "2024-01-01"), ("1.2.3", "1.2.3"), ("'5'", "5"), ("!!str 5", "5"), ("!!str yes", "yes"),
        ("0.5", 0.5), ("100m", "100m"), ("!!binary aGk=", "aGk="), ("+1", 1), ("09", 9.0), (".", "."),
    ],
)  # fmt: skip
def test_scalars_mean_what_kubectl_takes_them_for(text: str, value: Any) -> None:
    made = load(f"a: {text}\n", "x")["a"]
    assert made == value
    assert type(made) is type(value)


def test_merge_keys_and_anchors() -> None:
    text = "base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\n"
    assert load(text, "x") == {"base": {"x": 1, "y": 2}, "more": {"x": 1, "y": 3}}


def test_several_documents_and_empty_ones() -> None:
    assert [d.value for d in load_all("---\n# nothing\n---\na: 1\n---\nb: 2\n...\n", "x")] == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 'web.yaml:4:3: duplicate key "c"'),
        ("a: b: c\n", "web.yaml:1:5: mapping values are not allowed"),
        ("a:\n\t- b\n", "web.yaml:2:1: found character '\\t'"),
        ("a: [1\nb: 2\n", "web.yaml:2:2: expected ',' or ']'"),
        ("a: *x\n", "web.yaml:1:4: found undefined alias"),
        ("a: &x [*x]\n", "web.yaml:1:4: this alias contains itself"),
        ("a\x00: 1", "web.yaml:1:2: the character"),
        ("a: 1\n---\nb: @c\n", "web.yaml:3:4: found character '@'"),
    ],
)
def test_mistakes_tell_file_line_and_column(text: str, message: str) -> None:
    with pytest.raises(YamlError) as error:
        list(load_all(text, "web.yaml"))
    assert str(error.value).startswith(message)


def test_depth_bomb_is_an_error() -> None:
    with pytest.raises(YamlError, match="nested too deeply"):
        load("[" * 100_000, "x")
