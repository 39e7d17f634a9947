"""Function: code that is called over HTTP, with as many pods as its calls need, none included.

    apiVersion: faas.minik8s.io/v1
    kind: Function
    metadata: {name: hello}
    spec:
      code:
        inline: |
          def main(params):
              return {"hello": params.get("name", "world")}

Every change of what would run makes a FunctionRevision; calls go to revisions that were loaded without a fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from minik8s.api.errors import Cause, duplicate, forbidden, invalid, required
from minik8s.api.kinds.columns import AGE, NAME, condition, dig
from minik8s.api.kinds.pod import EnvVar, ResourceRequirements
from minik8s.api.kinds.pod_validation import validate_env, validate_resources
from minik8s.api.kinds.validation import (
    DNS_LABEL,
    DNS_LABEL_HINT,
    DNS_SUBDOMAIN,
    DNS_SUBDOMAIN_HINT,
    choice,
    validate_labels,
)
from minik8s.api.kinds.workflow import GROUP
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import Condition, LocalObjectReference, Object, Struct
from minik8s.api.resource import Column, Json, Resource

LABEL: Final = f"{GROUP}/function"  # of pods and revisions: the function's name
RUNTIME_SECRET: Final = "kube-system/function-runtime"  # noqa: S105  # its key `hmac` makes pods' control tokens
POD, PROCESS = "Pod", "Process"
MAX_CODE: Final = 64 * 2**20  # bytes of the packed code
MAX_INLINE: Final = 256 * 2**10  # characters; larger code is uploaded, for every list of functions carries it
MAX_BODY: Final = 64 * 2**20  # bytes
MAX_NAME: Final = 57  # revisions are called NAME-00001, in 63 characters
DEFAULT_RESOURCES: Final = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}}
NUMBERS: Final = {  # field -> (default, least, most)
    "concurrency": (10, 1, 1000), "workers": (1, 1, 64), "timeoutSeconds": (30, 1, 900),
    "maxBodyBytes": (8 * 2**20, 1, MAX_BODY), "revisionHistoryLimit": (10, 1, 100),
}  # fmt: skip
SCALE: Final = {
    "minReplicas": (0, 0, 1000), "maxReplicas": (10, 1, 1000), "targetUtilization": (70, 1, 100),
    "idleSeconds": (60, 1, 86400),
}  # fmt: skip
ASYNC: Final = {"maxAttempts": (3, 1, 100), "maxAgeSeconds": (21600, 1, 14 * 86400), "backoffSeconds": (1, 1, 3600)}

HANDLER = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*)?")
SHA256 = re.compile(r"[0-9a-f]{64}")
SOURCES: Final = ("sha256", "configMap", "inline")  # of code, one of them
REQUIREMENT = re.compile(r"(?!-)[^\x00-\x1f]{1,500}")


class Code(Struct):
    """One of: an archive by its hash (put to the subresource `code`), a ConfigMap's files, the text of func.py."""

    sha256: str = ""
    size: int = 0
    configMap: LocalObjectReference | None = None
    inline: str = ""


class Scale(Struct):
    minReplicas: int = 0
    maxReplicas: int = 10
    targetUtilization: int = 70  # percent of concurrency that a replica is meant to have in flight
    idleSeconds: int = 60


class Share(Struct):
    revision: str = ""
    percent: int = 0


class Destination(Struct):
    function: str = ""
    url: str = ""


class Asynchronous(Struct):
    maxAttempts: int = 3
    maxAgeSeconds: int = 21600
    backoffSeconds: int = 1
    onSuccess: Destination | None = None
    onFailure: Destination | None = None


class FunctionSpec(Struct):
    handler: str = ""
    code: Code = Code()
    environment: str = ""
    requirements: Any = ()  # a list of texts once it is admitted
    env: tuple[EnvVar, ...] = ()
    resources: ResourceRequirements = ResourceRequirements()
    nodeSelector: dict[str, str] = {}
    invokes: tuple[str, ...] = ()
    concurrency: int = 10
    workers: int = 1
    timeoutSeconds: int = 30
    maxBodyBytes: int = 8 * 2**20
    scale: Scale = Scale()
    isolation: str = POD
    traffic: tuple[Share, ...] = ()
    asynchronous: Asynchronous = msgspec.field(default=Asynchronous(), name="async")
    serviceAccountName: str = ""
    revisionHistoryLimit: int = 10


class FunctionStatus(Struct):
    observedGeneration: int = 0
    latestRevision: str = ""
    readyRevision: str = ""
    traffic: tuple[Share, ...] = ()
    replicas: int = 0
    desiredReplicas: int = 0
    reason: str = ""  # why that number, a sentence
    url: str = ""
    conditions: tuple[Condition, ...] = ()


