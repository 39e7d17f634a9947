"""Which function a request is for, and which of its revisions: pure.

`/function/NAMESPACE/NAME/rest` leads to a function under its own name; Triggers give functions further paths, exact
ones or all below one (`/shop/*`). Of two Triggers that want the same, the older has it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

PREFIX = "/function/"


class Rule(NamedTuple):
    """An HTTP Trigger. `method` "" is any; `created` orders them (RFC 3339)."""

    namespace: str
    name: str
    function: str
    method: str
    path: str
    created: str

    @property
    def age(self) -> tuple[str, str, str]:
        return self.created, self.namespace, self.name


class Routes:
    """All HTTP Triggers, compiled."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.losers: dict[Rule, Rule] = {}  # those that have no effect -> the older one that has their place
        places: dict[str, dict[str, Rule]] = {}
        for rule in sorted(rules, key=lambda rule: rule.age):
            taken = places.setdefault(rule.path, {}).setdefault(rule.method.upper(), rule)
            if taken is not rule:
                self.losers[rule] = taken
        self._exact = {path: rules for path, rules in places.items() if not path.endswith("/*")}
        below = [(path[:-1], rules) for path, rules in places.items() if path.endswith("/*")]
        self._below = sorted(below, key=lambda place: -len(place[0]))

    def find(self, method: str, path: str) -> tuple[Rule | None, Sequence[str]]:
        """The rule for a request; if there is none but for other methods, those."""
        allowed: list[str] = []
        for rules in self._places(path):
            rule = rules.get(method) or rules.get("")
            if rule is not None:
                return rule, ()
            allowed += [each for each in rules if each not in allowed]
        return None, allowed

    def _places(self, path: str) -> Iterable[dict[str, Rule]]:
        """From the most exact to the most general."""
        if path in self._exact:
            yield self._exact[path]
        for start, rules in self._below:
            if path.startswith(start) or path == start[:-1]:
                yield rules


def direct(path: str) -> tuple[str, str, str] | None:
    """(namespace, name, path for the function) of `/function/NAMESPACE/NAME[/rest]`; None for any other path."""
    if not path.startswith(PREFIX):
        return None
    namespace, _, rest = path[len(PREFIX) :].partition("/")
    name, slash, rest = rest.partition("/")
    return (namespace, name, "/" + rest if slash else "/") if namespace and name else None


def chosen(shares: Sequence[tuple[str, int]], draw: float) -> str:
    """The revision for a request by its shares in percent; `draw` is from [0, 1). "" if there is no share at all."""
    left = draw * sum(percent for _, percent in shares)
    for revision, percent in shares:
        left -= percent
        if left < 0:
            return revision
    return ""


def alike(name: str, names: Iterable[str]) -> str:
    """How a message about an unknown name ends: `; did you mean "hello"?`, or ""."""
    near = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(repr(each) for each in near)}?" if near else ""


def crowded(busy: int, *, replicas: int, concurrency: int, queue: int) -> bool:
    """Whether a function with `busy` requests, held ones included, has no room for one more."""
    return busy >= replicas * concurrency + queue


MAX_DEPTH = 32  # functions in one chain of Invokes


def hop_refused(chain: Sequence[str], target: str, declared: Sequence[str]) -> str:
    """Why the last function of `chain` may not hand over to `target`; "" if it may. Names are of one namespace."""
    if target not in declared:
        return f"{chain[-1]} does not declare in spec.invokes that it invokes {target}"
    if target in chain:
        return f"a cycle: {' -> '.join([*chain, target])}"
    if len(chain) >= MAX_DEPTH:
        return f"more than {MAX_DEPTH} functions in a chain: {' -> '.join([*chain[:3], '…', target])}"
    return ""
