"""Tables, as `kubectl get` wants them: cells worked out by the server, kept per version of an object.

Most cells depend on the object alone and are kept as bytes; those that tell an age are worked out anew each time. Which
are which is found by asking each cell twice, at two far times: rows with a cell that changed keep what is needed to
ask again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from minik8s.api.meta import Struct
from minik8s.api.resource import Column, Json, Resource
from minik8s.clock import parse_time
from minik8s.store.base import Record

KEPT = 16_384  # rows; beyond that the cache begins anew
_FAR = 40 * 365 * 86400.0  # seconds: no age looks the same that much later

_decode = msgspec.json.decode
_encode = msgspec.json.encode


class _Identity(Struct):
    metadata: msgspec.Raw


_identity = msgspec.json.Decoder(_Identity)


def metadata_of(value: bytes) -> bytes:
    """The metadata of a stored object, as it stands in its bytes."""
    return bytes(_identity.decode(value).metadata)


def partial(value: bytes, version: str = "v1") -> bytes:
    """PartialObjectMetadata of a stored object."""
    head = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/%s","metadata":' % version.encode()
    return head + metadata_of(value) + b"}"


def human_duration(seconds: float) -> str:
    """`5s`, `3m2s`, `47m`, `5h12m`, `2d3h`, `40d`, `2y31d`: the fewest units that say enough."""
    total = int(seconds)
    if total < 0:
        return "0s" if total >= -1 else "<invalid>"
    if total < 120:
        return f"{total}s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if minutes < 10:
        return f"{minutes}m{total % 60}s" if total % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 365 * 2:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d" if days < 365 * 8 and days % 365 else f"{days // 365}y"


def age_cell(obj: Json, now: float) -> str:
    created = obj["metadata"].get("creationTimestamp")
    return human_duration(now - parse_time(created)) if created else "<unknown>"


NAME = Column("Name", lambda obj, now: obj["metadata"].get("name", ""), format="name", description="Unique name")
AGE = Column("Age", age_cell, description="Time since the object was created")


def columns_of(resource: Resource) -> tuple[Column, ...]:
    """The columns of a row; a kind without any has a name and an age."""
    return resource.columns or (NAME, AGE)


def definitions(resource: Resource) -> bytes:
    return _encode(
        [
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": column.description or column.name,
                "priority": column.priority,
            }
            for column in columns_of(resource)
        ]
    )


class _Row(NamedTuple):
    """Cells as bytes where they are for ever; `ages` are those to work out anew, `obj` what they need."""

    rev: int
    fixed: bytes
    parts: tuple[bytes | int, ...]  # alternately bytes and the index of a column
    metadata: bytes
    created: float  # for the usual case, that the only such cell is the age
    obj: Json | None


class Tables:
    """Rows of tables by key of the object; one per server."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._definitions: dict[str, bytes] = {}

    def table(
        self, resource: Resource, records: Iterable[Record], list_meta: bytes, *, version: str, include: str
    ) -> bytes:
        """The bytes of a Table of `records`; `list_meta` is the JSON of its metadata."""
        now = self._clock()
        rows = b",".join([self.row(resource, record, now, version, include) for record in records])
        head = b'{"kind":"Table","apiVersion":"meta.k8s.io/%s","metadata":%s,"columnDefinitions":%s,"rows":['
        return head % (version.encode(), list_meta, self._defined(resource)) + rows + b"]}"

    def row(self, resource: Resource, record: Record, now: float, version: str, include: str) -> bytes:
        row = self._rows.get(record.key)
        if row is None or row.rev != record.rev:
            row = self._make(resource, record, now)
        cells = row.fixed or self._aged(resource, row, now)
        if include == "None":
            return b'{"cells":[%s],"object":null}' % cells
        if include == "Object":
            return b'{"cells":[%s],"object":%s}' % (cells, record.value)
        return b'{"cells":[%s],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/%s","metadata":%s}}' % (
            cells, version.encode(), row.metadata,
        )  # fmt: skip

    def _defined(self, resource: Resource) -> bytes:
        found = self._definitions.get(resource.name)
        if found is None:
            found = self._definitions[resource.name] = definitions(resource)
        return found

    def _make(self, resource: Resource, record: Record, now: float) -> _Row:
        obj: Json = _decode(record.value)
        columns = columns_of(resource)
        parts: list[bytes | int] = []
        ages: list[Column] = []
        for index, column in enumerate(columns):
            cell = column.cell(obj, now)
            if cell == column.cell(obj, now + _FAR):
                parts.append(_encode(cell))
            else:
                parts.append(index)
                ages.append(column)
        created = obj["metadata"].get("creationTimestamp") or ""
        usual = bool(created) and all(age_cell(obj, now) == column.cell(obj, now) for column in ages)
        usual = usual and all(age_cell(obj, now + _FAR) == column.cell(obj, now + _FAR) for column in ages)
        fixed = b"" if ages else b",".join(part for part in parts if isinstance(part, bytes))
        row = _Row(
            record.rev, fixed, tuple(parts), metadata_of(record.value),
            parse_time(created) if usual else -1.0, None if usual or not ages else _decode(record.value),
        )  # fmt: skip
        if len(self._rows) >= KEPT:
            self._rows.clear()
        self._rows[record.key] = row
        return row

    @staticmethod
    def _aged(resource: Resource, row: _Row, now: float) -> bytes:
        if row.obj is None:
            age = b'"%s"' % human_duration(now - row.created).encode()
            return b",".join([part if type(part) is bytes else age for part in row.parts])  # type: ignore[misc]
        columns = columns_of(resource)
        return b",".join(
            [_encode(columns[part].cell(row.obj, now)) if isinstance(part, int) else part for part in row.parts]
        )
