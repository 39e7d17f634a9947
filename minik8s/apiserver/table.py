"""Tables, as `kubectl get` wants them: cells worked out by the server, kept per version of an object.

Most cells depend on the object alone and are kept as bytes; those that tell the time are worked out anew each time.
Which are which is found by asking each cell twice, at two times far apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from minik8s.api.kinds.columns import AGE, NAME, duration
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
    """`cells` are JSON where they are for ever, and the column where they are not; `fixed` is set if all are JSON."""

    rev: int
    fixed: bytes
    cells: tuple[bytes | Column, ...]
    metadata: bytes
    created: float
    obj: Json | None  # for columns that tell the time, other than the age


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
        cells = row.fixed or self._aged(row, now)
        if include == "None":
            return b'{"cells":[%s],"object":null}' % cells
        if include == "Object":
            return b'{"cells":[%s],"object":%s}' % (cells, record.value)
        whole = b'{"cells":[%s],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/%s","metadata":%s}}'
        return whole % (cells, version.encode(), row.metadata)

    def _defined(self, resource: Resource) -> bytes:
        found = self._definitions.get(resource.name)
        if found is None:
            found = self._definitions[resource.name] = definitions(resource)
        return found

    def _make(self, resource: Resource, record: Record, now: float) -> _Row:
        obj: Json = _decode(record.value)
        cells: list[bytes | Column] = []
        for column in columns_of(resource):
            cell = column.cell(obj, now) if column is not AGE else None
            told = column is AGE or cell != column.cell(obj, now + _FAR)
            cells.append(column if told else _encode(cell))
        fixed = b",".join([cell for cell in cells if isinstance(cell, bytes)])
        ages = [cell for cell in cells if isinstance(cell, Column)]
        created = parse_time(obj["metadata"].get("creationTimestamp") or "")
        needed = any(column is not AGE for column in ages)
        row = _Row(
            record.rev,
            b"" if ages else fixed,
            tuple(cells),
            metadata_of(record.value),
            created,
            obj if needed else None,
        )
        if len(self._rows) >= KEPT:
            self._rows.clear()
        self._rows[record.key] = row
        return row

    @staticmethod
    def _aged(row: _Row, now: float) -> bytes:
        age = b'"%s"' % duration(now - row.created).encode()
        return b",".join(
            [
                cell if isinstance(cell, bytes) else age if cell is AGE else _encode(cell.cell(row.obj or {}, now))
                for cell in row.cells
            ]
        )
