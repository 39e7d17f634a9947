"""The rules of Choice states: from a table of operators to the name of the next state. Pure."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeGuard

from minik8s.faas.workflow import paths
from minik8s.faas.workflow.data import Json, Scope
from minik8s.faas.workflow.errors import NO_CHOICE_MATCHED, RUNTIME, StateError

_ORDER: Final = {
    "Equals": operator.eq,
    "LessThan": operator.lt,
    "GreaterThan": operator.gt,
    "LessThanEquals": operator.le,
    "GreaterThanEquals": operator.ge,
}
# Fraction of a second and offset as RFC 3339 has them, with the T and Z that the language asks for.
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_timestamp(value: Any) -> bool:
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        return False
    try:
        timestamp(value)
    except ValueError:
        return False
    return True


def timestamp(text: str) -> float:
    """Unix seconds of an RFC 3339 time; ValueError if it is none."""
    if not _TIMESTAMP.fullmatch(text):
        raise ValueError(f"{text!r} is no time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z")
    return datetime.fromisoformat(text).timestamp()


class _Type(NamedTuple):
    """Which values an operator compares, and as what."""

    fits: Callable[[Any], bool]
    key: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


_TYPES: Final[Mapping[str, _Type]] = {
    "String": _Type(lambda value: isinstance(value, str), _same),
    "Numeric": _Type(is_number, _same),
    "Timestamp": _Type(is_timestamp, timestamp),
    "Boolean": _Type(lambda value: isinstance(value, bool), _same),
}
_TESTS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "IsNull": lambda value: value is None,
    "IsString": _TYPES["String"].fits,
    "IsNumeric": is_number,
    "IsBoolean": _TYPES["Boolean"].fits,
    "IsTimestamp": is_timestamp,
}
COMPARISONS: Final = {
    f"{type}{order}": (kind, compare)
    for type, kind in _TYPES.items()
    for order, compare in _ORDER.items()
    if type != "Boolean" or order == "Equals"
}
TESTS: Final = (*_TESTS, "IsPresent")
OPERATORS: Final = (*COMPARISONS, *(f"{name}Path" for name in COMPARISONS), "StringMatches", *TESTS)
COMBINATIONS: Final = ("And", "Or", "Not")


def choose(state: Json, scope: Scope) -> str:
    """The `Next` of the first rule that holds, or `Default`. StateError if none does."""
    for rule in state["Choices"]:
        if holds(rule, scope):
            return str(rule["Next"])
    if "Default" in state:
        return str(state["Default"])
    raise StateError(NO_CHOICE_MATCHED, "no rule of the Choice state holds, and it has no Default")


def holds(rule: Json, scope: Scope) -> bool:
    if "And" in rule:
        return all(holds(each, scope) for each in rule["And"])
    if "Or" in rule:
        return any(holds(each, scope) for each in rule["Or"])
    if "Not" in rule:
        return not holds(rule["Not"], scope)
    variable = rule["Variable"]
    if "IsPresent" in rule:
        return _exists(variable, scope) is rule["IsPresent"]
    name, operand = next((key, value) for key, value in rule.items() if key in OPERATORS)
    try:
        value = scope.read(variable)
    except StateError as error:
        raise StateError(RUNTIME, f"Variable: {error.cause}") from None
    if name in _TESTS:
        return _TESTS[name](value) is operand
    if name == "StringMatches":
        return isinstance(value, str) and like(operand, value)
    if name.endswith("Path"):
        name, operand = name.removesuffix("Path"), scope.read(operand)
    kind, compare = COMPARISONS[name]
    return kind.fits(value) and kind.fits(operand) and bool(compare(kind.key(value), kind.key(operand)))


def _exists(variable: str, scope: Scope) -> bool:
    if variable.startswith("$$"):
        return paths.exists(paths.parse(variable[1:]), scope.context())
    return paths.exists(paths.parse(variable), scope.data)


def like(pattern: str, text: str) -> bool:
    r"""`StringMatches`: `*` stands for any characters, `\*` and `\\` for themselves.

    By hand, as a regular expression with many stars may take for ever.
    """
    first, *middle = _between_stars(pattern)
    if not middle:
        return text == first
    last = middle.pop()
    if not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return at <= end


@functools.lru_cache(maxsize=1024)
def _between_stars(pattern: str) -> tuple[str, ...]:
    parts = [""]
    for piece in re.findall(r"\\[*\\]|\*|[^*\\]+|\\", pattern):
        if piece == "*":
            parts.append("")
        else:
            parts[-1] += piece[1:] if piece in (r"\*", r"\\") else piece
    return tuple(parts)
