"""Value validations of a custom resource's schema: bounds, patterns, enums, counts and their logical combinations.

Each keyword becomes a rule `(value, path) -> causes`, applied once the value has the right type. The words are those
of OpenAPI v3 as CustomResourceDefinitions allow them; `x-kubernetes-validations` (CEL) is not one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from minik8s.api.errors import Cause, duplicate, invalid, not_supported, required
from minik8s.api.schema_nodes import Rule, join

Json = dict[str, Any]
Test = Callable[[Any], bool]


def rules(schema: Json) -> tuple[Rule, ...]:
    """The rules that the keywords of one schema make; children's schemas are the compiler's business."""
    return (*(_tested(test, detail) for test, detail in _tests(schema)), *_structural(schema), *_logical(schema))


def _tested(test: Test, detail: str) -> Rule:
    def rule(value: Any, path: str) -> Iterator[Cause]:
        if not test(value):
            yield invalid(path, value, detail)

    return rule


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _tests(schema: Json) -> Iterator[tuple[Test, str]]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and schema.get("exclusiveMinimum"):
        yield (lambda v: not _is_number(v) or v > low), f"must be greater than {low}"
    elif low is not None:
        yield (lambda v: not _is_number(v) or v >= low), f"must be greater than or equal to {low}"
    if high is not None and schema.get("exclusiveMaximum"):
        yield (lambda v: not _is_number(v) or v < high), f"must be less than {high}"
    elif high is not None:
        yield (lambda v: not _is_number(v) or v <= high), f"must be less than or equal to {high}"
    if step := schema.get("multipleOf"):
        yield (lambda v: not _is_number(v) or _divides(step, v)), f"must be a multiple of {step}"
    if (pattern := _pattern(schema.get("pattern"))) is not None:
        found = pattern.search
        yield (lambda v: type(v) is not str or found(v) is not None), f"must match '{schema['pattern']}'"
    for suffix, kind, unit in (("Length", str, "characters"), ("Items", list, "items"), ("Properties", dict, "fields")):
        yield from _sizes(schema.get(f"min{suffix}"), schema.get(f"max{suffix}"), kind, unit)


def _divides(step: float, value: float) -> bool:
    quotient = value / step
    return abs(quotient - round(quotient)) < 1e-9


def _pattern(source: str | None) -> re.Pattern[str] | None:
    """None also for what Python cannot compile: such a definition is refused when it is made, not per object."""
    try:
        return re.compile(source) if source else None
    except re.error:
        return None


def _sizes(least: int | None, most: int | None, kind: type[Any], unit: str) -> Iterator[tuple[Test, str]]:
    if least is not None:
        yield (lambda v: type(v) is not kind or len(v) >= least), f"must have at least {least} {unit}"
    if most is not None:
        yield (lambda v: type(v) is not kind or len(v) <= most), f"must have at most {most} {unit}"


def _structural(schema: Json) -> Iterator[Rule]:
    if "enum" in schema:
        yield _enum(schema["enum"])
    if schema.get("x-kubernetes-list-type") == "map":
        yield _distinct(tuple(schema.get("x-kubernetes-list-map-keys", ())))
    elif schema.get("uniqueItems") or schema.get("x-kubernetes-list-type") == "set":
        yield _distinct(())


def _same(value: Any) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def _enum(allowed: list[Any]) -> Rule:
    known = {_same(value) for value in allowed}
    shown = [value if isinstance(value, str) else _same(value).decode() for value in allowed]

    def rule(value: Any, path: str) -> Iterator[Cause]:
        if _same(value) not in known:
            yield not_supported(path, value, shown)

    return rule


def _distinct(keys: tuple[str, ...]) -> Rule:
    """Items differ: in `keys` when given (list-type map), else as a whole (list-type set)."""

    def rule(value: Any, path: str) -> Iterator[Cause]:
        seen = set()
        for index, item in enumerate(value if type(value) is list else ()):
            identity = {key: item.get(key) for key in keys} if keys and type(item) is dict else item
            if (same := _same(identity)) in seen:
                yield duplicate(f"{path}[{index}]", identity)
            seen.add(same)

    return rule


def _logical(schema: Json) -> Iterator[Rule]:
    for part in schema.get("allOf", ()):
        yield _whole(part)
    for word, good in (("anyOf", lambda n: n >= 1), ("oneOf", lambda n: n == 1)):
        if word in schema:
            yield _counted([_whole(part) for part in schema[word]], good, word)
    if "not" in schema:
        yield _counted([_whole(schema["not"])], lambda n: n == 0, "not")


def _counted(parts: list[Rule], good: Callable[[int], bool], word: str) -> Rule:
    def rule(value: Any, path: str) -> Iterator[Cause]:
        if not good(sum(not any(True for _ in part(value, path)) for part in parts)):
            yield invalid(path, value, f"must satisfy the schema's {word}")

    return rule


_TYPES: dict[str, tuple[type[Any], ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "object": (dict,),
    "array": (list,),
}  # fmt: skip


def _whole(schema: Json) -> Rule:
    """A schema inside allOf, anyOf, oneOf or not, with everything below it, as one rule."""
    own = rules(schema)
    types = _TYPES.get(schema.get("type", ""))
    wanted = sorted(schema.get("required", ()))
    fields = {key: _whole(inner) for key, inner in schema.get("properties", {}).items()}
    items = _whole(schema["items"]) if isinstance(schema.get("items"), dict) else None
    more = schema.get("additionalProperties")
    values = _whole(more) if isinstance(more, dict) else None

    def rule(value: Any, path: str) -> Iterator[Cause]:
        if types and type(value) not in types:
            yield invalid(path, value, f"must be of type {schema['type']}")
            return
        for each in own:
            yield from each(value, path)
        if type(value) is dict:
            yield from (required(join(path, key)) for key in wanted if key not in value)
            for key, inner in value.items():
                if below := fields.get(key, values):
                    yield from below(inner, join(path, key))
        elif type(value) is list and items:
            for index, inner in enumerate(value):
                yield from items(inner, f"{path}[{index}]")

    return rule
