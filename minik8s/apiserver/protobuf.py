"""Bodies in Kubernetes' protobuf, which kubectl 1.32 and later sends for what it creates itself, made into JSON values.

Only requests: answers are JSON, which every client also accepts. The envelope is `k8s\\0` and a runtime.Unknown; field
numbers come from `api/protobuf.json.gz` (written by scripts/generate-protobuf), read when the first such body comes.
Go writes what is empty as well, JSON leaves it out: what is empty goes here, unless Go has a
pointer there, so that a zero was meant.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from minik8s import api
from minik8s.api.errors import BadRequest, UnsupportedMediaType
from minik8s.api.resource import Json
from minik8s.clock import rfc3339, rfc3339_micro

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
MAX_DEPTH = 100
_GZIP = 31
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NUMBERS = ("int32", "int64", "uint32", "uint64")
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."

Field = tuple[
    str, str, str, int
]  # JSON name ("" = spread over the parent), type, "" | r(epeated) | m(ap), is a pointer


class _Malformed(Exception):
    pass


@cache
def _table() -> dict[str, msgspec.Raw]:
    data = Path(api.__file__).with_name("protobuf.json.gz").read_bytes()
    return msgspec.json.decode(zlib.decompress(data, _GZIP), type=dict[str, msgspec.Raw])


@cache
def _fields(definition: str) -> dict[int, Field]:
    if definition not in _table():
        raise UnsupportedMediaType(f"{definition.rpartition('.')[2]} has no protobuf form here: send application/json")
    return msgspec.json.decode(_table()[definition], type=dict[int, Field])


def decode(data: bytes) -> Json:
    """The object in a body, as JSON would have had it.

    BadRequest: malformed. UnsupportedMediaType: a kind that has no protobuf form.
    """
    if not data.startswith(MAGIC):
        raise BadRequest(f"the body is not {MEDIA_TYPE}: it does not begin with the magic number")
    try:
        envelope = _parts(data[len(MAGIC) :])
        names = _parts(envelope.get(1, b""))
        version, kind = _text(names.get(1, b"")), _text(names.get(2, b""))
        return {**_message(envelope.get(2, b""), definition(version, kind), 0), "apiVersion": version, "kind": kind}
    except (_Malformed, IndexError, struct.error, ValueError, OverflowError, OSError) as error:
        raise BadRequest(f"the body is not valid {MEDIA_TYPE}: {error or type(error).__name__}") from None


def definition(api_version: str, kind: str) -> str:
    """`apps/v1`, `Deployment` -> `io.k8s.api.apps.v1.Deployment`; options of requests are of no group."""
    if kind.endswith("Options") and _META + kind in _table():
        return _META + kind
    group, _, version = api_version.rpartition("/")
    return f"io.k8s.api.{group.partition('.')[0] or 'core'}.{version}.{kind}"


def _scan(data: Any) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, value) of each field; value is an int, or bytes."""
    at, end = 0, len(_bytes(data))
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


def _parts(data: Any) -> dict[int, Any]:
    return {number: value for number, _, value in _scan(data)}


def _text(value: Any) -> str:
    if not isinstance(value, bytes):
        raise _Malformed("there is a number where a text is expected")
    return value.decode()


def _message(data: Any, definition: str, depth: int) -> Json:
    if depth > MAX_DEPTH:
        raise _Malformed("it is nested too deeply")
    fields = _fields(definition)
    obj: Json = {}
    for number, wire, raw in _scan(data):
        known = fields.get(number)
        if known is None:
            continue  # of a newer version: as unknown as it would be in JSON
        name, kind, shape, pointer = known
        if shape == "m":
            key, value = _entry(raw, kind, depth)
            obj.setdefault(name, {})[key] = value
        elif shape == "r":
            packed = wire == _BYTES and kind in _NUMBERS
            obj.setdefault(name, []).extend(_packed(raw) if packed else [_value(raw, kind, depth)])
        elif not name:
            obj |= _message(raw, kind, depth + 1)
        elif (value := _value(raw, kind, depth)) is not None and (pointer or value not in ("", 0, {})):
            obj[name] = value
    return obj


def _entry(data: bytes, kind: str, depth: int) -> tuple[str, Any]:
    parts = _parts(data)
    empty: Any = 0 if kind in _NUMBERS or kind == "bool" else b""
    return _text(parts.get(1, b"")), _value(parts.get(2, empty), kind, depth)


def _packed(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield _signed(value)


def _signed(value: Any) -> int:
    if not isinstance(value, int):
        raise _Malformed("there is a text where a number is expected")
    return value - (1 << 64) if value >= 1 << 63 else value


def _value(raw: Any, kind: str, depth: int) -> Any:
    if kind in _NUMBERS:
        return _signed(raw)
    match kind:
        case "string":
            return _text(raw)
        case "bool":
            return bool(_signed(raw))
        case "double":
            return struct.unpack("<d", _bytes(raw))[0]
        case "bytes":
            return base64.b64encode(_bytes(raw)).decode()
    match kind.rpartition(".")[2]:
        case "Time" | "MicroTime" as name if kind.startswith(_META):
            return _time(raw, micro=name == "MicroTime")
        case "Quantity":
            return _text(_parts(raw).get(1, b"0"))
        case "IntOrString":
            parts = _parts(raw)
            return _text(parts.get(3, b"")) if parts.get(1) else _signed(parts.get(2, 0))
        case "RawExtension" | "FieldsV1":
            inner = _bytes(_parts(raw).get(1, b""))
            return msgspec.json.decode(inner) if inner else None
        case "ExtraValue":
            return [_text(value) for number, _, value in _scan(raw) if number == 1]
    return _message(raw, kind, depth + 1)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise _Malformed("there is a number where bytes are expected")
    return value


def _time(raw: Any, *, micro: bool) -> str | None:
    parts = _parts(raw)
    if not parts:
        return None  # Go's zero time
    seconds = _signed(parts.get(1, 0))
    return rfc3339_micro(seconds + _signed(parts.get(2, 0)) / 1e9) if micro else rfc3339(seconds)
