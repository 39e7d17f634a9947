"""Paths into JSON: what a state reads (JSONPath) and where it may write (Reference Paths). Pure.

A path that names one place, `$.order.items[0]`, is walked by hand: nearly all are of this sort. Any other is a query
of RFC 9535, for which there is a library; it is imported when the first one comes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from minik8s.faas.workflow.errors import RESULT_PATH_MATCH_FAILURE, RUNTIME, StateError

if TYPE_CHECKING:
    import jsonpath

Step = str | int
DESCENTS = 2  # of a query: each multiplies the steps that it takes by the depth of the data

_STEP = re.compile(
    r"""\.(?P<name>[^\W\d][\w-]*)
      | \[(?P<index>-?\d{1,9})\]
      | \['(?P<single>(?:[^'\\]|\\.)*)'\]
      | \["(?P<double>(?:[^"\\]|\\.)*)"\]""",
    re.VERBOSE,
)


class InvalidPath(ValueError):
    """The text is no path; says where it is wrong."""


class Path(NamedTuple):
    """`steps` from the root if the path names one place; otherwise `query` finds any number of values."""

    text: str
    steps: tuple[Step, ...] | None
    query: Callable[[Any], list[Any]] | None = None


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Path:
    """`$`, `$.a.b[0]`, `$..price`, `$.items[?@.n > 3].name`; raises InvalidPath."""
    steps = _steps(text)
    if steps is not None:
        return Path(text, steps)
    if text.count("..") > DESCENTS:
        raise InvalidPath(f"{text!r} has more than {DESCENTS} '..': that could take for ever")
    import jsonpath

    try:
        compiled = _queries().compile(text)
    except (jsonpath.JSONPathError, ArithmeticError, LookupError, RecursionError, ValueError) as error:
        # The others are what the library makes of numbers as long or as odd as nobody writes them.
        raise InvalidPath(f"{text!r} is no JSONPath: {str(error).splitlines()[0]}") from None

    def find(data: Any) -> list[Any]:
        if not isinstance(data, dict | list):  # the library would take a string for the text of a document
            return []
        try:
            return compiled.findall(data)
        except jsonpath.JSONPathError as error:
            raise StateError(RUNTIME, f"the path {text}: {str(error).splitlines()[0]}") from None

    return Path(text, None, find)


@functools.cache
def _queries() -> jsonpath.JSONPathEnvironment:
    """RFC 9535 but for regular expressions: one may take for ever, and all runs with it."""
    import jsonpath

    environment = jsonpath.JSONPathEnvironment(strict=True)
    for name in ("match", "search"):
        del environment.function_extensions[name]
    return environment


def reference(text: str) -> tuple[Step, ...]:
    """The steps of a Reference Path, which names one place; raises InvalidPath for all others."""
    steps = _steps(text)
    if steps is None or any(isinstance(step, int) and step < 0 for step in steps):
        raise InvalidPath(f"{text!r} is no Reference Path: it must name one place, such as $.order.items[0]")
    return steps


def _steps(text: str) -> tuple[Step, ...] | None:
    if not text.startswith("$"):
        raise InvalidPath(f"{text!r} is no path: it must begin with $")
    found: list[Step] = []
    at = 1
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            return None
        if match["name"] is not None:
            found.append(match["name"])
        elif match["index"] is not None:
            found.append(int(match["index"]))
        else:
            quoted = match["single"] if match["single"] is not None else match["double"]
            found.append(re.sub(r"\\(.)", r"\1", quoted))
        at = match.end()
    return tuple(found)


def read(path: Path, data: Any) -> Any:
    """The value at a place, or the list of all values that a query finds. StateError if there is no such place."""
    if path.steps is None:
        assert path.query is not None
        return path.query(data)
    for step in path.steps:
        try:
            if isinstance(data, dict) is isinstance(step, int):
                raise KeyError(step)
            data = data[step]
        except (KeyError, IndexError, TypeError):
            raise StateError(RUNTIME, f"the path {path.text} leads to nothing in the input") from None
    return data


def exists(path: Path, data: Any) -> bool:
    """Whether the path leads to anything."""
    try:
        found = read(path, data)
    except StateError:
        return False
    return path.steps is not None or bool(found)


def put(steps: tuple[Step, ...], data: Any, value: Any) -> Any:
    """`data` with `value` at a place; maps on the way are made. What was there is copied, never changed.

    StateError where an element of a list that is not there, or something inside a scalar, would have to be written.
    """
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(step, int):
        if not isinstance(data, list) or step >= len(data):
            raise StateError(RESULT_PATH_MATCH_FAILURE, f"there is no element {step} to be replaced by the result")
        return [*data[:step], put(rest, data[step], value), *data[step + 1 :]]
    if not isinstance(data, dict):
        raise StateError(RESULT_PATH_MATCH_FAILURE, f"the result cannot be put at {step!r}: that is in no object")
    return {**data, step: put(rest, data.get(step, {}), value)}
