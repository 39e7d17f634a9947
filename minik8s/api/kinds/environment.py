"""Environment: the packages that functions are run with, built once per hash, and pods that wait for a function.

apiVersion: faas.minik8s.io/v1
    kind: Environment
    metadata: {name: numeric}
    spec: {requirements: ["numpy==2.1.3"], poolSize: 1}
"""

from __future__ import annotations

import hashlib
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from minik8s import __version__
from minik8s.api.errors import Cause, invalid
from minik8s.api.kinds.columns import AGE, NAME, condition, dig
from minik8s.api.kinds.function import lines, validate_requirements
from minik8s.api.kinds.workflow import GROUP
from minik8s.api.meta import Condition, Object, Struct
from minik8s.api.resource import Column, Json, Resource

POOL_LABEL: Final = f"{GROUP}/pool"  # of idle pods: PLAIN or an environment's hash
PLAIN: Final = "plain"  # the hash of an environment that adds nothing
MAX_POOL: Final = 100


class EnvironmentSpec(Struct):
    requirements: Any = ()  # a list of texts once it is admitted
    image: str = ""  # "" = the runtime image of this version
    findLinks: str = ""  # a folder of wheels on nodes
    indexUrl: str = ""  # a package index (PEP 503) that pods can reach; "" = pip's own
    poolSize: int = 1


class EnvironmentStatus(Struct):
    hash: str = ""
    pool: int = 0  # idle pods that are ready
    nodes: tuple[str, ...] = ()  # on which it is built
    installed: tuple[str, ...] = ()  # what the first build took, name==version; later ones take the same
    conditions: tuple[Condition, ...] = ()
    observedGeneration: int = 0


class Environment(Object):
    spec: EnvironmentSpec = EnvironmentSpec()
    status: EnvironmentStatus = EnvironmentStatus()


def environment_hash(spec: EnvironmentSpec) -> str:
    """PLAIN, or 16 hexadecimal digits that change with what is built, and with nothing else (packages are built anew
    for another version of minik8s, whose image may have another Python)."""
    if not spec.requirements and not spec.image:
        return PLAIN
    made_of = [sorted(set(spec.requirements)), spec.image or __version__, spec.findLinks]
    made_of += [spec.indexUrl] if spec.indexUrl else []
    return hashlib.sha256(msgspec.json.encode(made_of)).hexdigest()[:16]


def _default(environment: Json) -> None:
    spec = environment.setdefault("spec", {})
    if isinstance(spec, dict):
        spec.setdefault("poolSize", 1)  # 0 means none
        lines(spec, "requirements")


def _prepare(environment: Json, old: Json | None) -> None:
    if old is None:
        environment.pop("status", None)


def _validate(environment: Json, old: Json | None) -> list[Cause]:
    spec = environment.get("spec") or {}
    causes = list(validate_requirements(spec.get("requirements"), "spec.requirements"))
    if not 0 <= spec.get("poolSize", 1) <= MAX_POOL:
        causes.append(invalid("spec.poolSize", spec["poolSize"], f"must be between 0 and {MAX_POOL}, inclusive"))
    image, folder = spec.get("image") or "", spec.get("findLinks") or ""
    if image != image.strip():
        causes.append(invalid("spec.image", image, "must not have leading or trailing whitespace"))
    if folder and (not folder.startswith("/") or ".." in folder.split("/") or "\0" in folder):
        causes.append(invalid("spec.findLinks", folder, "must be a folder's absolute path on nodes, without '..'"))
    return causes + _index_faults(spec.get("indexUrl") or "")


def _index_faults(url: str) -> list[Cause]:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = None
    if url and (not good or not url.isprintable() or " " in url or parts.query or parts.fragment):
        return [
            invalid("spec.indexUrl", url, "must be the URL of a package index, such as https://pypi.example/simple/")
        ]
    if url and (parts.username is not None or parts.password is not None):
        return [invalid("spec.indexUrl", f"{parts.scheme}://…@{parts.hostname}/…",
                        "must not contain a user or password: whoever reads Environments would learn it")]  # fmt: skip
    return []


def _ready(environment: Json, now: float) -> str:
    return str((condition(environment, "Ready") or {}).get("status", "Unknown"))


def _requirements(environment: Json, now: float) -> int:
    found = dig(environment, "spec.requirements")
    return len(found) if isinstance(found, list) else 0


def _pool(environment: Json, now: float) -> str:
    return f"{dig(environment, 'status.pool', 0)}/{dig(environment, 'spec.poolSize', 0)}"


RESOURCE = Resource(
    kind="Environment",
    plural="environments",
    singular="environment",
    shortNames=("fnenv",),
    group=GROUP,
    type=Environment,
    definition="io.minik8s.api.faas.v1.Environment",
    subresources=frozenset(("status",)),
    columns=(
        NAME,
        Column("Ready", _ready, description="Whether it is built."),
        Column("Reason", lambda env, now: (condition(env, "Ready") or {}).get("reason", ""), description="Why not."),
        Column("Requirements", _requirements, type="integer",
               description="How many are written down."),
        Column("Pool", _pool, description="Idle pods that are ready, of those wanted in a namespace."),
        AGE,
        Column("Hash", lambda env, now: dig(env, "status.hash", ""), priority=1, description="Of what is built."),
    ),
    default=_default,
    prepare=_prepare,
    validate=_validate,
)  # fmt: skip
