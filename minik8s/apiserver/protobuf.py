"""Bodies in Kubernetes' protobuf, which kubectl 1.32 and later sends for what it creates itself, made into JSON values.

Only requests: answers are JSON, which every client also accepts. The envelope is `k8s\\0` and a runtime.Unknown; field
numbers come from `api/protobuf.json.gz` (written by scripts/generate-protobuf), read when the first such body comes.
Go writes what is empty as well, JSON leaves it out: empty strings and times, and zeros that stand for a default, go.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from minik8s.api.errors import BadRequest, UnsupportedMediaType
from minik8s.api.resource import Json
from minik8s.clock import rfc3339, rfc3339_micro

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
MAX_DEPTH = 100
_GZIP = 31
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."

ZERO_IS_ABSENT = frozenset((
    "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold", "hostPort", "nodePort", "generation",
    "observedGeneration", "healthCheckNodePort", "count",
))  # fmt: skip
"""Integers that are no pointers in Go, so that 0 means 'not said'."""

Fields = dict[str, tuple[str, str]]  # number -> (JSON name, type)


class _Malformed(Exception):
    pass


@cache
def _table() -> dict[str, msgspec.Raw]:
    data = files("minik8s.api").joinpath("protobuf.json.gz").read_bytes()
    return msgspec.json.decode(zlib.decompress(data, _GZIP), type=dict[str, msgspec.Raw])


@cache
def _fields(definition: str) -> Fields:
    return msgspec.json.decode(_table()[definition], type=Fields)


def decode(data: bytes, definition: str) -> Json:
    """The JSON value of a body that holds a `definition` (`io.k8s.api.core.v1.Pod`).

    BadRequest: malformed. UnsupportedMediaType: a kind that has no protobuf form.
    """
    if not data.startswith(MAGIC):
        raise BadRequest(f"the body is not {MEDIA_TYPE}: it does not begin with the magic number")
    if definition not in _table():
        raise UnsupportedMediaType(f"{definition.rpartition('.')[2]} has no protobuf form here: send application/json")
    try:
        envelope = {number: value for number, _, value in _scan(data[len(MAGIC) :])}
        names = {number: value for number, _, value in _scan(envelope.get(1, b""))}
        obj = _message(envelope.get(2, b""), definition, 0)
        for number, field in ((1, "apiVersion"), (2, "kind")):
            if names.get(number):
                obj[field] = names[number].decode()
        return obj
    except (_Malformed, IndexError, struct.error, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise BadRequest(f"the body is not valid {MEDIA_TYPE}: {error or type(error).__name__}") from None


def _scan(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, value) of each field; value is an int, or bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
        if size < 0 or at + size > end:
            raise _Malformed(f"field {number} is cut off or of an unknown wire type")
        yield number, wire, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise _Malformed("an integer is longer than 64 bits")


def _message(data: bytes, definition: str, depth: int) -> Json:
    if depth > MAX_DEPTH:
        raise _Malformed("it is nested too deeply")
    fields = _fields(definition)
    obj: Json = {}
    for number, wire, raw in _scan(data):
        known = fields.get(str(number))
        if known is None:
            continue  # of a newer version: as unknown as it would be in JSON
        name, kind = known
        if kind[0] == "{":
            key, value = _entry(raw, kind[1:], depth)
            obj.setdefault(name, {})[key] = value
        elif kind[0] == "*":
            values = obj.setdefault(name, [])
            packed = kind == "*int" and wire == _BYTES
            values += _packed(raw) if packed else [_value(raw, kind[1:], depth)]
        elif not name:
            obj |= _message(raw, kind, depth + 1)
        elif not _is_absent(name, value := _value(raw, kind, depth)):
            obj[name] = value
    return obj


def _is_absent(name: str, value: Any) -> bool:
    return value is None or value == "" or (value == 0 and name in ZERO_IS_ABSENT and value is not False)


def _entry(data: bytes, kind: str, depth: int) -> tuple[str, Any]:
    parts = {number: value for number, _, value in _scan(data)}
    empty: Any = 0 if kind in ("int", "bool") else b""
    return parts.get(1, b"").decode(), _value(parts.get(2, empty), kind, depth)


def _packed(data: bytes) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(_signed(value))
    return values


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _value(raw: Any, kind: str, depth: int) -> Any:
    match kind:
        case "string":
            return raw.decode()
        case "int":
            return _signed(raw)
        case "bool":
            return bool(raw)
        case "double":
            return struct.unpack("<d", raw)[0]
        case "bytes":
            return base64.b64encode(raw).decode()
    match kind.rpartition(".")[2]:
        case "Time" | "MicroTime" as name if kind.startswith(_META):
            return _time(raw, micro=name == "MicroTime")
        case "Quantity":
            return _message(raw, kind, depth + 1).get("string", "0")
        case "IntOrString":
            parts = {number: value for number, _, value in _scan(raw)}
            return parts.get(3, b"").decode() if parts.get(1, 0) else _signed(parts.get(2, 0))
        case "RawExtension" | "FieldsV1":
            inner = {number: value for number, _, value in _scan(raw)}.get(1, b"")
            return msgspec.json.decode(inner) if inner else None
        case "ExtraValue":
            return _message(raw, kind, depth + 1).get("items", [])
    return _message(raw, kind, depth + 1)


def _time(raw: bytes, *, micro: bool) -> str | None:
    parts = {number: _signed(value) for number, _, value in _scan(raw)}
    if not parts:
        return None
    seconds = parts.get(1, 0)
    return rfc3339_micro(seconds + parts.get(2, 0) / 1e9) if micro else rfc3339(seconds)
