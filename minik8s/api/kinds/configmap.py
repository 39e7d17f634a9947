"""ConfigMap: settings for pods, as text and bytes."""

from __future__ import annotations

import binascii
import re

from minik8s.api.errors import Cause, forbidden, invalid
from minik8s.api.kinds.columns import AGE, NAME
from minik8s.api.meta import Object
from minik8s.api.resource import Column, Json, Resource


class ConfigMap(Object):
    data: dict[str, str] = {}
    binaryData: dict[str, str] = {}  # base64
    immutable: bool = False


SIZE_LIMIT = 1024 * 1024  # bytes of all values; MaxSecretSize, which config maps share
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


def count(obj: Json, now: float) -> int:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


def validate_data(obj: Json, old: Json | None) -> list[Cause]:
    """Also for secrets: keys are file names, the whole has a limit, and what is immutable stays."""
    causes = []
    size = 0
    for part in ("data", "binaryData"):
        encoded = part == "binaryData" or obj.get("kind") == "Secret"
        for key, value in (obj.get(part) or {}).items():
            size += len(binascii.a2b_base64(value)) if encoded else len(value.encode())
            if not KEY.fullmatch(key):
                causes.append(
                    invalid(f"{part}[{key}]", key, "a key must consist of alphanumeric characters, '-', '_' or '.'")
                )
            elif key == "." or key.startswith(".."):
                causes.append(invalid(f"{part}[{key}]", key, "a key must not be '.' or begin with '..'"))
    for key in sorted((obj.get("data") or {}).keys() & (obj.get("binaryData") or {}).keys()):
        causes.append(invalid("data", key, "duplicate of key present in binaryData"))
    if size > SIZE_LIMIT:
        causes.append(Cause("data", "FieldValueTooLong", f"Too long: may not be more than {SIZE_LIMIT} bytes"))
    if old is not None and old.get("immutable"):
        changed = [part for part in ("data", "binaryData", "immutable") if old.get(part) != obj.get(part)]
        causes += [forbidden(part, "field is immutable when `immutable` is set") for part in changed]
    return causes


RESOURCE = Resource(
    kind="ConfigMap",
    plural="configmaps",
    type=ConfigMap,
    definition="io.k8s.api.core.v1.ConfigMap",
    shortNames=("cm",),
    spec_generation=False,
    columns=(NAME, Column("Data", count, type="integer", description="How many entries."), AGE),
    validate=validate_data,
)
