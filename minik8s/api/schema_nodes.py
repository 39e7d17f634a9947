"""The compiled form of a schema: a tree of nodes that judge plain JSON quickly and explain slowly.

Every node has `fits(value)`, a closure over precomputed tables that says whether the whole value is as it should be:
right types, nothing unknown, nothing null, nothing required missing. Nearly all objects fit, so that question is asked
first; only for one that does not, `prune` and `check` walk it once more (in time linear in its size, whatever it is),
building paths and messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from minik8s.api.errors import Cause, invalid, required
from minik8s.api.quantity import canonical

_CONTAINERS = (dict, list)  # only these can have something to prune
QUANTITY = "must be a quantity, e.g. 500m or 1Gi"
Fits = Callable[[Any], bool]
Rule = Callable[[Any, str], Iterable[Cause]]  # (value, path) -> what is wrong with a value of the right type


def mistyped(path: str, value: object, detail: str) -> Cause:
    return invalid(path or "<root>", value, detail)._replace(reason="FieldValueTypeInvalid")


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


class Node:
    """What a value at one place must be. `zero` makes what Go decodes null to inside lists and maps (None: nothing)."""

    __slots__ = ("fits", "nullable", "plain", "rules", "zero")

    def __init__(self, fits: Fits, zero: Callable[[], Any] | None = None) -> None:
        self.fits = fits
        self.zero = zero
        self.plain: type[Any] | None = None  # set where `type(value) is plain` is all there is to check
        self.nullable = False
        self.rules: tuple[Rule, ...] = ()

    def allow_null(self) -> None:
        inner = self.fits
        self.fits, self.plain, self.nullable = (lambda value: value is None or inner(value)), None, True

    def add_rules(self, rules: tuple[Rule, ...]) -> None:
        inner = self.fits
        self.fits = lambda value: inner(value) and not any(True for rule in rules for _ in rule(value, ""))
        self.plain, self.rules = None, rules

    def prune(self, value: Any, path: str, unknown: list[str]) -> None:
        """Remove unknown and null fields below, and keep what is there as `written`, in place."""

    def written(self, value: Any) -> Any:
        """What a value that contains no others is kept as."""
        return value

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        if value is None and self.nullable:
            return
        before = len(causes)
        self._explain(value, path, causes)
        if len(causes) == before and self.rules:
            causes += [cause for rule in self.rules for cause in rule(value, path)]

    def fill(self, value: Any) -> None:
        """Put defaults where fields are absent, in place."""

    def has_defaults(self) -> bool:
        return False

    def _explain(self, value: Any, path: str, causes: list[Cause]) -> None:
        """Add what is wrong with the value's type, form and content; `rules` come after it."""


class Anything(Node):
    """Free form: kept whole, whatever it is."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(lambda value: True)


class Scalar(Node):
    """A value of one of `types` (exactly: a boolean is no integer) that passes `test`, when there is one."""

    __slots__ = ("detail", "test", "types", "wants")

    def __init__(self, types: tuple[type[Any], ...], wants: str, test: Fits | None = None, detail: str = "") -> None:
        self.types, self.wants, self.test, self.detail = types, wants, test, detail
        only = types[0]
        if len(types) > 1:
            kinds = frozenset(types)
            super().__init__(lambda value: type(value) in kinds and (test is None or test(value)))
        elif test is None:
            super().__init__(lambda value: type(value) is only)
            self.plain = only
        else:
            super().__init__(lambda value: type(value) is only and test(value))

    def _explain(self, value: Any, path: str, causes: list[Cause]) -> None:
        if type(value) not in self.types:
            causes.append(mistyped(path, value, self.wants))
        elif self.test is not None and not self.test(value):
            causes.append(invalid(path, value, self.detail))


class QuantityNode(Scalar):
    """A quantity, which fits as Kubernetes writes it: `500m`, not `0.5`. What is none is left to the kinds' own checks,
    which say more."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__((str, int, float), QUANTITY)
        self.zero = lambda: "0"
        self.fits = lambda value: type(value) in self.types and self.written(value) == value

    def written(self, value: Any) -> Any:
        try:
            return canonical(value)
        except ValueError:
            return value


