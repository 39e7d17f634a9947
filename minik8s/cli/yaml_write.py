"""JSON values as YAML text, in the form that kubectl prints: two spaces, lists at their key's column, `|` for lines.

Written here since printing must not cost an import; whatever could be read as something else is quoted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# Plain scalars: begin harmlessly, and hold neither `: ` nor ` #` nor what ends a flow.
_PLAIN = re.compile(
    r"[A-Za-z0-9_/$(^;<+~\\]([^\x00-\x1f\x7f-\xa0\ud800-\udfff\ufeff\u2028\u2029]*[^\x00-\x20\x7f-\xa0:\ud800-\udfff\ufeff\u2028\u2029])?"
)
_WORDS = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n", "~", ".nan", ".inf", "<<", "="))
# What some YAML reader takes for a number or a time: `1_000`, `0x1f`, `1e3`, `22:30`, `2024-01-01T10:00:00Z`.
_NUMBER = re.compile(
    r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-f_]+|([0-9]|(?<=[-+])_)[0-9_]*(\.[0-9_]*)?(e[-+]?[0-9]+)?|\.[0-9_]+(e[-+]?[0-9]+)?|\.inf)"
    r"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|\.nan|\d{4}-\d\d?-\d\d?([Tt\s].*)?",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\u2028\u2029\ud800-\udfff\t]+")


def to_yaml(value: Any) -> str:
    """A document, ending in a newline."""
    if isinstance(value, dict | list) and value:
        return "".join(f"{line}\n" for line in _lines(value, ""))
    return f"{_scalar(value)}\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _entry(f"{indent}{_scalar(str(key))}:", inner, indent, f"{indent}  ")
    else:
        for inner in value:
            yield from _item(inner, indent)


def _entry(head: str, inner: Any, indent: str, deeper: str) -> Iterator[str]:
    if isinstance(inner, dict) and inner:
        yield head
        yield from _lines(inner, deeper)
    elif isinstance(inner, list) and inner:
        yield head
        yield from _lines(inner, indent)
    elif isinstance(inner, str) and "\n" in inner and _fits_block(inner):
        yield from _block(head, inner, deeper)
    else:
        yield f"{head} {_scalar(inner)}"


def _item(inner: Any, indent: str) -> Iterator[str]:
    if isinstance(inner, dict | list) and inner:
        first, *rest = _lines(inner, f"{indent}  ")
        yield f"{indent}- {first[len(indent) + 2 :]}"
        yield from rest
    elif isinstance(inner, str) and "\n" in inner and _fits_block(inner):
        yield from _block(f"{indent}-", inner, f"{indent}  ")
    else:
        yield f"{indent}- {_scalar(inner)}"


def _fits_block(text: str) -> bool:
    lines = text.split("\n")
    return (
        bool(_BLOCK.fullmatch(text)) and lines[0][:1] not in (" ", "") and not any(line.endswith(" ") for line in lines)
    )


def _block(head: str, text: str, indent: str) -> Iterator[str]:
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    yield f"{head} |{'-' if ends == 0 else '' if ends == 1 else '+'}"
    for line in body.split("\n"):
        yield f"{indent}{line}" if line else ""
    yield from [""] * (ends - 1)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    return json.dumps(value)  # null, true, 1, 1.5, {} and []


def _text(value: str) -> str:
    plain = _PLAIN.fullmatch(value) and not value.endswith(" ") and " #" not in value and ": " not in value
    if plain and value.lower() not in _WORDS and not _NUMBER.fullmatch(value):
        return value
    ambiguous = value.lower() in _WORDS or _NUMBER.fullmatch(value)
    if not ambiguous and value and value.isascii() and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    quoted = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[\x7f-\x9f\ufeff\u2028\u2029\ud800-\udfff]", lambda c: f"\\u{ord(c[0]):04x}", quoted)
