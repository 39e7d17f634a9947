"""The two patches of RFCs: JSON patch (6902) and merge patch (7386).

Pure functions: inputs are left as they were, and the result shares nothing with them. A patch that is malformed is a
BadRequest; one that is well formed but does not fit the object (a failed `test`, a missing path) is Invalid.
"""

from __future__ import annotations

from typing import Any

import msgspec

from minik8s.api.errors import BadRequest, Invalid, RequestEntityTooLarge, invalid

Json = dict[str, Any]
MAX_OPERATIONS = 10_000  # Kubernetes' own limit
MAX_COPIED = 3 * 1024 * 1024  # bytes of JSON that one patch's copies may add: else a few lines double into gigabytes
_NEEDS = {
    "add": ("path", "value"), "remove": ("path",), "replace": ("path", "value"), "test": ("path", "value"),
    "move": ("path", "from"), "copy": ("path", "from"),
}  # fmt: skip


def duplicated(value: Any) -> Any:
    """A deep copy of a JSON value."""
    return msgspec.json.decode(msgspec.json.encode(value))


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values: 1 equals 1.0, but not true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def merge_patch(doc: Json, patch: Any) -> Json:
    """RFC 7386: objects merge, null deletes, everything else replaces."""
    if not isinstance(patch, dict):
        raise BadRequest("a merge patch must be an object")
    try:
        return _merged(duplicated(doc), duplicated(patch))
    except RecursionError:
        raise BadRequest("the patch is nested too deeply") from None


def _merged(doc: Any, patch: Json) -> Json:
    target: Json = doc if isinstance(doc, dict) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = _merged(target.get(key), value) if isinstance(value, dict) else value
    return target


class _Misfit(Exception):
    """A well-formed operation that does not fit the document."""


def json_patch(doc: Json, ops: Any) -> Json:
    """RFC 6902: the operations in turn, all or nothing; errors name the operation by index and its path."""
    if not isinstance(ops, list):
        raise BadRequest("a JSON patch must be an array of operations")
    if len(ops) > MAX_OPERATIONS:
        raise RequestEntityTooLarge(f"a JSON patch may have {MAX_OPERATIONS} operations, this one has {len(ops)}")
    steps = [_parse(index, op) for index, op in enumerate(ops)]
    try:
        patch = _JsonPatch({"": duplicated(doc)})
        for index, (op, path, source, value) in enumerate(steps):
            try:
                patch.apply(op, path, source, value)
            except _Misfit as misfit:
                cause = invalid(f"patch[{index}]", _pointer(path), f"{op}: {misfit}")
                name = (doc.get("metadata") or {}).get("name", "")
                raise Invalid(str(doc.get("kind", "")), str(name), [cause]) from None
    except RecursionError:
        raise BadRequest("the patch is nested too deeply") from None
    if not isinstance(result := patch.root[""], dict):
        raise BadRequest("a JSON patch must leave an object")
    return result


Step = tuple[str, list[str], list[str], Any]


def _parse(index: int, op: Any) -> Step:
    """(operation, path, from, value), each path as its unescaped steps."""
    kind = op.get("op") if isinstance(op, dict) else None
    needs = _NEEDS.get(kind) if isinstance(kind, str) else None
    if needs is None or not isinstance(kind, str):
        raise BadRequest(f"patch[{index}].op: must be one of {', '.join(_NEEDS)}")
    for field in needs:
        if field not in op:
            raise BadRequest(f"patch[{index}].{field}: {kind} needs it")
    source = _steps(index, "from", op["from"]) if "from" in needs else []
    return kind, _steps(index, "path", op["path"]), source, op.get("value")


def _steps(index: int, field: str, pointer: Any) -> list[str]:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise BadRequest(f"patch[{index}].{field}: must be a JSON pointer such as /metadata/labels/a~1b")
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")]


def _pointer(steps: list[str]) -> str:
    return "/".join(step.replace("~", "~0").replace("/", "~1") for step in steps)


class _JsonPatch:
    """The document as it changes, held under the key "" of `root`, so that a pointer's first step finds it too."""

    def __init__(self, root: Json) -> None:
        self.root = root
        self.copied = 0

    def apply(self, op: str, path: list[str], source: list[str], value: Any) -> None:
        match op:
            case "add":
                self.add(path, duplicated(value))
            case "remove":
                self.remove(path)
            case "replace":
                self.replace(path, duplicated(value))
            case "test":
                self.test(path, value)
            case "move" if path[: len(source)] == source and path != source:
                raise _Misfit(f"{_pointer(source)} cannot move into itself")
            case "move":
                self.add(path, self.remove(source)) if path != source else self.get(source)
            case "copy":
                encoded = msgspec.json.encode(self.get(source))
                self.copied += len(encoded)
                if self.copied > MAX_COPIED:
                    raise RequestEntityTooLarge(f"a JSON patch may copy {MAX_COPIED} bytes")
                self.add(path, msgspec.json.decode(encoded))

    def parent(self, path: list[str]) -> Any:
        at: Any = self.root
        for depth, step in enumerate(path[:-1]):
            try:
                at = at[_index(at, step)] if isinstance(at, list) else at[step]
            except (KeyError, TypeError, IndexError):
                raise _Misfit(f"there is no {_pointer(path[: depth + 1])}") from None
        if not isinstance(at, dict | list):
            raise _Misfit(f"{_pointer(path[:-1])} is neither an object nor an array")
        return at

    def get(self, path: list[str]) -> Any:
        at, last = self.parent(path), path[-1]
        if isinstance(at, list):
            return at[_index(at, last)]
        if last not in at:
            raise _Misfit(f"there is no {_pointer(path)}")
        return at[last]

    def add(self, path: list[str], value: Any) -> None:
        at, last = self.parent(path), path[-1]
        if isinstance(at, list):
            at.insert(len(at) if last == "-" else _index(at, last, end=1), value)
        else:
            at[last] = value

    def replace(self, path: list[str], value: Any) -> None:
        self.get(path)
        at, last = self.parent(path), path[-1]
        at[_index(at, last) if isinstance(at, list) else last] = value

    def remove(self, path: list[str]) -> Any:
        if len(path) == 1:
            raise _Misfit("the whole document cannot be removed")
        value = self.get(path)
        at, last = self.parent(path), path[-1]
        del at[_index(at, last) if isinstance(at, list) else last]
        return value

    def test(self, path: list[str], value: Any) -> None:
        """As API servers have it, a missing path equals null."""
        try:
            found = self.get(path)
        except _Misfit:
            if value is None:
                return
            raise
        if not same(found, value):
            raise _Misfit(f"the value is {_short(found)}, not {_short(value)}")


def _index(at: list[Any], step: str, *, end: int = 0) -> int:
    if not (step.isascii() and step.isdigit()) or (len(step) > 1 and step[0] == "0"):
        raise _Misfit(f"{step!r} is not an index of an array")
    if len(step) > 9 or int(step) >= len(at) + end:
        raise _Misfit(f"the array has {len(at)} items, so there is no {step}")
    return int(step)


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 100 else text[:97] + "..."
