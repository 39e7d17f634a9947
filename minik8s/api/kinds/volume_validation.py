"""What makes volumes and their mounts wrong, and what the downward API can tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from minik8s.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from minik8s.api.kinds.validation import DNS_LABEL, DNS_LABEL_HINT, validate_quantity
from minik8s.api.resource import Json

ITEM_SOURCES = ("configMap", "secret", "downwardAPI")
MODE_HINT = "must be a number between 0 and 0777 (octal), both inclusive"
# What the downward API can tell; `metadata.labels['KEY']` and annotations besides.
ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
KEYED_FIELD = re.compile(r"metadata\.(annotations|labels)\['[^']+'\]")
RESOURCE_FIELD = re.compile(r"(limits|requests)\.(cpu|memory|ephemeral-storage|hugepages-.+)")
NATIVE_RESOURCES = ("cpu", "memory", "ephemeral-storage")
VOLUME_SOURCES_LIMIT = "may not specify more than 1 volume type"


def validate_volumes(volumes: Any, path: str, names: set[str]) -> Iterator[Cause]:
    for index, volume in enumerate(volumes):
        here, name = f"{path}[{index}]", volume.get("name", "")
        if not name:
            yield required(f"{here}.name")
        elif not DNS_LABEL.fullmatch(name):
            yield invalid(f"{here}.name", name, DNS_LABEL_HINT)
        elif name in names:
            yield duplicate(f"{here}.name", name)
        names.add(name)
        sources = [key for key in volume if key != "name" and volume[key] is not None]
        for extra in sources[1:]:
            yield forbidden(f"{here}.{extra}", VOLUME_SOURCES_LIMIT)
        yield from _volume_source(volume, here)


def _volume_source(volume: Json, path: str) -> Iterator[Cause]:
    host = volume.get("hostPath")
    if host is not None:
        if not host.get("path"):
            yield required(f"{path}.hostPath.path")
        elif ".." in host["path"].split("/"):
            yield invalid(f"{path}.hostPath.path", host["path"], "must not contain '..'")
        types = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
        if host.get("type", "") not in types:
            yield not_supported(f"{path}.hostPath.type", host["type"], types)
    if volume.get("configMap") is not None and not volume["configMap"].get("name"):
        yield required(f"{path}.configMap.name")
    if volume.get("secret") is not None and not volume["secret"].get("secretName"):
        yield required(f"{path}.secret.secretName")
    for kind in ITEM_SOURCES:
        if volume.get(kind):
            yield from _items(kind, volume[kind], f"{path}.{kind}")
    for index, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
        here = f"{path}.projected.sources[{index}]"
        for kind in ITEM_SOURCES:
            if source.get(kind):
                yield from _items(kind, source[kind], f"{here}.{kind}")
        token = source.get("serviceAccountToken")
        if token is not None:
            yield from _target(token.get("path", ""), f"{here}.serviceAccountToken.path")
            if token.get("expirationSeconds", 3600) < 600:
                yield invalid(f"{here}.serviceAccountToken.expirationSeconds", token["expirationSeconds"],
                              "may not specify a duration less than 10 minutes")  # fmt: skip
    limit = (volume.get("emptyDir") or {}).get("sizeLimit")
    if limit is not None:
        yield from validate_quantity(limit, f"{path}.emptyDir.sizeLimit")


def _items(kind: str, source: Json, path: str) -> Iterator[Cause]:
    """Which keys become which files, of a config map, a secret or the downward API."""
    if not 0 <= source.get("defaultMode", 0) <= 0o777:
        yield invalid(f"{path}.defaultMode", source["defaultMode"], MODE_HINT)
    for index, item in enumerate(source.get("items") or ()):
        here = f"{path}.items[{index}]"
        yield from _target(item.get("path", ""), f"{here}.path")
        if not 0 <= item.get("mode", 0) <= 0o777:
            yield invalid(f"{here}.mode", item["mode"], MODE_HINT)
        if kind != "downwardAPI":
            if not item.get("key"):
                yield required(f"{here}.key")
            continue
        if (item.get("fieldRef") is None) == (item.get("resourceFieldRef") is None):
            yield required(here, "one of fieldRef and resourceFieldRef is required")
        yield from validate_field(item.get("fieldRef"), f"{here}.fieldRef", VOLUME_FIELDS)
        yield from validate_resource_field(item.get("resourceFieldRef"), f"{here}.resourceFieldRef", of_volume=True)


def _target(target: str, path: str) -> Iterator[Cause]:
    if not target:
        yield required(path)
    elif target.startswith("/") or ".." in target.split("/"):
        yield invalid(path, target, "must be a relative path without '..'")


def validate_field(reference: Json | None, path: str, fields: tuple[str, ...]) -> Iterator[Cause]:
    if reference is None:
        return
    field = reference.get("fieldPath", "")
    if not field:
        yield required(f"{path}.fieldPath")
    elif field not in fields and not KEYED_FIELD.fullmatch(field):
        yield not_supported(f"{path}.fieldPath", field, fields)


def validate_resource_field(reference: Json | None, path: str, *, of_volume: bool = False) -> Iterator[Cause]:
    if reference is None:
        return
    resource = reference.get("resource", "")
    if of_volume and not reference.get("containerName"):
        yield required(f"{path}.containerName")
    if not resource:
        yield required(f"{path}.resource")
    elif not RESOURCE_FIELD.fullmatch(resource):
        known = [f"{kind}.{name}" for kind in ("limits", "requests") for name in NATIVE_RESOURCES]
        yield not_supported(f"{path}.resource", resource, known)
    if reference.get("divisor") is not None:
        yield from validate_quantity(reference["divisor"], f"{path}.divisor")


def validate_mounts(mounts: Any, path: str, volumes: set[str]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        here = f"{path}[{index}]"
        name, target = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            yield required(f"{here}.name")
        elif name not in volumes:
            yield Cause(f"{here}.name", "FieldValueNotFound", f'Not found: "{name}"')
        if not target:
            yield required(f"{here}.mountPath")
        elif target in seen:
            yield invalid(f"{here}.mountPath", target, "must be unique")
        if ":" in target:
            yield invalid(f"{here}.mountPath", target, "must not contain ':'")
        seen.add(target)
        for field in ("subPath", "subPathExpr"):
            sub = mount.get(field) or ""
            if sub.startswith("/"):
                yield invalid(f"{here}.{field}", sub, "must be a relative path")
            if ".." in sub.split("/"):
                yield invalid(f"{here}.{field}", sub, "must not contain '..'")
        if mount.get("subPath") and mount.get("subPathExpr"):
            yield invalid(f"{here}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")
