"""Secret: what pods may know and logs may not."""

from __future__ import annotations

import base64

from minik8s.api.errors import Cause, invalid, required
from minik8s.api.kinds.columns import AGE, NAME
from minik8s.api.kinds.configmap import count, validate_data
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import Object
from minik8s.api.resource import Column, Json, Resource


class Secret(Object):
    type: str = "Opaque"
    data: dict[str, str] = {}  # base64
    immutable: bool = False


# What a type of secret must contain (core/v1 SecretType constants).
REQUIRED_KEYS = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def _prepare(secret: Json, old: Json | None) -> None:
    """`stringData` is write-only: it is encoded into `data`."""
    for key, value in (secret.pop("stringData", None) or {}).items():
        data = secret.get("data") or {}
        data[key] = base64.b64encode(value.encode()).decode()
        secret["data"] = data


def _default(secret: Json) -> None:
    fill(secret, "type", "Opaque")


def _validate(secret: Json, old: Json | None) -> list[Cause]:
    causes = validate_data(secret, old)
    for key in REQUIRED_KEYS.get(secret["type"], ()):
        if key not in (secret.get("data") or {}):
            causes.append(required(f"data[{key}]"))
    held = (secret.get("data") or {}).keys()
    if secret["type"] == "kubernetes.io/basic-auth" and not held & {"username", "password"}:
        causes.append(required("data[username]", "or data[password]"))
    if old is not None and old.get("type") != secret["type"]:
        causes.append(invalid("type", secret["type"], "field is immutable"))
    return causes


RESOURCE = Resource(
    kind="Secret",
    plural="secrets",
    type=Secret,
    definition="io.k8s.api.core.v1.Secret",
    spec_generation=False,
    columns=(
        NAME,
        Column("Type", lambda secret, now: secret.get("type", ""), description="What it is for."),
        Column("Data", count, type="integer", description="How many entries."),
        AGE,
    ),
    default=_default,
    validate=_validate,
    prepare=_prepare,
    selectable={"type": lambda secret: str(secret.get("type", ""))},
)
