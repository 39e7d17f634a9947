"""What may pass from a browser to the API server: pure rules over one request. What they do not name is refused.

RBAC decides what a user may do; these rules only take away from that. The dashboard's origin must never show what a pod
or a node has written as a page (`proxy`; but a node's `/engine` is its kubelet's own JSON), credentials stay out of
browsers (Secrets' values, fresh tokens), and unless writing is switched on nothing is changed.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

from minik8s.api.errors import Forbidden, NotFound

Json = dict[str, Any]
READING = ("GET", "HEAD")
SUBRESOURCES = (
    "", "status", "scale", "log", "eviction",
    "graph", "history", "stop", "redrive",  # of workflows and their runs
    "calls", "deadletters",  # of functions
    "results",  # of GpuJobs
)  # fmt: skip
TEXTS = ("log", "graph")  # are passed on as plain text: a drawing is never shown as a page
ENGINE = "proxy/engine"  # of a node: its containers, images, volumes, networks
# Questions about oneself, which the API asks by POST.
QUESTIONS = ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews")
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # repeats a Secret's values


class Target(NamedTuple):
    """A path of the API: `resource` is "" for discovery (`/api/v1`, `/apis`, `/version`)."""

    path: str  # encoded, as it goes on
    resource: str = ""
    subresource: str = ""

    @property
    def is_log(self) -> bool:
        """Of a pod's container, or of any of a node's."""
        return self.subresource.rpartition("/")[2] == "log"

    @property
    def is_text(self) -> bool:
        return self.is_log or self.subresource in TEXTS

    @property
    def is_result(self) -> bool:
        """Results of a GpuJob: their index, all, or a file."""
        return self.resource == "gpujobs" and f"{self.subresource}/".startswith("results/")

    @property
    def is_engine(self) -> bool:
        return self.resource == "nodes" and f"{self.subresource}/".startswith(f"{ENGINE}/")


def target(path: str) -> Target:
    """Read a decoded path (`/api/v1/namespaces/a/pods/b`). Raises NotFound for what is no way into the API."""
    segments = path.strip("/").split("/")
    encoded = "/" + "/".join(quote(segment, safe="") for segment in segments)
    if segments == ["version"]:
        return Target(encoded)
    if segments[0] not in ("api", "apis") or any(segment in ("", ".", "..") for segment in segments):
        raise NotFound(f"{path} is no path of the API")
    rest = segments[2 if segments[0] == "api" else 3 :]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    return Target(encoded, rest[0] if rest else "", "/".join(rest[2:]))


def check(method: str, asked: Target, *, write: bool) -> None:
    """Raises Forbidden, saying why, unless the request may go on."""
    known = asked.subresource in SUBRESOURCES or asked.is_engine or asked.is_result
    if not known or asked.resource in ("proxy", "watch"):
        raise Forbidden(f"the dashboard does not pass on {asked.resource}/{asked.subresource}; use kubectl")
    if method in READING or (method == "POST" and asked.resource in QUESTIONS):
        return
    if not write:
        raise Forbidden("the dashboard is read-only; the master's setting --dashboard-write lets it change things")
    if asked.resource == "secrets" and method != "DELETE":
        raise Forbidden("the dashboard hides the values of Secrets, and so cannot change them; use kubectl")


def hidden(document: Json) -> Json:
    """A Secret, or a list of them, with its keys and without its values."""
    if isinstance(document.get("items"), list):
        return {**document, "items": [hidden(item) for item in document["items"]]}
    bare = {**document}
    for field in ("data", "stringData"):
        if isinstance(bare.get(field), dict):
            bare[field] = dict.fromkeys(bare[field], "")
    meta = bare.get("metadata") or {}
    if APPLIED in (meta.get("annotations") or {}):
        annotations = {key: value for key, value in meta["annotations"].items() if key != APPLIED}
        bare["metadata"] = {**meta, "annotations": annotations}
    return bare
