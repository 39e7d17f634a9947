"""Bodies: bytes of strangers to objects of a kind, or a 4xx that says where they are wrong."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec

from minik8s.api.errors import BadRequest, Invalid, UnsupportedMediaType
from minik8s.api.resource import Alias, Json, Resource
from minik8s.api.schema import Schema, compile_schema
from minik8s.apiserver import protobuf
from minik8s.apiserver.request import JSON, ApiRequest

MAX_BODY = 3 * 1024 * 1024  # bytes; Kubernetes' limit on a request
MAX_DEPTH = 200  # nested objects and arrays; a CustomResourceDefinition's schema needs some dozens
IGNORE, WARN, STRICT = "Ignore", "Warn", "Strict"


class Served(NamedTuple):
    """A resource under one of its group-versions: the stored one (`alias` None), or another."""

    resource: Resource
    alias: Alias | None = None

    @property
    def group(self) -> str:
        return self.alias.group if self.alias else self.resource.group

    @property
    def version(self) -> str:
        return self.alias.version if self.alias else self.resource.version

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def definition(self) -> str:
        return self.alias.definition if self.alias else self.resource.definition

    @property
    def schema(self) -> Schema:
        return compile_schema(self.definition)

    def show(self, stored: Json) -> Json:
        """A stored object as this version has it."""
        if self.alias is None:
            return stored
        return {**self.alias.to(stored), "apiVersion": self.api_version, "kind": self.resource.kind}

    def store(self, obj: Json) -> Json:
        """An object of this version as it is stored."""
        if self.alias is None:
            return obj
        return {**self.alias.back(obj), "apiVersion": self.resource.api_version, "kind": self.resource.kind}


class Reading(NamedTuple):
    obj: Json
    warnings: list[str]


def decode(body: bytes) -> Any:
    """The JSON value of a body. BadRequest for what is none, or is nested deeper than any real object."""
    if not body:
        raise BadRequest("the body is empty, a JSON object is expected")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        _check_depth(value)
    return value


def decode_object(body: bytes) -> Json:
    value = decode(body)
    if type(value) is not dict:
        raise BadRequest("the body must be a JSON object")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise BadRequest(f"the body is nested more than {MAX_DEPTH} levels deep")


def _children(value: Any) -> list[Any]:
    inner = value.values() if type(value) is dict else value if type(value) is list else ()
    return [child for child in inner if type(child) in (dict, list)]


def from_request(request: ApiRequest) -> Json:
    """The object in the body of a request. UnsupportedMediaType if it is neither JSON nor protobuf."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media in ("", JSON):
        return decode_object(request.body)
    if media == protobuf.MEDIA_TYPE:
        return protobuf.decode(request.body)
    raise UnsupportedMediaType(
        f'the body is of media type "{media[:80]}": only {JSON} and {protobuf.MEDIA_TYPE} are supported'
    )


def validation(query_value: str) -> str:
    """The `fieldValidation` parameter; Warn unless told, as Kubernetes."""
    if query_value not in ("", IGNORE, WARN, STRICT):
        raise BadRequest(f'fieldValidation must be {IGNORE}, {WARN} or {STRICT}, not "{query_value[:40]}"')
    return query_value or WARN


def read(served: Served, obj: Json, mode: str, body: bytes = b"") -> Reading:
    """Check an object against the schema of its version, in place; `body`, if given, is looked at for doubled fields.

    What is unknown is dropped, and told or refused by `mode`. Raises BadRequest and Invalid.
    """
    schema = served.schema
    notes: list[str] = []
    if mode == STRICT and body and not body.startswith(protobuf.MAGIC):
        notes += [f'duplicate field "{path}"' for path in duplicates(body)]
    if not schema.fits(obj):
        notes += [f'unknown field "{path}"' for path in schema.prune(obj)]
        if causes := schema.check(obj):
            meta = obj.get("metadata")
            name = str(meta.get("name") or "") if isinstance(meta, dict) else ""
            raise Invalid(served.resource.kind, name, causes, group=served.group)
    _check_type(served, obj)
    if notes and mode == STRICT:
        raise BadRequest(f"strict decoding error: {', '.join(notes)}")
    obj.setdefault("metadata", {})
    return Reading(obj, [] if mode == IGNORE else notes)


def check_types(obj: Json, definition: str, kind: str) -> None:
    """Check what is no stored kind against its definition, in place; what is unknown is dropped."""
    schema = compile_schema(definition)
    if not schema.fits(obj):
        schema.prune(obj)
        if causes := schema.check(obj):
            raise Invalid(kind, "", causes)


def _check_type(served: Served, obj: Json) -> None:
    version = obj.get("apiVersion")
    if version and version != served.api_version:
        raise BadRequest(
            f"the API version in the data ({version[:80]}) does not match the expected API version "
            f"({served.api_version})"
        )
    kind = obj.get("kind")
    if kind and kind != served.resource.kind:
        raise BadRequest(
            f'the kind in the data ("{kind[:80]}") does not match the expected kind ("{served.resource.kind}")'
        )
    obj["apiVersion"], obj["kind"] = served.api_version, served.resource.kind


def duplicates(body: bytes) -> list[str]:
    """The names of fields that a JSON text has twice in one object."""
    found: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                (found.append if key in seen else seen.add)(key)
        return made

    json.loads(body, object_pairs_hook=collect)
    return found