class FreeObject(Node):
    """An object whose content is nobody's business (RawExtension, FieldsV1, x-kubernetes-preserve-unknown-fields)."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(lambda value: type(value) is dict, dict)

    def _explain(self, value: Any, path: str, causes: list[Cause]) -> None:
        if type(value) is not dict:
            causes.append(mistyped(path, value, "must be an object"))


class MapNode(Node):
    """An object with free keys and values of one kind, such as labels."""

    __slots__ = ("atomic", "item")

    def __init__(self, item: Node, *, atomic: bool = False) -> None:
        self.item, self.atomic = item, atomic
        super().__init__(_map_fits(item))

    def prune(self, value: Any, path: str, unknown: list[str]) -> None:
        if type(value) is not dict:
            return
        for key, inner in list(value.items()):
            if inner is None and not self.item.nullable:
                if self.item.zero:
                    value[key] = self.item.zero()
                else:
                    del value[key]
            elif type(inner) in _CONTAINERS:
                self.item.prune(inner, join(path, key), unknown)
            else:
                value[key] = self.item.written(inner)

    def _explain(self, value: Any, path: str, causes: list[Cause]) -> None:
        if type(value) is not dict:
            causes.append(mistyped(path, value, "must be an object"))
            return
        for key, inner in value.items():
            if inner is not None and type(inner) is not self.item.plain:
                self.item.check(inner, f"{path}[{key}]", causes)

    def fill(self, value: Any) -> None:
        if type(value) is dict:
            for inner in value.values():
                self.item.fill(inner)

    def has_defaults(self) -> bool:
        return self.item.has_defaults()


class ListNode(Node):
    """A list. `merge_key`/`strategy` are for strategic merge patch, `list_type`/`map_keys` for server-side apply."""

    __slots__ = ("item", "list_type", "map_keys", "merge_key", "strategy")

    def __init__(self, item: Node, marks: Mapping[str, Any]) -> None:
        self.item = item
        self.merge_key: str = marks.get("x-kubernetes-patch-merge-key", "")
        self.strategy: str = marks.get("x-kubernetes-patch-strategy", "")
        self.list_type: str = marks.get("x-kubernetes-list-type", "atomic")
        self.map_keys: tuple[str, ...] = tuple(marks.get("x-kubernetes-list-map-keys", ()))
        super().__init__(_list_fits(item))

    @property
    def merges(self) -> bool:
        return "merge" in self.strategy.split(",")

    def prune(self, value: Any, path: str, unknown: list[str]) -> None:
        if type(value) is not list:
            return
        for index, inner in enumerate(value):
            if inner is None and self.item.zero and not self.item.nullable:
                value[index] = self.item.zero()
            elif type(inner) in _CONTAINERS:
                self.item.prune(inner, f"{path}[{index}]", unknown)
            else:
                value[index] = self.item.written(inner)

    def _explain(self, value: Any, path: str, causes: list[Cause]) -> None:
        if type(value) is not list:
            causes.append(mistyped(path, value, "must be an array"))
            return
        for index, inner in enumerate(value):
            if type(inner) is not self.item.plain:
                self.item.check(inner, f"{path}[{index}]", causes)

    def fill(self, value: Any) -> None:
        if type(value) is list:
            for inner in value:
                self.item.fill(inner)

    def has_defaults(self) -> bool:
        return self.item.has_defaults()


class ObjectNode(Node):
    """An object with named fields. It is made empty and grows by `add`, so that a schema may contain itself.

    `open`: fields that are not named are kept. `replaced`: fields that a strategic merge patch replaces whole;
    `retained`: those whose other members it clears (patch strategy `retainKeys`).
    """

    __slots__ = (
        "_filled",
        "_leaves",
        "_nested",
        "atomic",
        "defaults",
        "fields",
        "open",
        "replaced",
        "required",
        "retained",
    )

    def __init__(self, required_fields: Iterable[str], *, open: bool = False, atomic: bool = False) -> None:
        self.required = frozenset(required_fields)
        self.open, self.atomic = open, atomic
        self.fields: dict[str, Node] = {}
        self.defaults: dict[str, bytes] = {}  # as JSON, so that each use is a fresh copy
        self.replaced: set[str] = set()
        self.retained: set[str] = set()
        self._leaves: dict[str, type[Any] | None] = {}
        self._nested: dict[str, Fits] = {}
        self._filled: list[tuple[str, Node]] = []
        super().__init__(_object_fits(self._leaves, self._nested, self.required, open=open), dict)

    def add(self, key: str, node: Node) -> None:
        self.fields[key] = node
        self._leaves[key] = node.plain
        self._nested[key] = node.fits

    def add_default(self, key: str, value: Any) -> None:
        self.defaults[key] = msgspec.json.encode(value)

    def seal_defaults(self) -> None:
        """Remember which fields have defaults somewhere below; to be called when all fields are there."""
        self._filled = [(key, node) for key, node in self.fields.items() if node.has_defaults()]

    def has_defaults(self) -> bool:
        return bool(self.defaults or self._filled)

    def fill(self, value: Any) -> None:
        if type(value) is not dict:
            return
        for key, default in self.defaults.items():
            if value.get(key) is None and not (key in value and self.fields[key].nullable):
                value[key] = msgspec.json.decode(default)
        for key, node in self._filled:
            if key in value:
                node.fill(value[key])

    def prune(self, value: Any, path: str, unknown: list[str]) -> None:
        if type(value) is not dict:
            return
        for key, inner in list(value.items()):
            node = self.fields.get(key)
            if node is None:
                if not self.open:
                    unknown.append(join(path, key))
                    del value[key]
            elif inner is None and not node.nullable:
                del value[key]
            elif type(inner) in _CONTAINERS:
                node.prune(inner, join(path, key), unknown)
            else:
                value[key] = node.written(inner)

    def _explain(self, value: Any, path: str, causes: list[Cause]) -> None:
        if type(value) is not dict:
            causes.append(mistyped(path, value, "must be an object"))
            return
        causes += [
            required(join(path, key))
            for key in sorted(self.required)
            if value.get(key) is None and not (key in value and self.nullable_field(key))
        ]
        for key, inner in value.items():
            node = self.fields.get(key)
            if node is not None and inner is not None and self._leaves[key] is not type(inner):
                node.check(inner, join(path, key), causes)

    def nullable_field(self, key: str) -> bool:
        return key in self.fields and self.fields[key].nullable


def _map_fits(item: Node) -> Fits:
    deep, plain = item.fits, item.plain

    def fits(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for inner in value.values():  # noqa: SIM110 - a plain loop is twice as fast as all() here
            if type(inner) is not plain and not deep(inner):
                return False
        return True

    return fits


def _list_fits(item: Node) -> Fits:
    deep, plain = item.fits, item.plain

    def fits(value: Any) -> bool:
        if type(value) is not list:
            return False
        for inner in value:  # noqa: SIM110
            if type(inner) is not plain and not deep(inner):
                return False
        return True

    return fits


def _object_fits(
    leaves: Mapping[str, type[Any] | None], nested: Mapping[str, Fits], wanted: frozenset[str], *, open: bool
) -> Fits:
    """`leaves` has every named field: its one type, or None where `nested` judges. Subscripts, since they are the
    fastest look-up that Python has; the KeyError of an unknown field is the rare case."""

    def fits(value: Any) -> bool:
        if type(value) is not dict:
            return False
        try:
            for key, inner in value.items():
                if leaves[key] is not type(inner) and not nested[key](inner):
                    return False
        except KeyError:
            return open and fits({key: inner for key, inner in value.items() if key in leaves})
        return not wanted or wanted <= value.keys()

    return fits
