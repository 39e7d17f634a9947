"""Which operations a row of the kinds table offers, at which paths: what both OpenAPI versions say of it.

Actions, operation names and parameters are Kubernetes' own: clients find a kind by the operations' group-version-kind
and decide by their parameters, e.g. kubectl validates on its own unless PATCH takes `fieldValidation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from minik8s.api.resource import Resource

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
CORE = "io.k8s.api.core.v1."


class Kind(NamedTuple):
    group: str
    version: str
    kind: str
    definition: str


class Param(NamedTuple):
    name: str
    type: str
    description: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One HTTP method on one path. `body` and `answer` are definitions; "" is no body, or an answer that is text."""

    method: str
    path: str
    action: str
    id: str
    description: str
    of: Kind
    params: tuple[Param, ...] = ()
    body: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """A row as one group-version shows it: its own, or an alias."""

    resource: Resource
    of: Kind

    @property
    def group_version(self) -> str:
        return f"{self.of.group}/{self.of.version}" if self.of.group else self.of.version


SCALE = Kind("autoscaling", "v1", "Scale", "io.k8s.api.autoscaling.v1.Scale")
EVICTION = Kind("policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction")
BINDING = Kind("", "v1", "Binding", f"{CORE}Binding")
TOKEN = Kind("authentication.k8s.io", "v1", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest")
_CONNECTS = {"exec": "PodExecOptions", "attach": "PodAttachOptions", "portforward": "PodPortForwardOptions"}
_PROXIES = {"pods": "PodProxyOptions", "services": "ServiceProxyOptions", "nodes": "NodeProxyOptions"}

PRETTY = Param("pretty", "string", "Whether the answer is indented for people: 'true' or 'false'.")
_DRY_RUN = Param("dryRun", "string", "'All': go through every step of the request, but store nothing.")
_WRITE = (
    _DRY_RUN,
    Param("fieldManager", "string", "The name of the client as the fields' manager, at most 128 characters."),
    Param("fieldValidation", "string", "What unknown and duplicate fields lead to: 'Ignore', 'Warn' or 'Strict'."),
)
_FORCE = Param("force", "boolean", "Take fields over from other managers; for apply patches only.")
_DELETE = (
    _DRY_RUN,
    Param("gracePeriodSeconds", "integer", "How long the object may take to end; 0 ends it at once."),
    Param("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    Param("propagationPolicy", "string", "What becomes of dependents: 'Orphan', 'Background' or 'Foreground'."),
)
_LIST = (
    Param("allowWatchBookmarks", "boolean", "The watch may send BOOKMARK events."),
    Param("continue", "string", "The token of the list's last page, to get the next."),
    Param("fieldSelector", "string", "Only objects whose fields match."),
    Param("labelSelector", "string", "Only objects whose labels match."),
    Param("limit", "integer", "At most this many objects in one page."),
    Param("resourceVersion", "string", "The revision that the answer may not be older than."),
    Param("resourceVersionMatch", "string", "How resourceVersion is meant: 'Exact' or 'NotOlderThan'."),
    Param("sendInitialEvents", "boolean", "Begin the watch with an ADDED event for each object there is."),
    Param("timeoutSeconds", "integer", "End the list or watch after this time."),
    Param("watch", "boolean", "Follow changes as a stream of events."),
)
_LOG = (
    Param("container", "string", "The container whose log is meant; not needed when there is one."),
    Param("follow", "boolean", "Go on as lines are written."),
    Param("limitBytes", "integer", "End after this many bytes."),
    Param("previous", "boolean", "The log of the container's last run."),
    Param("sinceSeconds", "integer", "Only lines not older than this."),
    Param("tailLines", "integer", "Only this many last lines."),
    Param("timestamps", "boolean", "Begin each line with its time in RFC 3339."),
)


def views(resource: Resource) -> list[View]:
    main = View(resource, Kind(resource.group, resource.version, resource.kind, resource.definition))
    return [main, *(View(resource, Kind(a.group, a.version, resource.kind, a.definition)) for a in resource.aliases)]


def operations(view: View) -> Iterator[Operation]:
    """Everything that is served for a row: the collection, the object, and its subresources."""
    resource, of = view.resource, view.of
    root = f"/apis/{view.group_version}" if of.group else f"/api/{of.version}"
    collection = f"{root}/namespaces/{{namespace}}" if resource.namespaced else root
    collection = f"{collection}/{resource.plural}"
    if resource.namespaced and "list" in resource.verbs:
        yield _operation(view, "get", f"{root}/{resource.plural}", "list", suffix="ForAllNamespaces")
    wanted = (
        ("list", "get", collection, "list"), ("create", "post", collection, "post"),
        ("deletecollection", "delete", collection, "deletecollection"), ("get", "get", f"{collection}/{{name}}", "get"),
        ("update", "put", f"{collection}/{{name}}", "put"), ("patch", "patch", f"{collection}/{{name}}", "patch"),
        ("delete", "delete", f"{collection}/{{name}}", "delete"),
    )  # fmt: skip
    for verb, method, path, action in wanted:
        if verb in resource.verbs:
            yield _operation(view, method, path, action)
    for name in sorted(resource.subresources):
        yield from _subresource(view, f"{collection}/{{name}}/{name}", name)


def _subresource(view: View, path: str, name: str) -> Iterator[Operation]:
    suffix = name.title()
    plural = view.resource.plural
    if name in ("binding", "eviction", "token"):
        of = {"binding": BINDING, "eviction": EVICTION, "token": TOKEN}[name]
        yield _operation(view, "post", path, "post", of=of, suffix=suffix)
    elif name == "log":
        yield _operation(view, "get", path, "get", suffix=suffix, params=_LOG, text=True)
    elif name in _CONNECTS or name == "proxy":
        kind = _CONNECTS.get(name) or _PROXIES.get(plural, "PodProxyOptions")
        for method in ("get", "post"):
            of = Kind("", "v1", kind, "")
            yield _operation(view, method, path, "connect", of=of, suffix=suffix, text=True)
    elif name == "finalize":
        yield _operation(view, "put", path, "put", suffix=suffix)
    else:
        of = SCALE if name == "scale" else view.of
        for method in ("get", "put", "patch"):
            yield _operation(view, method, path, method, of=of, suffix=suffix)


_PARAMS = {
    "list": _LIST, "post": _WRITE, "put": _WRITE, "patch": (*_WRITE, _FORCE), "delete": _DELETE,
    "deletecollection": (*_DELETE, *(param for param in _LIST if param.name not in ("watch", "allowWatchBookmarks"))),
}  # fmt: skip
_WORDS = {
    "list": ("list", "list or watch objects of kind"), "post": ("create", "create a"), "get": ("read", "read the"),
    "put": ("replace", "replace the"), "patch": ("patch", "partially update the"), "delete": ("delete", "delete a"),
    "deletecollection": ("deleteCollection", "delete a collection of"), "connect": ("connect", "connect to the"),
}  # fmt: skip


def _operation(
    view: View,
    method: str,
    path: str,
    action: str,
    *,
    of: Kind | None = None,
    suffix: str = "",
    params: tuple[Param, ...] | None = None,
    text: bool = False,
) -> Operation:
    subject = of or view.of
    word, phrase = _WORDS[action]
    verb = f"{word}{method.title()}" if action == "connect" else word
    scope = "Namespaced" if "{namespace}" in path else ""
    group = "".join(part.title() for part in (view.of.group or "core").split(".")[0].split("-"))
    answers = {"list": f"{subject.definition}List", "delete": f"{META}Status", "deletecollection": f"{META}Status"}
    bodies = {"post": subject.definition, "put": subject.definition, "patch": f"{META}Patch"}
    deletes = {"delete": f"{META}DeleteOptions", "deletecollection": f"{META}DeleteOptions"}
    return Operation(
        method=method,
        path=path,
        action=action,
        id=f"{verb}{group}{view.of.version.title()}{scope}{view.of.kind}{suffix}",
        description=f"{phrase} {view.of.kind}",
        of=subject,
        params=params if params is not None else _PARAMS.get(action, ()),
        body="" if text else (bodies | deletes).get(action, ""),
        answer="" if text else answers.get(action, subject.definition),
    )
