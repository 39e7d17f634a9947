"""OpenAPI version 2 as protobuf, the form that older kubectl asks for: gnostic's `openapi.v2.Document`.

A JSON document goes in as a dict. Protobuf's wire format is a run of fields, each a tag (number * 8 + wire type) and
a value: a varint (type 0), or length-prefixed bytes (type 2). Field numbers are those of gnostic's OpenAPIv2.proto;
the encoder knows the part of OpenAPI that Kubernetes uses. Maps are lists of named values, in order; extensions
(`x-…`) are YAML text, of which JSON is a form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

Json = dict[str, Any]


def encode_document(document: Json) -> bytes:
    """`application/com.github.proto-openapi.spec.v2@v1.0+protobuf` of a Swagger 2.0 document."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    paths = b"".join(_named(2, name, _path_item(item)) for name, item in document["paths"].items())
    schemas = b"".join(_named(1, name, _schema(item)) for name, item in document["definitions"].items())
    return _text(1, document["swagger"]) + _bytes(2, info) + _bytes(8, paths) + _bytes(9, schemas)


def _varint(value: int) -> bytes:
    if value < 0:
        value += 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode()) if value else b""


def _texts(number: int, values: Iterable[str]) -> bytes:
    return b"".join(_bytes(number, value.encode()) for value in values)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""


def _named(number: int, name: str, value: bytes) -> bytes:
    return _bytes(number, _text(1, name) + _bytes(2, value))


def _any(value: Any) -> bytes:
    return _bytes(2, msgspec.json.encode(value))


def _extensions(number: int, source: Mapping[str, Any]) -> bytes:
    return b"".join(_named(number, key, _any(value)) for key, value in source.items() if key.startswith("x-"))


def _properties(value: Mapping[str, Json]) -> bytes:
    return b"".join(_named(1, name, _schema(inner)) for name, inner in value.items())


def _additional(value: Json | bool) -> bytes:
    return _bytes(1, _schema(value)) if isinstance(value, dict) else _varint(2 << 3) + _varint(value)


Encode = Callable[[int, Any], bytes]
_SCHEMA: dict[str, tuple[int, Encode]] = {
    "$ref": (1, _text),
    "format": (2, _text),
    "title": (3, _text),
    "description": (4, _text),
    "default": (5, lambda number, value: _bytes(number, _any(value))),
    "maxLength": (11, _integer),
    "minLength": (12, _integer),
    "pattern": (13, _text),
    "maxItems": (14, _integer),
    "minItems": (15, _integer),
    "uniqueItems": (16, _integer),
    "required": (19, _texts),
    "enum": (20, lambda number, values: b"".join(_bytes(number, _any(value)) for value in values)),
    "additionalProperties": (21, lambda number, value: _bytes(number, _additional(value))),
    "type": (22, lambda number, value: _bytes(number, _text(1, value))),
    "items": (23, lambda number, value: _bytes(number, _bytes(1, _schema(value)))),
    "allOf": (24, lambda number, values: b"".join(_bytes(number, _schema(value)) for value in values)),
    "properties": (25, lambda number, value: _bytes(number, _properties(value))),
}


def _schema(schema: Json) -> bytes:
    known = (_SCHEMA[key][1](_SCHEMA[key][0], value) for key, value in schema.items() if key in _SCHEMA)
    return b"".join(known) + _extensions(31, schema)


def _parameter(parameter: Json) -> bytes:
    """A ParametersItem: body, query or path."""
    name, description = parameter["name"], parameter.get("description", "")
    required = parameter.get("required", False)
    if parameter["in"] == "body":
        body = _text(1, description) + _text(2, name) + _text(3, "body") + _integer(4, required)
        return _bytes(1, _bytes(1, body + _bytes(5, _schema(parameter["schema"]))))
    head = _integer(1, required) + _text(2, parameter["in"]) + _text(3, description) + _text(4, name)
    unique = parameter.get("uniqueItems", False)
    if parameter["in"] == "query":
        shape = _bytes(3, head + _text(6, parameter["type"]) + _integer(20, unique))
    else:
        shape = _bytes(4, head + _text(5, parameter["type"]) + _integer(19, unique))
    return _bytes(1, _bytes(2, shape))


def _response(response: Json) -> bytes:
    schema = _bytes(2, _bytes(1, _schema(response["schema"]))) if "schema" in response else b""
    return _bytes(1, _text(1, response["description"]) + schema)


def _operation(operation: Json) -> bytes:
    responses = b"".join(_named(1, code, _response(value)) for code, value in operation["responses"].items())
    return (
        _texts(1, operation["tags"])
        + _text(3, operation["description"])
        + _text(5, operation["operationId"])
        + _texts(6, operation["produces"])
        + _texts(7, operation["consumes"])
        + b"".join(_bytes(8, _parameter(parameter)) for parameter in operation["parameters"])
        + _bytes(9, responses)
        + _texts(10, operation["schemes"])
        + _extensions(13, operation)
    )


_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}


def _path_item(item: Json) -> bytes:
    operations = b"".join(_bytes(_METHODS[key], _operation(value)) for key, value in item.items() if key in _METHODS)
    return operations + b"".join(_bytes(9, _parameter(parameter)) for parameter in item.get("parameters", ()))
