"""Which objects of a collection a request means: label and field selectors over stored bytes, decoded no more than
needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from minik8s.api import fields, labels
from minik8s.api.errors import BadRequest
from minik8s.api.meta import Struct
from minik8s.api.resource import Resource


class _Meta(Struct):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}


class _Head(Struct):
    metadata: _Meta = _Meta()


_head = msgspec.json.Decoder(_Head)
_METADATA: dict[str, Callable[[_Meta], str]] = {
    "metadata.name": lambda meta: meta.name,
    "metadata.namespace": lambda meta: meta.namespace,
}


class Selection:
    """Compiled selectors of one resource. `text` identifies it; `name` is set where only one name can match."""

    __slots__ = ("_fields", "_labels", "_meta_fields", "name", "text")

    def __init__(self, resource: Resource, label_selector: str, field_selector: str) -> None:
        terms = fields.parse(field_selector)
        self.text = f"{label_selector}|{field_selector}"
        self.name = next((t.value for t in terms if t.field == "metadata.name" and t.equal), "")
        self._labels = labels.parse(label_selector)
        self._meta_fields = [(_METADATA[t.field], t.equal, t.value) for t in terms if t.field in _METADATA]
        self._fields: list[tuple[Callable[[dict[str, Any]], str], bool, str]] = []
        for term in terms:
            if term.field in _METADATA:
                continue
            if term.field not in resource.selectable:
                known = ", ".join(sorted([*_METADATA, *resource.selectable]))
                raise BadRequest(f"field label not supported: {term.field}; {resource.plural} have {known}")
            self._fields.append((resource.selectable[term.field], term.equal, term.value))

    def matches(self, value: bytes) -> bool:
        """Whether a stored object is selected."""
        if self._labels or self._meta_fields:
            meta = _head.decode(value).metadata
            if not labels.matches(self._labels, meta.labels):
                return False
            if any((read(meta) == wanted) is not equal for read, equal, wanted in self._meta_fields):
                return False
        if not self._fields:
            return True
        obj = msgspec.json.decode(value)
        return all((read(obj) == wanted) is equal for read, equal, wanted in self._fields)


def select(resource: Resource, label_selector: str, field_selector: str) -> Selection | None:
    """None selects everything."""
    if not label_selector and not field_selector:
        return None
    return Selection(resource, label_selector, field_selector)
