"""OpenAPI documents from operations and definitions, as plain dicts: version 2 (Swagger) and version 3.

Definitions come without descriptions from `minik8s.api.definitions`; here they get them back and are put into the
form that each version wants: where references point, and how int-or-string and quantities are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minik8s.api import definitions
from minik8s.apiserver.openapi_paths import PRETTY, Operation, Param

Json = dict[str, Any]
Shapes = Callable[[str], Json]
PATCH_TYPES = (
    "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)  # fmt: skip
GVK = "x-kubernetes-group-version-kind"
_ABSENT_IN_V2 = ("anyOf", "oneOf", "not", "nullable")
_INSIDE = (
    Param("name", "string", "The object's name."),
    Param("namespace", "string", "The namespace of the objects."),
)


def closure(names: Iterable[str], shape: Shapes) -> dict[str, Json]:
    """The definitions of these names and of all that they refer to, sorted by name."""
    found: dict[str, Json] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = shape(name)
            todo += _references(found[name])
    return dict(sorted(found.items()))


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for item in schema for name in _references(item)]
    if not isinstance(schema, dict):
        return []
    if isinstance(reference := schema.get("$ref"), str):
        return [reference]
    return [name for value in schema.values() for name in _references(value)]


def used(operations: Iterable[Operation]) -> set[str]:
    return {name for operation in operations for name in (operation.body, operation.answer) if name}


def document_v3(operations: list[Operation], shape: Shapes, version: str) -> Json:
    schemas = _described(closure(used(operations), shape), _schema_v3)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": _paths(operations, _operation_v3, _param_v3),
        "components": {"schemas": schemas},
    }


def document_v2(operations: list[Operation], shape: Shapes, version: str) -> Json:
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": _paths(operations, _operation_v2, _param_v2),
        "definitions": _described(closure(used(operations), shape), _schema_v2),
    }


def _described(shapes: Mapping[str, Json], render: Callable[[Json], Json]) -> dict[str, Json]:
    texts = definitions.descriptions()
    rendered: dict[str, Json] = {}
    for name, schema in shapes.items():
        told = texts.get(name, {})
        made = render(schema)
        if "" in told:
            made = {"description": told[""]} | made
        for field, inner in made.get("properties", {}).items():
            if field in told:
                inner["description"] = told[field]
        rendered[name] = made
    return rendered


def _each(schema: Json, render: Callable[[Json], Json]) -> Json:
    """A copy with all schemas inside rendered."""
    copy = dict(schema)
    if "properties" in copy:
        copy["properties"] = {name: render(inner) for name, inner in copy["properties"].items()}
    for key in ("items", "additionalProperties", "not"):
        if isinstance(copy.get(key), dict):
            copy[key] = render(copy[key])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in copy:
            copy[key] = [render(inner) for inner in copy[key]]
    return copy


def _schema_v3(schema: Json) -> Json:
    if "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {"allOf": [{"$ref": f"#/components/schemas/{schema['$ref']}"}]} | rest
    if schema.get("format") == "int-or-string":
        return {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
    if schema.get("format") == "quantity":
        return {"oneOf": [{"type": "string"}, {"type": "number"}]}
    return _each(schema, _schema_v3)


def _schema_v2(schema: Json) -> Json:
    if "$ref" in schema:
        return schema | {"$ref": f"#/definitions/{schema['$ref']}"}
    if schema.get("format") == "quantity":
        return {"type": "string"}
    copy = _each(schema, _schema_v2)
    return {key: value for key, value in copy.items() if key not in _ABSENT_IN_V2}


def _paths(
    operations: list[Operation], render: Callable[[Operation], Json], param: Callable[[Param, str], Json]
) -> dict[str, Json]:
    paths: dict[str, Json] = {}
    for operation in operations:
        item = paths.setdefault(operation.path, {})
        item[operation.method] = _common(operation) | render(operation)
    for path, item in paths.items():
        inside = [param(each, "path") for each in _INSIDE if f"{{{each.name}}}" in path]
        item["parameters"] = [*inside, param(PRETTY, "query")]
    return dict(sorted(paths.items()))


def _common(operation: Operation) -> Json:
    of = operation.of
    return {
        "description": operation.description,
        "tags": ["_".join(operation.path.strip("/").removeprefix("apis/").replace("api/", "core/").split("/")[:2])],
        "operationId": operation.id,
        "x-kubernetes-action": operation.action,
        GVK: {"group": of.group, "version": of.version, "kind": of.kind},
    }


def _statuses(operation: Operation) -> list[tuple[str, str]]:
    made = {
        "post": [("201", "Created"), ("202", "Accepted")],
        "put": [("201", "Created")],
        "delete": [("202", "Accepted")],
    }
    return [("200", "OK"), *(made.get(operation.action, ()))]


def _param_v3(param: Param, where: str) -> Json:
    required = {"required": True} if where == "path" else {}
    described = {"name": param.name, "in": where, "description": param.description}
    return described | required | {"schema": {"type": param.type, "uniqueItems": True}}


def _operation_v3(operation: Operation) -> Json:
    def content(name: str, types: Iterable[str]) -> Json:
        return {"content": {kind: {"schema": {"$ref": f"#/components/schemas/{name}"}} for kind in types}}

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    answer = content(operation.answer, ("application/json",)) if operation.answer else text
    rendered: Json = {
        "parameters": [_param_v3(param, "query") for param in operation.params],
        "responses": {
            **{code: {"description": meaning} | answer for code, meaning in _statuses(operation)},
            "401": {"description": "Unauthorized"},
        },
    }
    if operation.body:
        types = PATCH_TYPES if operation.action == "patch" else ("*/*",)
        rendered["requestBody"] = content(operation.body, types)
        if operation.action in ("post", "put", "patch"):
            rendered["requestBody"]["required"] = True
    return rendered


def _param_v2(param: Param, where: str) -> Json:
    required = {"required": True} if where == "path" else {}
    described = {"name": param.name, "in": where, "description": param.description, "type": param.type}
    return described | required | {"uniqueItems": True}


def _operation_v2(operation: Operation) -> Json:
    answer: Json = {"$ref": f"#/definitions/{operation.answer}"} if operation.answer else {"type": "string"}
    rendered: Json = {
        "consumes": list(PATCH_TYPES) if operation.action == "patch" else ["*/*"],
        "produces": ["application/json"] if operation.answer else ["text/plain"],
        "schemes": ["https"],
        "parameters": [_param_v2(param, "query") for param in operation.params],
        "responses": {
            **{code: {"description": meaning, "schema": answer} for code, meaning in _statuses(operation)},
            "401": {"description": "Unauthorized"},
        },
    }
    if operation.body:
        required = {"required": True} if operation.action in ("post", "put", "patch") else {}
        body = {"name": "body", "in": "body", "schema": {"$ref": f"#/definitions/{operation.body}"}}
        rendered["parameters"].append(body | required)
    return rendered
