"""Label selectors: the text form of URLs (`app=web,tier in (a,b),!old`) and the object form of specs, one meaning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from minik8s.api.errors import BadRequest
from minik8s.api.meta import LabelSelector

EQUALS, NOT_EQUALS, IN, NOT_IN, EXISTS, ABSENT, GREATER, LESS = "=", "!=", "in", "notin", "exists", "!", ">", "<"

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}"
_VALUE = rf"(?:{_NAME})?"
_TERM = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<gone>{_KEY})"
    rf"|(?P<key>{_KEY})\s*(?:(?P<op>==|=|!=|>|<)\s*(?P<value>{_VALUE})"
    rf"|\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)
_LABEL_VALUE = re.compile(_VALUE)
_WORDS = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": ABSENT}


class Requirement(NamedTuple):
    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it. What says no (`!=`, `notin`) is met by an absent label, as in Kubernetes."""
        value = labels.get(self.key)
        match self.operator:
            case "=" | "in":
                return value in self.values
            case "!=" | "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        return value is not None and _compare(self.operator, value, next(iter(self.values)))


def parse(text: str) -> tuple[Requirement, ...]:
    """The requirements of a `labelSelector` parameter; "" has none. BadRequest names the place that is wrong."""
    found: list[Requirement] = []
    at = 0
    while at < len(text):
        term = _TERM.match(text, at)
        if term is None or term.end() == at:
            raise BadRequest(f'unable to parse the label selector "{text}": unexpected "{text[at:][:40]}"')
        found.append(_requirement(term, text))
        at = term.end()
    if text.rstrip().endswith(","):
        raise BadRequest(f'unable to parse the label selector "{text}": it ends with a comma')
    return tuple(found)


def _requirement(term: re.Match[str], text: str) -> Requirement:
    if term["absent"]:
        return Requirement(term["gone"], ABSENT)
    if term["op"] in (GREATER, LESS):
        if not term["value"].isdigit():
            raise BadRequest(f'unable to parse the label selector "{text}": {term["op"]} needs an integer')
        return Requirement(term["key"], term["op"], frozenset((term["value"],)))
    if term["op"]:
        return Requirement(term["key"], NOT_EQUALS if term["op"] == "!=" else EQUALS, frozenset((term["value"],)))
    if term["set"]:
        values = frozenset(value.strip() for value in term["values"].split(","))
        if wrong := next((value for value in values if not _LABEL_VALUE.fullmatch(value)), None):
            raise BadRequest(f'unable to parse the label selector "{text}": "{wrong}" cannot be the value of a label')
        return Requirement(term["key"], term["set"], values)
    return Requirement(term["key"], EXISTS)


def matches(requirements: Iterable[Requirement], labels: Mapping[str, str]) -> bool:
    return all(requirement.holds(labels) for requirement in requirements)


def requirements(selector: LabelSelector | None) -> tuple[Requirement, ...] | None:
    """The requirements of a spec's selector; None (select nothing) for no selector."""
    if selector is None:
        return None
    exact = [Requirement(key, EQUALS, frozenset((value,))) for key, value in selector.matchLabels.items()]
    sets = [Requirement(e.key, _WORDS.get(e.operator, ""), frozenset(e.values)) for e in selector.matchExpressions]
    return (*exact, *sets)


def selects(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether a spec's selector selects an object with these labels."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in selector.matchLabels.items()):
        return False
    return not selector.matchExpressions or matches(requirements(selector) or (), labels)


def to_text(selector: LabelSelector) -> str:
    """The text form of a spec's selector, as `status.selector` of a Scale has it: `app=web,tier in (a,b)`."""
    parts = [f"{key}={value}" for key, value in sorted(selector.matchLabels.items())]
    for e in selector.matchExpressions:
        values = f" ({','.join(sorted(e.values))})"
        match e.operator:
            case "Exists":
                parts.append(e.key)
            case "DoesNotExist":
                parts.append("!" + e.key)
            case operator:
                parts.append(f"{e.key} {operator.lower()}{values}")
    return ",".join(parts)


def _compare(operator: str, value: str, than: str) -> bool:
    if not value.lstrip("-").isdigit():
        return False
    return int(value) > int(than) if operator == GREATER else int(value) < int(than)
