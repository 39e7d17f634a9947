"""Kubernetes' own API definitions, read lazily from `schema.json.gz` (written by scripts/generate-schema).

The file is two gzip members: shapes (types, formats, required, merge keys), which a server holds as one block of
JSON and parses per definition when a kind is first used; and descriptions, read only to answer OpenAPI and not kept.
"""

from __future__ import annotations

import zlib
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

GZIP = 31  # zlib's wbits for a gzip member
Json = dict[str, Any]


def _member(number: int) -> bytes:
    rest = files("minik8s.api").joinpath("schema.json.gz").read_bytes()
    for _ in range(number):
        skipped = zlib.decompressobj(GZIP)
        skipped.decompress(rest)
        rest = skipped.unused_data
    return zlib.decompressobj(GZIP).decompress(rest)


@cache
def _shapes() -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(_member(0), type=dict[str, msgspec.Raw])


def names() -> list[str]:
    """All definitions, e.g. `io.k8s.api.core.v1.Pod`, sorted."""
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
    return texts


@cache
def fingerprint() -> int:
    """A checksum of the schema file: changes whenever any definition or description does."""
    return zlib.crc32(files("minik8s.api").joinpath("schema.json.gz").read_bytes())
