"""FunctionRevision: what a Function was at one time, ready to be loaded. Its spec is for ever, its status a verdict.

`shape` is the hash of what makes the container: revisions of one shape are loaded into the same pods, side by side.
"""

from __future__ import annotations

from typing import Final

from minik8s.api.errors import Cause, invalid
from minik8s.api.kinds.columns import AGE, NAME, condition, dig
from minik8s.api.kinds.function import PROCESS, Code
from minik8s.api.kinds.pod import EnvVar, ResourceRequirements
from minik8s.api.kinds.workflow import GROUP
from minik8s.api.meta import Condition, Object, Struct
from minik8s.api.resource import Column, Json, Resource

SHARED: Final = "Shared"  # in the place of a function's name (which has no capitals): pods of many functions
SHAPE_LABEL: Final = f"{GROUP}/shape"  # of pods
LOADED, LOAD_ERROR = "Loaded", "LoadError"
CONTRACTS: Final = ("main", "action", "handler", "asgi", "wsgi", "cloudevent")


class FunctionRevisionSpec(Struct):
    function: str = ""
    number: int = 0
    code: Code = Code()  # sha256 and size alone
    handler: str = ""
    env: tuple[EnvVar, ...] = ()
    concurrency: int = 10
    workers: int = 1
    timeoutSeconds: int = 30
    maxBodyBytes: int = 8 * 2**20
    invokes: tuple[str, ...] = ()
    environment: str = ""  # "" = plain
    environmentHash: str = ""  # "plain" or an Environment's status.hash
    image: str = ""  # the Environment's; "" = the runtime image of the version that runs
    resources: ResourceRequirements = ResourceRequirements()
    nodeSelector: dict[str, str] = {}
    serviceAccountName: str = ""
    isolation: str = "Pod"
    shape: str = ""

    @property
    def crowd(self) -> str:
        """Whose pods it runs in: its function's, or SHARED."""
        return SHARED if self.isolation == PROCESS else self.function


class FunctionRevisionStatus(Struct):
    contract: str = ""  # one of CONTRACTS, as the runtime found it
    conditions: tuple[Condition, ...] = ()


class FunctionRevision(Object):
    spec: FunctionRevisionSpec = FunctionRevisionSpec()
    status: FunctionRevisionStatus = FunctionRevisionStatus()


def _prepare(revision: Json, old: Json | None) -> None:
    if old is None:
        revision.pop("status", None)


def _validate(revision: Json, old: Json | None) -> list[Cause]:
    if old is not None and (revision.get("spec") or {}) != (old.get("spec") or {}):
        return [invalid("spec", "...", "field is immutable: change the Function, and another revision is made")]
    return []


def _ready(revision: Json, now: float) -> str:
    return str((condition(revision, "Ready") or {}).get("status", "Unknown"))


RESOURCE = Resource(
    kind="FunctionRevision",
    plural="functionrevisions",
    singular="functionrevision",
    shortNames=("fnrev",),
    group=GROUP,
    type=FunctionRevision,
    definition="io.minik8s.api.faas.v1.FunctionRevision",
    subresources=frozenset(("status", "code", "settings")),
    columns=(
        NAME,
        Column("Function", lambda rev, now: dig(rev, "spec.function", ""), description="Whose it is."),
        Column("Ready", _ready, description="Whether it was loaded without a fault."),
        Column("Reason", lambda rev, now: (condition(rev, "Ready") or {}).get("reason", ""), description="Why not."),
        Column("Contract", lambda rev, now: dig(rev, "status.contract", ""), description="How its code is called."),
        AGE,
        Column("Code", lambda rev, now: dig(rev, "spec.code.sha256", "")[:12], priority=1,
               description="The beginning of the SHA-256 of its archive."),
        Column("Shape", lambda rev, now: dig(rev, "spec.shape", ""), priority=1,
               description="Which pods can hold it."),
    ),
    prepare=_prepare,
    validate=_validate,
    selectable={"spec.function": lambda rev: str(dig(rev, "spec.function", ""))},
)  # fmt: skip
