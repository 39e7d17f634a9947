"""YAML as people write manifests, read with the place of everything: errors say file, line and column.

Composed by ruamel.yaml, resolved here, because scalars must mean what kubectl takes them for: YAML 1.1's octal numbers
and booleans (`0644`, `yes`), but times and sexagesimals (`2024-01-01`, `22:30`) stay text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLStreamError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

BOOLS = {**dict.fromkeys(("true", "yes", "on"), True), **dict.fromkeys(("false", "no", "off"), False)}
NULLS = ("", "~", "null", "Null", "NULL")
_INT = re.compile(r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
TAG = "tag:yaml.org,2002:"
Path = tuple[str | int, ...]


class YamlError(Exception):
    """`web.yaml:3:7: mapping values are not allowed here`"""


class Document(NamedTuple):
    """A value and where its parts stand: path -> (line, column), both from 1."""

    value: Any
    places: dict[Path, tuple[int, int]]


def load(text: str, source: str) -> Any:
    """The one document of a text; None if it is empty."""
    documents = list(load_all(text, source))
    if len(documents) > 1:
        raise YamlError(f"{source}: one document is expected, there are {len(documents)}")
    return documents[0].value if documents else None


def load_all(text: str, source: str) -> Iterator[Document]:
    """The documents of a text that are not empty."""
    try:
        for node in YAML(typ="safe", pure=True).compose_all(text):
            if node is not None and not _is_empty(node):
                maker = _Maker(source)
                yield Document(maker.value(node, ()), maker.places)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = " ".join(str(part) for part in (error.problem, error.context) if part)
        raise YamlError(f"{source}{where}: {problem}") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise YamlError(f"{source}:{line}:{column}: the character {error.character!r} is not allowed") from None
    except YAMLStreamError as error:
        raise YamlError(f"{source}: {error}") from None
    except RecursionError:
        raise YamlError(f"{source}: nested too deeply") from None


def _is_empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.style is None and node.value in NULLS


class _Maker:
    """Makes values of nodes, refusing doubled keys and aliases that contain themselves."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._open: set[int] = set()
        self.places: dict[Path, tuple[int, int]] = {}

    def value(self, node: Node, path: Path) -> Any:
        self.places.setdefault(path, _place(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise self._error(node, "this alias contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, MappingNode)
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, inner in node.value:
            if isinstance(key_node, ScalarNode) and key_node.value == "<<" and key_node.style is None:
                for source in inner.value if isinstance(inner, SequenceNode) else [inner]:
                    if not isinstance(source, MappingNode):
                        raise self._error(inner, "<< merges mappings only")
                    merged = {**self.value(source, path), **merged}
                continue
            key = self._key(key_node)
            if key in made:
                raise self._error(key_node, f'duplicate key "{key}"')
            self.places[*path, key] = _place(key_node)
            made[key] = self.value(inner, (*path, key))
        return {**merged, **made} if merged else made

    def _key(self, node: Node) -> str:
        if not isinstance(node, ScalarNode):
            raise self._error(node, "a key must be a string")
        value = self._scalar(node)
        if isinstance(value, str):
            return value
        return str(node.value)  # `1: a`, `on: b`: keys of JSON are strings

    def _scalar(self, node: ScalarNode) -> Any:
        text: str = node.value
        tag = str(node.tag or "")
        explicit = tag.removeprefix(TAG)
        if explicit == "binary":
            return "".join(text.split())
        written = node.end_mark.index - node.start_mark.index != len(text)  # then there is more than the text: a tag
        if node.style is not None or (explicit == "str" and written):
            return text
        return resolve(text)

    def _error(self, node: Node, problem: str) -> YamlError:
        line, column = _place(node)
        return YamlError(f"{self._source}:{line}:{column}: {problem}")


def _place(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def resolve(text: str) -> Any:
    """What a plain scalar means."""
    if text in NULLS:
        return None
    if text.lower() in BOOLS and text in (text.lower(), text.upper(), text.capitalize()):
        return BOOLS[text.lower()]
    if _INT.fullmatch(text):
        digits = text.replace("_", "").lower()
        body = digits.lstrip("+-")
        if len(body) > 1 and body[0] == "0" and body[1].isdigit():
            digits = digits.replace(body, f"0o{body[1:]}")
        return int(digits, 0)
    if _FLOAT.fullmatch(text) and any(c.isdigit() for c in text):
        return float(text)
    return text
