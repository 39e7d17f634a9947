"""Kubernetes' paths are regular, so one parser reads them all: no list of routes, no kind's name.

/api/v1/…  /apis/GROUP/VERSION/…  then  [watch/][namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE[/more]]]
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from minik8s.api.errors import BadRequest

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NAMESPACE_SUBRESOURCES = ("status", "finalize")
REMEMBERED, REMEMBERED_LENGTH = 4096, 200  # clients ask for the same paths again and again
_TRUE = ("true", "1", "True", "TRUE", "t", "T")


class RequestInfo(NamedTuple):
    """What a request is about. For what is no resource (`/healthz`, discovery) `resource` is "" and `path` counts."""

    verb: str
    path: str  # without a trailing slash
    group: str = ""
    version: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""  # what follows the subresource: the path behind `proxy`


def is_true(text: str | None) -> bool:
    return text in _TRUE


def parse(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """The request that a method and a path (percent-encoded) stand for. BadRequest for a path nobody may write."""
    watching = "watch" in query and is_true(query["watch"])
    return (_parse_cached if len(path) <= REMEMBERED_LENGTH else _parse)(method, path, watching)


def _parse(method: str, path: str, asked: bool) -> RequestInfo:
    """`asked`: whether the query asks for a watch."""
    parts = path.strip("/").split("/")
    if "%" in path:
        parts = [unquote(part) for part in parts]
    verb = _VERBS.get(method, method.lower())
    clean = path.rstrip("/") or "/"
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(method.lower(), clean)
    watching = rest[0] == "watch" and len(rest) > 1
    if watching:
        rest = rest[1:]
    namespace, rest = _namespace(rest)
    resource, name, subresource, *more = (*rest, "", "", "")[: max(3, len(rest))]
    for part in (namespace, resource, name, subresource):
        _check(part, path)
    if resource == "namespaces" and not group:
        namespace = name
    if watching or (verb == "get" and not name and asked):
        verb = "watch"
    elif not name:
        verb = {"get": "list", "delete": "deletecollection"}.get(verb, verb)
    return RequestInfo(verb, clean, group, version, resource, namespace, name, subresource, "/".join(more))


_parse_cached = lru_cache(REMEMBERED)(_parse)


def _namespace(rest: list[str]) -> tuple[str, list[str]]:
    """(namespace, what follows); a Namespace itself, and its subresources, are in none."""
    if rest[0] != "namespaces" or len(rest) < 3 or (len(rest) == 3 and rest[2] in _NAMESPACE_SUBRESOURCES):
        return "", rest
    return rest[1], rest[2:]


def _check(part: str, path: str) -> None:
    if part in (".", "..") or "/" in part or "\0" in part:
        raise BadRequest(f'the path "{path[:200]}" has a part that cannot be a name: "{part[:60]}"')
