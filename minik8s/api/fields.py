"""Field selectors: `metadata.name=web,spec.nodeName!=n1`; only `=`, `==` and `!=`; `\\` escapes `,`, `=` and itself."""

from __future__ import annotations

import re
from typing import NamedTuple

from minik8s.api.errors import BadRequest

_PLAIN = r"((?:[^\\,=!]|\\[\\,=])*)"
_TERM = re.compile(rf"{_PLAIN}(==|=|!=)((?:[^\\,=]|\\[\\,=])*)(?:,|$)")
_ESCAPED = re.compile(r"\\([\\,=])")


class Term(NamedTuple):
    field: str
    equal: bool
    value: str


def parse(text: str) -> tuple[Term, ...]:
    """The terms of a `fieldSelector` parameter; "" has none. BadRequest names the place that is wrong."""
    terms: list[Term] = []
    at = 0
    while at < len(text):
        term = _TERM.match(text, at)
        if term is None:
            raise BadRequest(f'unable to parse the field selector "{text}": unexpected "{text[at:][:40]}"')
        terms.append(Term(term[1].strip(), term[2] != "!=", _ESCAPED.sub(r"\1", term[3])))
        at = term.end()
    return tuple(terms)
