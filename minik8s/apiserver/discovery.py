"""What this server serves, told in both of Kubernetes' ways: list by list, or all at once (aggregated)."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import msgspec

from minik8s import __version__
from minik8s.api.errors import NotFound
from minik8s.api.resource import Resource
from minik8s.api.scheme import Scheme
from minik8s.apiserver.request import JSON, ApiResponse, json_response
from minik8s.apiserver.served import SUBRESOURCES, VIRTUALS, Virtual

MAJOR, MINOR = "1", "33"  # the Kubernetes API that is followed; clients warn when they are far from it
AGGREGATED_GROUP = "apidiscovery.k8s.io"


class Entry(NamedTuple):
    """One kind in one group-version."""

    group: str
    version: str
    row: Resource | Virtual


def server_version() -> dict[str, str]:
    return {
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": f"v{MAJOR}.{MINOR}.0+minik8s.{__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"{platform.system().lower()}/{_architecture()}",
    }


def _architecture() -> str:
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


class Discovery:
    """Answers for `/api`, `/apis`, `/apis/G`, `/apis/G/V`. Made anew when the scheme has changed.

    `virtuals` are those that somebody answers for, by (group, version, plural); None: all.
    """

    def __init__(self, scheme: Scheme, virtuals: Collection[tuple[str, str, str]] | None = None) -> None:
        self._scheme = scheme
        self._virtuals = virtuals
        self._seen: tuple[Resource, ...] = ()
        self._groups: dict[str, dict[str, list[Entry]]] = {}
        self._answers: dict[tuple[str, str], ApiResponse] = {}

    def answer(self, path: str, accept: str, known_etag: str = "") -> ApiResponse:
        """`path` without a trailing slash. NotFound for a group or version that is not served."""
        if self._seen != tuple(self._scheme.resources):
            self._seen = tuple(self._scheme.resources)
            self._groups = _grouped(self._entries())
            self._answers.clear()
        version = _aggregated_version(accept) if path in ("/api", "/apis") else ""
        found = self._answers.get((path, version))
        if found is None:
            found = self._aggregated(path, version) if version else json_response(self._legacy(path))
            self._answers[path, version] = found
        if known_etag and known_etag == found.headers.get("etag"):
            # Clients' caches take over the headers of a 304, so the media type must be the document's.
            return ApiResponse(304, content_type=found.content_type, headers=found.headers)
        return found

    def _entries(self) -> Iterable[Entry]:
        for resource in self._seen:
            yield Entry(resource.group, resource.version, resource)
            for alias in resource.aliases:
                yield Entry(alias.group, alias.version, resource)
        for virtual in VIRTUALS:
            if self._virtuals is not None and (virtual.group, virtual.version, virtual.plural) not in self._virtuals:
                continue  # its add-on is switched off
            yield Entry(virtual.group, virtual.version, virtual)

    def _legacy(self, path: str) -> dict[str, Any]:
        parts = path.strip("/").split("/")
        if parts == ["api"]:
            return {"kind": "APIVersions", "versions": list(self._groups.get("", {})), "serverAddressByClientCIDRs": []}
        if parts == ["apis"]:
            groups = [_group(name, versions) for name, versions in self._groups.items() if name]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        group, versions = ("", parts[1:]) if parts[0] == "api" else (parts[1], parts[2:])
        known = self._groups.get(group)
        if known is not None and not versions and group:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, known)}
        if known is None or len(versions) != 1 or versions[0] not in known:
            raise NotFound("the server could not find the requested resource")
        name = f"{group}/{versions[0]}" if group else versions[0]
        listed = [item for entry in known[versions[0]] for item in _legacy_items(entry)]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}

    def _aggregated(self, path: str, version: str) -> ApiResponse:
        items = [
            {
                "metadata": {"name": group, "creationTimestamp": None},
                "versions": [
                    {"version": name, "resources": [_aggregated_item(e) for e in entries], "freshness": "Current"}
                    for name, entries in versions.items()
                ],
            }
            for group, versions in self._groups.items()
            if bool(group) == (path == "/apis")
        ]
        body = msgspec.json.encode(
            {
                "kind": "APIGroupDiscoveryList",
                "apiVersion": f"{AGGREGATED_GROUP}/{version}",
                "metadata": {},
                "items": items,
            }
        )
        etag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
        content_type = f"{JSON};g={AGGREGATED_GROUP};v={version};as=APIGroupDiscoveryList"
        headers = {"etag": etag, "vary": "Accept", "cache-control": "public"}
        return ApiResponse(200, body, content_type, headers)


def _grouped(entries: Iterable[Entry]) -> dict[str, dict[str, list[Entry]]]:
    groups: dict[str, dict[str, list[Entry]]] = {}
    for entry in entries:
        groups.setdefault(entry.group, {}).setdefault(entry.version, []).append(entry)
    return {
        group: dict(sorted(versions.items(), key=lambda item: version_rank(item[0]), reverse=True))
        for group, versions in groups.items()
    }


def version_rank(version: str) -> tuple[int, int, int]:
    """Order of preference: v2 before v1 before v1beta2 before v1beta1 before v1alpha1."""
    digits = "".join(c if c.isdigit() else " " for c in version).split()
    stage = 1 if "beta" in version else 0 if "alpha" in version else 2
    return stage, int(digits[0]) if digits else 0, int(digits[1]) if len(digits) > 1 else 0


def _group(name: str, versions: Iterable[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _aggregated_version(accept: str) -> str:
    """v2, v2beta1, or "" where the client wants plain JSON (or is asked to be content with it)."""
    for offer in accept.split(","):
        parts = {part.strip() for part in offer.split(";")}
        if f"g={AGGREGATED_GROUP}" in parts and "as=APIGroupDiscoveryList" in parts and JSON in parts:
            for version in ("v2", "v2beta1"):
                if f"v={version}" in parts:
                    return version
        elif JSON in parts and not any(part.startswith("g=") for part in parts):
            return ""
    return ""


def _legacy_items(entry: Entry) -> Iterable[dict[str, Any]]:
    row = entry.row
    yield {
        "name": row.plural,
        "singularName": _singular(row),
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": list(row.verbs),
        **_names(row),
    }
    for name, verbs, group, version, kind in _subresources(entry):
        item = {"name": f"{row.plural}/{name}", "singularName": "", "namespaced": row.namespaced, "kind": kind}
        if (group, version) != (entry.group, entry.version):
            item |= {"group": group, "version": version}
        yield {**item, "verbs": list(verbs)}


def _aggregated_item(entry: Entry) -> dict[str, Any]:
    row = entry.row
    item: dict[str, Any] = {
        "resource": row.plural,
        "responseKind": {"group": entry.group, "version": entry.version, "kind": row.kind},
        "scope": "Namespaced" if row.namespaced else "Cluster",
        "singularResource": _singular(row),
        "verbs": list(row.verbs),
        **_names(row),
    }
    inner = [
        {"subresource": name, "responseKind": {"group": group, "version": version, "kind": kind}, "verbs": list(verbs)}
        for name, verbs, group, version, kind in _subresources(entry)
    ]
    return item | ({"subresources": inner} if inner else {})


def _names(row: Resource | Virtual) -> dict[str, list[str]]:
    if isinstance(row, Virtual):
        return {}
    pairs = (("shortNames", row.shortNames), ("categories", row.categories))
    return {key: list(value) for key, value in pairs if value}


def _subresources(entry: Entry) -> Iterable[tuple[str, tuple[str, ...], str, str, str]]:
    """(name, verbs, group, version, kind) of the subresources of a kind."""
    if isinstance(entry.row, Virtual):
        return
    for name in sorted(entry.row.subresources):
        sub = SUBRESOURCES[name]
        if sub.version:
            yield name, sub.verbs, sub.group, sub.version, sub.kind
        else:
            yield name, sub.verbs, entry.group, entry.version, sub.kind or entry.row.kind


def _singular(row: Resource | Virtual) -> str:
    return (row.singular if isinstance(row, Resource) else "") or row.kind.lower()