class Function(Object):
    spec: FunctionSpec = FunctionSpec()
    status: FunctionStatus = FunctionStatus()


def _default(function: Json) -> None:
    spec = function.setdefault("spec", {})
    if not isinstance(spec, dict):
        return
    for name, (usual, _, _) in NUMBERS.items():
        spec.setdefault(name, usual)  # 0 is not the same as nothing: it is refused
    fill(spec, "isolation", POD)
    for name, numbers in (("scale", SCALE), ("async", ASYNC)):
        part = spec.setdefault(name, {})
        for field, (usual, _, _) in numbers.items() if isinstance(part, dict) else ():
            part.setdefault(field, usual)
    if not spec.get("resources"):
        spec["resources"] = {kind: dict(values) for kind, values in DEFAULT_RESOURCES.items()}
    lines(spec, "requirements")


def lines(spec: Json, name: str) -> None:
    """Requirements are taken as a list or as the text of a requirements.txt, and kept as a list."""
    value = spec.get(name)
    if isinstance(value, str):
        cut = (re.sub(r"(^|\s)#.*", "", line).strip() for line in value.splitlines())
        spec[name] = [line for line in cut if line]


def _prepare(function: Json, old: Json | None) -> None:
    if old is None:
        function.pop("status", None)
        return
    code, before = ((each.get("spec") or {}).get("code") or {} for each in (function, old))
    given = [name for name in SOURCES if code.get(name)]
    for name in [each for each in given if code[each] == before.get(each)] if len(given) > 1 else ():
        # What was there before gives way to what is new: who applies a manifest does not know of code sent since.
        del code[name]
        if name == "sha256":
            code.pop("size", None)


def _validate(function: Json, old: Json | None) -> list[Cause]:
    spec = function.get("spec") or {}
    name = function["metadata"].get("name", "")
    causes = [
        *_code(spec.get("code") or {}), *validate_requirements(spec.get("requirements"), "spec.requirements"),
        *_numbers(spec, "spec", NUMBERS), *_scale(spec.get("scale") or {}), *_traffic(spec.get("traffic") or (), name),
        *_asynchronous(spec.get("async") or {}), *choice(spec, "spec", "isolation", (POD, PROCESS)),
        *_names(spec), *validate_labels(spec.get("nodeSelector") or {}, "spec.nodeSelector"),
        *validate_resources(spec.get("resources") or {}, "spec.resources"),
    ]  # fmt: skip
    if name and (not DNS_LABEL.fullmatch(name) or len(name) > MAX_NAME):
        causes.append(invalid("metadata.name", name, f"{DNS_LABEL_HINT}, of at most {MAX_NAME} characters"))
    if spec.get("environment") and spec.get("requirements"):
        causes.append(forbidden("spec.requirements", "may not be set together with `environment`: "
                                "write them into that Environment"))  # fmt: skip
    for index, variable in enumerate(spec.get("env") or ()):
        causes += validate_env(variable, f"spec.env[{index}]")
        for source in ("fieldRef", "resourceFieldRef"):
            if (variable.get("valueFrom") or {}).get(source):
                detail = "variables belong to a revision, not to a pod: use configMapKeyRef, secretKeyRef or value"
                causes.append(forbidden(f"spec.env[{index}].valueFrom.{source}", detail))
    return causes


def _code(code: Json) -> Iterator[Cause]:
    given = [name for name in SOURCES if code.get(name)]
    if len(given) > 1:
        yield forbidden(f"spec.code.{given[1]}", f"may not be set together with `{given[0]}`")
    if code.get("sha256"):
        if not SHA256.fullmatch(code["sha256"]):
            yield invalid("spec.code.sha256", code["sha256"], "64 digits of hexadecimal")
        if not 0 < (code.get("size") or 0) <= MAX_CODE:
            yield invalid("spec.code.size", code.get("size"), f"1 to {MAX_CODE} bytes, the archive's")
    elif code.get("size"):
        yield required("spec.code.sha256", "the SHA-256 of the archive whose size is given")
    if code.get("configMap") is not None and not code["configMap"].get("name"):
        yield required("spec.code.configMap.name", "a ConfigMap of this namespace whose keys are files")
    if len(code.get("inline") or "") > MAX_INLINE:
        yield invalid("spec.code.inline", f"{code['inline'][:20]}…", f"at most {MAX_INLINE} characters: "
                      "upload larger code with minik8s func add")  # fmt: skip


def validate_requirements(value: Any, path: str) -> Iterator[Cause]:
    if value is not None and not isinstance(value, list):
        yield invalid(path, value, "must be a list of requirements, or the text of a requirements.txt")
    for index, line in enumerate(value if isinstance(value, list) else ()):
        if not isinstance(line, str) or not REQUIREMENT.fullmatch(line):
            yield invalid(f"{path}[{index}]", line, "must be one requirement, e.g. numpy==2.1; no options of pip")


