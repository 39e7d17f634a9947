"""kubectl's JSONPath templates: `{.items[*].metadata.name}`, `{range .items[*]}…{"\\n"}{end}`, filters, slices, `..`.

A template is compiled to a list of pieces and then run over a value; what is absent prints nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Step = Callable[[list[Any]], list[Any]]


class JsonPathError(ValueError):
    """The template is malformed; says where."""


def render(template: str, value: Any) -> str:
    """The text that a template makes of a value."""
    pieces = _parse(template)
    return "".join(_run(pieces, value, value))


def find(path: str, value: Any) -> list[Any]:
    """The values at a path: `.status.phase`, `{.status.phase}` or `status.phase`."""
    path = path.strip()
    if path.startswith("{") and path.endswith("}"):
        path = path[1:-1]
    return compile_path(relaxed(path))(value)


def relaxed(path: str) -> str:
    """`metadata.name` is taken for `.metadata.name`."""
    return path if path.startswith((".", "[", "$", "@")) else f".{path}"


def as_template(text: str) -> str:
    """What -o jsonpath takes: a template, or a bare path."""
    return text if "{" in text else f"{{{relaxed(text)}}}"


# -- templates


def _parse(template: str) -> list[Any]:
    """Pieces: text, a path (callable), or (path, pieces) of a range."""
    stack: list[list[Any]] = [[]]
    ranges: list[Any] = []
    at = 0
    while at < len(template):
        if template[at] != "{":
            end = template.find("{", at)
            end = len(template) if end < 0 else end
            stack[-1].append(template[at:end])
            at = end
            continue
        end = _closing(template, at)
        inner = template[at + 1 : end].strip()
        at = end + 1
        if inner.startswith("range "):
            ranges.append(compile_path(inner[6:].strip()))
            stack.append([])
        elif inner == "end":
            if not ranges:
                raise JsonPathError("{end} without {range}")
            body = stack.pop()
            stack[-1].append((ranges.pop(), body))
        elif inner[:1] in ("'", '"'):
            stack[-1].append(_unquote(inner))
        else:
            stack[-1].append(compile_path(relaxed(inner)))
    if ranges:
        raise JsonPathError("{range} without {end}")
    return stack[0]


def _closing(template: str, start: int) -> int:
    quote = ""
    for at in range(start + 1, len(template)):
        c = template[at]
        if quote:
            quote = "" if c == quote and template[at - 1] != "\\" else quote
        elif c in "'\"":
            quote = c
        elif c == "}":
            return at
    raise JsonPathError(f'unclosed action in "{template[start:]}"')


def _run(pieces: Sequence[Any], value: Any, root: Any) -> Iterator[str]:
    for piece in pieces:
        if isinstance(piece, str):
            yield piece
        elif isinstance(piece, tuple):
            path, body = piece
            for item in path(value, root):
                yield from _run(body, item, root)
        else:
            yield " ".join(text_of(found) for found in piece(value, root))


def text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


# -- paths

_TOKEN = re.compile(
    r"""\s*(?:(?P<deep>\.\.)|\.?(?P<bracket>\[)|\.(?P<field>(?:\\.|[^.\[\]\\\s()=<>!,'"])+)|(?P<dot>\.)|(?P<root>[$@]))"""
)


def compile_path(text: str) -> Callable[..., list[Any]]:
    """`path(value, root=value)` is the list of what is at the path."""
    text = text.strip()
    steps: list[Step] = []
    at = 0
    rooted = text.startswith("$")
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise JsonPathError(f'unexpected "{text[at:]}" in the path "{text}"')
        at = token.end()
        if token["deep"]:
            field = re.compile(r"[^.\[\]\s]+").match(text, at)
            steps.append(_descend)
            if field:
                steps.append(_field(field[0]))
                at = field.end()
        elif token["bracket"]:
            end = _bracket(text, at)
            steps.append(_subscript(text[at:end].strip()))
            at = end + 1
        elif token["field"]:
            steps.append(_field(token["field"].replace("\\", "")))

    def follow(value: Any, root: Any = None) -> list[Any]:
        found = [root if rooted and root is not None else value]
        for step in steps:
            found = step(found)
        return found

    return follow


def _bracket(text: str, start: int) -> int:
    depth, quote = 0, ""
    for at in range(start, len(text)):
        c = text[at]
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c == "[":
            depth += 1
        elif c == "]":
            if not depth:
                return at
            depth -= 1
    raise JsonPathError(f'unclosed "[" in the path "{text}"')


def _field(name: str) -> Step:
    if name == "*":
        return _children
    return lambda found: [value[name] for value in found if isinstance(value, dict) and name in value]


def _children(found: list[Any]) -> list[Any]:
    return [
        inner
        for value in found
        for inner in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    ]


def _descend(found: list[Any]) -> list[Any]:
    every: list[Any] = []
    for value in found:
        every.append(value)
        every += _descend(_children([value]))
    return every


def _subscript(text: str) -> Step:
    if text == "*":
        return _children
    if text.startswith("?"):
        return _filter(text[1:].strip())
    if text[:1] in ("'", '"'):
        names = [_unquote(part.strip()) for part in _split(text)]
        return lambda found: [v[n] for v in found for n in names if isinstance(v, dict) and n in v]
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"-?\d+|(-?\d*):(-?\d*)(:-?\d*)?", part) for part in parts):
        raise JsonPathError(f'"[{text}]" is no index, slice, name or filter')
    return lambda found: [
        item for value in found if isinstance(value, list) for part in parts for item in _slice(value, part)
    ]


def _slice(value: list[Any], part: str) -> list[Any]:
    if ":" in part:
        return value[slice(*(int(n) if n else None for n in part.split(":")))]
    index = int(part)
    return [value[index]] if -len(value) <= index < len(value) else []


def _split(text: str) -> list[str]:
    return re.findall(r"'[^']*'|\"[^\"]*\"", text)


_COMPARISON = re.compile(r"""\((?P<left>.+?)\s*(?P<op>==|!=|<=|>=|<|>)\s*(?P<right>.+)\)""")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


def _filter(text: str) -> Step:
    comparison = _COMPARISON.fullmatch(text)
    if comparison is None:
        exists = compile_path(text.removeprefix("(").removesuffix(")"))
        return lambda found: [item for value in found if isinstance(value, list) for item in value if exists(item)]
    left, right = _operand(comparison["left"]), _operand(comparison["right"])
    compare = _COMPARE[comparison["op"]]

    def holds(item: Any) -> bool:
        a, b = left(item), right(item)
        try:
            return bool(a) and bool(b) and compare(a[0], b[0])
        except TypeError:
            return False

    return lambda found: [item for value in found if isinstance(value, list) for item in value if holds(item)]


def _operand(text: str) -> Callable[[Any], list[Any]]:
    text = text.strip()
    if text[:1] in "@$.":
        return compile_path(text)
    if text[:1] in ("'", '"'):
        literal: Any = _unquote(text)
    else:
        try:
            literal = json.loads(text)
        except ValueError:
            raise JsonPathError(f'"{text}" is neither a path nor a value') from None
    return lambda item: [literal]


def _unquote(text: str) -> str:
    if len(text) < 2 or text[-1] != text[0]:
        raise JsonPathError(f"unclosed quote: {text}")
    body = text[1:-1]
    escapes = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
    return re.sub(r"\\(.)", lambda m: escapes.get(m[1], m[1]), body)
