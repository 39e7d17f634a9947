"""What a state sees and leaves behind: input and output paths, payload templates, result paths. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from minik8s.faas.workflow import intrinsics, paths
from minik8s.faas.workflow.errors import DATA_LIMIT, INTRINSIC_FAILURE, PARAMETER_PATH_FAILURE, RUNTIME, StateError
from minik8s.faas.workflow.history import encoder

Json = dict[str, Any]

DEEPEST = 195  # levels of a run's output: the API takes objects of 200, and the output is inside of one
MAX_DATA = 262_144  # bytes of what a state is given or leaves, as JSON, as in Step Functions


class Scope(NamedTuple):
    """What expressions of a state may read: its data, the context object `$$`, and chance; made when asked for."""

    data: Any
    context: Callable[[], Mapping[str, Any]]
    rng: Callable[[], random.Random]

    def read(self, text: str) -> Any:
        """The value of a path, which begins with `$$` where the context object is meant."""
        if text.startswith("$$"):
            return paths.read(paths.parse(text[1:]), self.context())
        return paths.read(paths.parse(text), self.data)

    def value(self, text: str) -> Any:
        """The value of a path or of a call of an intrinsic function."""
        if text.startswith("$"):
            return self.read(text)
        return intrinsics.evaluate(intrinsics.parse(text), self.read, self.rng())

    def on(self, data: Any) -> Scope:
        return self._replace(data=data)


def bounded(value: Any, what: str) -> Any:
    """`value`, unless it is too large to go on with: a StateError."""
    size = len(encoder.encode(value))
    if size > MAX_DATA:
        raise StateError(DATA_LIMIT, f"{what} has {size} bytes; the limit is {MAX_DATA}")
    return value


def too_deep(value: Any) -> bool:
    """Whether arrays and objects are in one another more than DEEPEST times."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [inner for each in level if isinstance(each, dict | list)
                 for inner in (each.values() if isinstance(each, dict) else each)]  # fmt: skip
        if not level:
            return False
    return True


def filtered(state: Json, field: str, scope: Scope) -> Any:
    """`InputPath` or `OutputPath`: the part of the data that counts; null means an empty object."""
    path = state.get(field, "$")
    if path is None:
        return {}
    return scope.data if path == "$" else scope.read(path)


def built(template: Any, scope: Scope) -> Any:
    """A payload template: fields whose names end in `.$` are replaced by what their text stands for."""
    if isinstance(template, dict):
        made = {}
        for key, value in template.items():
            if key.endswith(".$"):
                made[key[:-2]] = _parameter(value, scope)
            else:
                made[key] = built(value, scope)
        return made
    if isinstance(template, list):
        return [built(each, scope) for each in template]
    return template


def _parameter(text: str, scope: Scope) -> Any:
    try:
        return scope.value(text)
    except StateError as error:
        if error.error == RUNTIME:
            raise StateError(PARAMETER_PATH_FAILURE, error.cause) from None
        if error.error == INTRINSIC_FAILURE:
            raise StateError(INTRINSIC_FAILURE, f"{text}: {error.cause}") from None
        raise


def joined(state: Json, raw: Any, result: Any) -> Any:
    """`ResultPath`: where in the state's raw input the result is put; null drops it, `$` lets it replace all."""
    path = state.get("ResultPath", "$")
    if path is None:
        return raw
    return result if path == "$" else paths.put(paths.reference(path), raw, result)