def _numbers(spec: Json, path: str, limits: dict[str, tuple[int, int, int]]) -> Iterator[Cause]:
    for name, (usual, least, most) in limits.items():
        if not least <= spec.get(name, usual) <= most:
            yield invalid(f"{path}.{name}", spec[name], f"must be between {least} and {most}, inclusive")


def _scale(scale: Json) -> Iterator[Cause]:
    faults = list(_numbers(scale, "spec.scale", SCALE))
    yield from faults
    if not faults and scale.get("minReplicas", 0) > scale.get("maxReplicas", 10):
        yield invalid("spec.scale.minReplicas", scale["minReplicas"],
                      f"must not be more than maxReplicas ({scale.get('maxReplicas', 10)})")  # fmt: skip


def _traffic(traffic: Any, function: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, share in enumerate(traffic):
        here, name = f"spec.traffic[{index}]", share.get("revision") or ""
        if not name:
            yield required(f"{here}.revision", f"a FunctionRevision of this function, e.g. {function}-00001")
        elif name in seen:
            yield duplicate(f"{here}.revision", name)
        elif function and not re.fullmatch(re.escape(function) + r"-\d{5,}", name):
            yield invalid(f"{here}.revision", name, f"must be a revision of this function, e.g. {function}-00001")
        seen.add(name)
        if not 0 <= share.get("percent", 0) <= 100:
            yield invalid(f"{here}.percent", share["percent"], "must be between 0 and 100, inclusive")
    total = sum(share.get("percent", 0) for share in traffic)
    if traffic and total != 100:
        yield invalid("spec.traffic", f"{total} percent", "the shares must be 100 percent together")


def _asynchronous(part: Json) -> Iterator[Cause]:
    yield from _numbers(part, "spec.async", ASYNC)
    for name in ("onSuccess", "onFailure"):
        destination = part.get(name)
        if destination is None:
            continue
        here, function, url = f"spec.async.{name}", destination.get("function"), destination.get("url")
        if bool(function) == bool(url):
            yield invalid(here, destination, "must name one of: `function` or `url`")
        elif function and not DNS_LABEL.fullmatch(function):
            yield invalid(f"{here}.function", function, DNS_LABEL_HINT)
        elif url and not re.fullmatch(r"https?://[^\s/]\S*", url):
            yield invalid(f"{here}.url", url, "must begin with http:// or https:// and hold no spaces")


def _names(spec: Json) -> Iterator[Cause]:
    handler = spec.get("handler") or ""
    if handler and not HANDLER.fullmatch(handler):
        yield invalid("spec.handler", handler, "write module:name, e.g. func:main, or module")
    for name in ("environment", "serviceAccountName"):
        if spec.get(name) and not DNS_SUBDOMAIN.fullmatch(spec[name]):
            yield invalid(f"spec.{name}", spec[name], DNS_SUBDOMAIN_HINT)
    for index, target in enumerate(spec.get("invokes") or ()):
        if not DNS_LABEL.fullmatch(target):
            yield invalid(f"spec.invokes[{index}]", target, DNS_LABEL_HINT)


def _ready(function: Json, now: float) -> str:
    return str((condition(function, "Ready") or {}).get("status", "Unknown"))


def _why(function: Json, now: float) -> str:
    known = condition(function, "Ready") or {}
    return "" if known.get("status") == "True" else str(known.get("reason", ""))


def _replicas(function: Json, now: float) -> str:
    return f"{dig(function, 'status.replicas', 0)}/{dig(function, 'status.desiredReplicas', 0)}"


RESOURCE = Resource(
    kind="Function",
    plural="functions",
    singular="function",
    shortNames=("fn",),
    categories=("all",),
    group=GROUP,
    type=Function,
    definition="io.minik8s.api.faas.v1.Function",
    subresources=frozenset(("status", "code", "calls", "deadletters")),
    columns=(
        NAME,
        Column("Ready", _ready, description="Whether the code that was given last can be called."),
        Column("Reason", _why, description="Why it cannot."),
        Column("Revision", lambda fn, now: dig(fn, "status.readyRevision", ""), description="The newest that can."),
        Column("Replicas", _replicas, description="Pods that are ready, of those that are wanted."),
        Column("URL", lambda fn, now: dig(fn, "status.url", ""), description="Its path at every gateway."),
        AGE,
        Column("Environment", lambda fn, now: dig(fn, "spec.environment", ""), priority=1,
               description="What it is run with."),
        Column("Why", lambda fn, now: dig(fn, "status.reason", ""), priority=1,
               description="Why so many replicas are wanted."),
    ),
    default=_default,
    validate=_validate,
    prepare=_prepare,
)  # fmt: skip
