"""The definitions of all kinds, read lazily: Kubernetes' own from `schema.json.gz`, ours from `schema-own.json`.

The first file (written by scripts/generate-schema) is two gzip members: shapes (types, formats, required, merge keys),
which a server holds as one block of JSON and parses per definition when a kind is first used; and descriptions, read
only to answer OpenAPI and not kept. The second is written by hand: OpenAPI with its descriptions in place.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

GZIP = 31  # zlib's wbits for a gzip member
GVK = "x-kubernetes-group-version-kind"
Json = dict[str, Any]


def _file(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()


def _member(number: int) -> bytes:
    rest = _file("schema.json.gz")
    for _ in range(number):
        skipped = zlib.decompressobj(GZIP)
        skipped.decompress(rest)
        rest = skipped.unused_data
    return zlib.decompressobj(GZIP).decompress(rest)


@cache
def _shapes() -> dict[str, msgspec.Raw]:
    kubernetes = msgspec.json.decode(_member(0), type=dict[str, msgspec.Raw])
    ours = {name: msgspec.Raw(msgspec.json.encode(_bare(schema))) for name, schema in _own().items()}
    return kubernetes | ours


def _own() -> dict[str, Json]:
    """Ours, and for each kind that of its lists."""
    schemas: dict[str, Json] = msgspec.json.decode(_file("schema-own.json"))
    kinds = [name for name, schema in schemas.items() if GVK in schema]
    return schemas | {f"{name}List": _list_of(name, schemas[name]) for name in kinds}


def _list_of(name: str, schema: Json) -> Json:
    kind = schema[GVK][0]["kind"]
    items = {"description": "The objects.", "type": "array", "items": {"$ref": name}}
    meta = {"description": "Standard list metadata.", "$ref": "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"}
    properties = {**{key: schema["properties"][key] for key in ("apiVersion", "kind")}, "metadata": meta}
    return {
        "description": f"{kind}List is a list of {kind} objects.",
        "type": "object",
        "required": ["items"],
        "properties": {**properties, "items": items},
        GVK: [{**one, "kind": f"{kind}List"} for one in schema[GVK]],
    }


def _bare(schema: Json) -> Json:
    """Without descriptions, of itself and of its properties (which are one level deep: deeper ones are references)."""
    bare = {key: value for key, value in schema.items() if key != "description"}
    if "properties" in bare:
        bare["properties"] = {name: _bare(inner) for name, inner in bare["properties"].items()}
    return bare


def names() -> list[str]:
    """All definitions, e.g. `io.k8s.api.core.v1.Pod`; Kubernetes' sorted, then ours."""
    return list(_shapes())


def shape(name: str) -> Json:
    """The OpenAPI schema of a definition without descriptions; references are `{"$ref": name}`.

    KeyError when there is none: kinds name their definition in source, so that is a programming error.
    """
    parsed: Json = msgspec.json.decode(_shapes()[name])
    return parsed


def descriptions() -> dict[str, dict[str, str]]:
    """definition -> {"": its own text, property: the property's text}. About 1 MB: drop it after use."""
    texts: dict[str, dict[str, str]] = msgspec.json.decode(_member(1))
    for name, schema in _own().items():
        of_properties = {key: inner["description"] for key, inner in schema["properties"].items()}
        texts[name] = {"": schema["description"], **of_properties}
    return texts


@cache
def fingerprint() -> int:
    """A checksum of the schema files: changes whenever any definition or description does."""
    return zlib.crc32(_file("schema-own.json"), zlib.crc32(_file("schema.json.gz")))
