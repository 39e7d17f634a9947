"""Laws of every kind over whatever its schema lets through: defaulting is idempotent, nothing raises, cells fit."""

from __future__ import annotations

import copy
import random

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minik8s.api.kinds import RESOURCES
from minik8s.api.resource import Resource
from minik8s.api.schema import compile_schema
from tests.api.schema_values import Maker, random_object

NOW = 1_700_000_000.0
every_kind = pytest.mark.parametrize("kind", RESOURCES, ids=lambda kind: kind.kind)
seeds = st.integers(0, 2**32)
cheap = settings(max_examples=25, deadline=None)


def made(kind: Resource, seed: int) -> dict:
    """An object as the API server has it before it is defaulted."""
    obj = random_object(kind.definition, seed)
    schema = compile_schema(kind.definition)
    schema.prune(obj)
    assert schema.check(obj) == []
    obj |= {"apiVersion": kind.api_version, "kind": kind.kind}
    obj.setdefault("metadata", {})["uid"] = "c0ffee"
    return obj


@every_kind
@given(seed=seeds)
@cheap
def test_defaulting_twice_is_defaulting_once(kind: Resource, seed: int) -> None:
    obj = made(kind, seed)
    kind.default(obj)
    once = copy.deepcopy(obj)
    kind.default(obj)
    assert obj == once
    faults = compile_schema(kind.definition).check(once)
    assert [fault for fault in faults if fault.reason != "FieldValueRequired"] == [], "defaults are of their types"


@every_kind
@given(seed=seeds)
@cheap
def test_nothing_that_fits_the_schema_makes_a_kind_raise(kind: Resource, seed: int) -> None:
    obj, old = made(kind, seed), made(kind, seed + 1)
    for each in (obj, old):
        kind.default(each)
        kind.prepare(each, None)
    kind.prepare(obj, old)
    for causes in (kind.validate(obj, None), kind.validate(obj, old), kind.validate(obj, obj)):
        assert all(cause.field and cause.reason and cause.message for cause in causes)


@every_kind
@given(seed=seeds)
@cheap
def test_cells_and_selectable_fields_of_anything_stored(kind: Resource, seed: int) -> None:
    obj = made(kind, seed)
    kind.default(obj)
    shape = {"integer": int, "number": (int, float), "boolean": bool}
    for column in kind.columns:
        cell = column.cell(obj, NOW)
        assert isinstance(cell, shape.get(column.type, str)), column.name
    for field, value in kind.selectable.items():
        assert isinstance(value(obj), str), field


@every_kind
@given(seed=seeds)
@cheap
def test_components_can_read_what_the_server_stores(kind: Resource, seed: int) -> None:
    obj = made(kind, seed)
    kind.default(obj)
    kind.prepare(obj, None)
    msgspec.json.decode(msgspec.json.encode(obj), type=kind.type)


@pytest.mark.parametrize(
    ("kind", "alias"),
    [(kind, alias) for kind in RESOURCES for alias in kind.aliases],
    ids=lambda v: getattr(v, "kind", ""),
)
@given(seed=seeds)
@example(seed=0)
@cheap
def test_other_versions_are_readable_and_come_back(kind: Resource, alias, seed: int) -> None:
    obj = made(kind, seed)
    kind.default(obj)
    back = alias.back({**alias.to(copy.deepcopy(obj)), "kind": kind.kind})
    again = alias.back({**alias.to(copy.deepcopy(back)), "kind": kind.kind})
    assert again == back


@every_kind
def test_a_bare_object_is_taken_as_far_as_it_goes(kind: Resource) -> None:
    """No name, no spec: the answer is a list of faults, or an object, but never a crash."""
    obj = Maker(random.Random(1), 0).make(kind.definition)
    obj.pop("spec", None)
    obj |= {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"uid": "u"}}
    kind.default(obj)
    kind.prepare(obj, None)
    kind.validate(obj, None)
