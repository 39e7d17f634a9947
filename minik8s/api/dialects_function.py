"""Functions, Actions and HTTP triggers as older manifests have them.

    kind: Function, spec: {userUploadFilePath: DIR}           `func.py` and `requirements.txt` on the client's disk
    kind: Action, spec: {invokeActions: [names]}              its script comes by `minik8s apply -j`
    kind: Ingress, spec: {trigger, invokeAction, httpType}    a Trigger; Kubernetes' own Ingress has `rules`

Their names may have capitals and underscores (`addFive`); functions are called by lower case ones (`addfive`), so
names of functions are lowered wherever these dialects and those of Workflow have them, and by `Invoke` in their code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from minik8s.api.errors import BadRequest, Cause, Invalid, forbidden, not_supported, required
from minik8s.api.resource import Json

GROUP_VERSION: Final = "faas.minik8s.io/v1"
SOURCE_ANNOTATION: Final = "faas.minik8s.io/source"  # folder, file or archive on the client's disk: apply sends it
METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def function_name(name: str) -> str:
    """What a function is called that an older manifest calls `name`: `Add_Five` -> `add-five`."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")


def function(doc: Json) -> list[Json]:
    """`kind: Function` whose code lies in a folder of the client."""
    spec = doc.get("spec")
    if doc.get("apiVersion") == GROUP_VERSION or not isinstance(spec, dict):
        return [doc]
    _known(doc, spec, ("userUploadFilePath", "env", "resources", "invokeActions"), "Function")
    folder = spec.get("userUploadFilePath")
    if not isinstance(folder, str) or not folder:
        raise _wrong(doc, required("spec.userUploadFilePath", "the folder of func.py; a native Function has apiVersion "
                                   f"{GROUP_VERSION} and spec.code"))  # fmt: skip
    return [_native(doc, spec, {SOURCE_ANNOTATION: folder})]


def action(doc: Json) -> list[Json]:
    """`kind: Action`: a Function whose script `apply -j` brings."""
    spec = doc.get("spec") or {}
    if not isinstance(spec, dict):
        raise BadRequest(f"spec: expected a map, found {type(spec).__name__}")
    _known(doc, spec, ("invokeActions", "env", "resources"), "Action")
    return [_native(doc, spec, {})]


def trigger(doc: Json) -> list[Json]:
    """`kind: Ingress` with `trigger`; the caller has looked that it has no `rules`."""
    spec: Json = doc["spec"]
    _known(doc, spec, ("trigger", "invokeAction", "httpType"), "Ingress")
    path, target, method = spec.get("trigger"), spec.get("invokeAction"), spec.get("httpType") or ""
    if not isinstance(path, str) or not path:
        raise _wrong(doc, required("spec.trigger", "a path at the gateway, e.g. /hello"))
    if not isinstance(target, str) or not target:
        raise _wrong(doc, required("spec.invokeAction", "the name of the action that is called"))
    if method and str(method).upper() not in METHODS:
        raise _wrong(doc, not_supported("spec.httpType", method, METHODS))
    http = {"path": path if path.startswith("/") else f"/{path}"} | ({"method": method.upper()} if method else {})
    made: Json = {"function": function_name(target), "http": http}
    return [{"apiVersion": GROUP_VERSION, "kind": "Trigger", "metadata": _metadata(doc, {}), "spec": made}]


def _native(doc: Json, spec: Json, annotations: dict[str, str]) -> Json:
    made: Json = {key: spec[key] for key in ("env", "resources") if key in spec}
    targets = spec.get("invokeActions")
    if targets is not None:
        if not isinstance(targets, list) or not all(isinstance(each, str) for each in targets):
            raise BadRequest("spec.invokeActions: expected a list of names")
        made["invokes"] = [function_name(each) for each in targets]
    return {"apiVersion": GROUP_VERSION, "kind": "Function", "metadata": _metadata(doc, annotations), "spec": made}


def _metadata(doc: Json, annotations: dict[str, str]) -> Json:
    meta: Any = doc.get("metadata")
    if not isinstance(meta, dict):
        raise BadRequest("metadata: expected a map with the name")
    named = {"name": function_name(meta["name"])} if isinstance(meta.get("name"), str) else {}
    given = {**(meta.get("annotations") or {}), **annotations}
    return {**meta, **named} | ({"annotations": given} if given else {})


def _known(doc: Json, spec: Json, names: Sequence[str], kind: str) -> None:
    for path, part, known in (("", doc, ("apiVersion", "kind", "metadata", "spec", "status")), ("spec.", spec, names)):
        for key in part:
            if key not in known:
                detail = f"unknown field; this {kind} knows {', '.join(known)}"
                raise _wrong(doc, forbidden(f"{path}{key}", detail))


def _wrong(doc: Json, cause: Cause) -> Invalid:
    return Invalid(str(doc.get("kind")), str((doc.get("metadata") or {}).get("name", "")), [cause])
