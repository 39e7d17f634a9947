"""The OpenAPI documents: what is in them, that references resolve, and that they are cached small."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from minik8s.api.errors import NotFound
from minik8s.api.kinds import RESOURCES
from minik8s.apiserver.gnostic import encode_document
from minik8s.apiserver.openapi import OpenAPI

Json = dict[str, Any]
OPENAPI = OpenAPI(RESOURCES)


def v3(group_version: str) -> Json:
    return json.loads(gzip.decompress(OPENAPI.v3(group_version)))


def references(value: Any) -> set[str]:
    if isinstance(value, list):
        return {name for item in value for name in references(item)}
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
    return own.union(*(references(inner) for inner in value.values()))


def test_every_document_of_the_index_is_served_and_complete() -> None:
    index = OPENAPI.v3_index()["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/rbac.authorization.k8s.io/v1"} <= index.keys()
    for place, entry in index.items():
        assert entry["serverRelativeURL"].startswith(f"/openapi/v3/{place}?hash=")
        document = v3(place.partition("/")[2])
        known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert references(document) <= known
        ids = [op["operationId"] for item in document["paths"].values() for op in item.values() if isinstance(op, dict)]
        assert len(ids) == len(set(ids))
    with pytest.raises(NotFound):
        OPENAPI.v3("nope/v1")


def test_every_row_has_its_paths() -> None:
    for row in RESOURCES:
        paths = v3(row.api_version)["paths"]
        collection = paths[row.base_path("{namespace}")]
        item = paths[f"{row.base_path('{namespace}')}/{{name}}"]
        of = {"group": row.group, "version": row.version, "kind": row.kind}
        assert collection["get"]["x-kubernetes-action"] == "list"
        assert item["patch"]["x-kubernetes-group-version-kind"] == of
        assert {"fieldValidation", "dryRun", "fieldManager", "force"} == {
            p["name"] for p in item["patch"]["parameters"]
        }
        for subresource in row.subresources:
            assert f"{row.base_path('{namespace}')}/{{name}}/{subresource}" in paths


def test_the_old_document_has_everything() -> None:
    document = json.loads(gzip.decompress(OPENAPI.v2_json()))
    assert references(document) <= {f"#/definitions/{name}" for name in document["definitions"]}
    pod = document["definitions"]["io.k8s.api.core.v1.Pod"]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]
    assert "collection of containers" in pod["description"]
    container = document["definitions"]["io.k8s.api.core.v1.Container"]
    assert container["properties"]["ports"]["x-kubernetes-patch-merge-key"] == "containerPort"
    assert document["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"] == {"type": "string"}


def test_documents_are_kept_small_and_hashes_tell_changes() -> None:
    documents = [OPENAPI.v3(place.partition("/")[2]) for place in OPENAPI.v3_index()["paths"]]
    assert sum(map(len, [*documents, OPENAPI.v2_json(), OPENAPI.v2_protobuf()])) < 1_000_000
    assert OPENAPI.v2_json() is OPENAPI.v2_json()
    fewer = OpenAPI([row for row in RESOURCES if row.kind != "Pod"])
    before, after = OPENAPI.v3_index()["paths"], fewer.v3_index()["paths"]
    assert before["api/v1"] != after["api/v1"]
    assert before["apis/apps/v1"] == after["apis/apps/v1"]


def test_definitions_that_the_file_lacks_can_be_given() -> None:
    from dataclasses import replace

    row = replace(RESOURCES[0], kind="Thing", plural="things", group="example.com", definition="com.example.v1.Thing")
    listed = {"type": "object", "properties": {"items": {"type": "array", "items": {"$ref": row.definition}}}}
    thing = {"type": "object", "description": "A thing.", "properties": {"spec": {"type": "object", "nullable": True}}}
    served = OpenAPI([row], extra={row.definition: thing, f"{row.definition}List": listed})
    document = json.loads(gzip.decompress(served.v3("example.com/v1")))
    assert document["components"]["schemas"]["com.example.v1.Thing"] == thing
    old = json.loads(gzip.decompress(served.v2_json()))
    assert old["definitions"]["com.example.v1.Thing"]["properties"] == {"spec": {"type": "object"}}


def fields(data: bytes) -> list[tuple[int, Any]]:
    """(field number, value) of a protobuf message: an independent reading of the wire format."""
    at, found = 0, []

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = varint()
        value: Any = varint()
        if tag & 7 == 2:
            value, at = data[at : at + value], at + value
        found.append((tag >> 3, value))
    return found


def test_the_protobuf_reads_back() -> None:
    document = {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1"},
        "paths": {},
        "definitions": {
            "Thing": {
                "type": "object",
                "description": "x" * 300,
                "required": ["a"],
                "properties": {"a": {"type": "integer", "format": "int32"}, "b": {"$ref": "#/definitions/Thing"}},
                "x-kubernetes-group-version-kind": [{"kind": "Thing"}],
            }
        },
    }
    top = dict(fields(encode_document(document)))
    assert top[1] == b"2.0"
    assert dict(fields(top[2])) == {1: b"Kubernetes", 2: b"v1"}
    named = dict(fields(dict(fields(top[9]))[1]))
    assert named[1] == b"Thing"
    schema = dict(fields(named[2]))
    assert schema[4] == b"x" * 300
    assert schema[19] == b"a"
    assert fields(schema[22]) == [(1, b"object")]
    properties = [dict(fields(value)) for _, value in fields(schema[25])]
    assert [item[1] for item in properties] == [b"a", b"b"]
    assert dict(fields(properties[1][2])) == {1: b"#/definitions/Thing"}
    extension = dict(fields(schema[31]))
    assert extension[1] == b"x-kubernetes-group-version-kind"
    assert dict(fields(extension[2])) == {2: b'[{"kind":"Thing"}]'}
