"""What the server owns of an object, as pure functions: identity, generation, and what an update may not change."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from minik8s.api.errors import BadRequest, Conflict
from minik8s.api.resource import Json, Resource
from minik8s.clock import rfc3339

_SERVER_META = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
_DROPPED_META = ("managedFields", "selfLink", "resourceVersion")
_TYPE = ("metadata", "apiVersion", "kind", "status")

Part = Callable[[Resource, Json, Json], Json]  # (resource, new, old) -> what is to be stored


def encode(obj: Json) -> bytes:
    """The template of an object, see `store.base`: metadata first, beginning with an empty resourceVersion.

    Empty labels, owners, finalizers and the like are left out, as Kubernetes does.
    """
    meta = {key: value for key, value in obj["metadata"].items() if value or value == 0}
    ordered = {"metadata": None, **obj}
    ordered["metadata"] = {"resourceVersion": "", **meta}
    return msgspec.json.encode(ordered)


def begin(resource: Resource, obj: Json, namespace: str, *, now: float, uid: str) -> None:
    """Give a new object its identity, in place."""
    meta = obj["metadata"]
    if meta.get("resourceVersion"):
        raise BadRequest("resourceVersion should not be set on objects to be created")
    for field in (*_SERVER_META, *_DROPPED_META):
        meta.pop(field, None)
    check_namespace(resource, meta, namespace)
    meta["uid"] = uid
    meta["creationTimestamp"] = rfc3339(now)
    if resource.spec_generation:
        meta["generation"] = 1


def check_namespace(resource: Resource, meta: Json, namespace: str) -> None:
    """The object is where the URL says."""
    if not resource.namespaced:
        meta.pop("namespace", None)
        return
    if meta.setdefault("namespace", namespace) != namespace:
        raise BadRequest(
            f"the namespace of the provided object does not match the namespace sent on the request: "
            f'"{meta["namespace"][:80]}" is not "{namespace}"'
        )


def main_part(resource: Resource, new: Json, old: Json) -> Json:
    """A client's update of the object itself: status stays, where that has a subresource of its own."""
    meta, before = new["metadata"], old["metadata"]
    for field in _DROPPED_META:
        meta.pop(field, None)
    for field in _SERVER_META:
        if field in before:
            meta[field] = before[field]
        else:
            meta.pop(field, None)
    if "status" in resource.subresources:
        if "status" in old:
            new["status"] = old["status"]
        else:
            new.pop("status", None)
    return new


def status_part(resource: Resource, new: Json, old: Json) -> Json:
    """An update of the status alone."""
    return {**old, "metadata": without_version(old["metadata"]), "status": new.get("status") or {}}


def whole(resource: Resource, new: Json, old: Json) -> Json:
    """The server's own update: what it made is stored."""
    new["metadata"] = without_version(new["metadata"])
    return new


def without_version(meta: Json) -> Json:
    return {key: value for key, value in meta.items() if key != "resourceVersion"}


def bump_generation(resource: Resource, new: Json, old: Json) -> None:
    """Count changes of what is wanted: everything but metadata and status. In place."""
    if resource.spec_generation and _wanted(new) != _wanted(old):
        new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


def _wanted(obj: Json) -> Json:
    return {key: value for key, value in obj.items() if key not in _TYPE}


def check_identity(resource: Resource, new: Json, old: Json) -> None:
    """An update means this very object, in the state its writer has seen (if it says which)."""
    meta, current = new["metadata"], old["metadata"]
    name = current["name"]
    if meta.setdefault("name", name) != name:
        raise BadRequest(f"the name of the object ({meta['name'][:253]}) does not match the name on the URL ({name})")
    check_namespace(resource, meta, current.get("namespace", ""))
    details = {"name": name, "kind": resource.plural} | ({"group": resource.group} if resource.group else {})
    if meta.get("uid") and meta["uid"] != current.get("uid"):
        text = f"Precondition failed: UID in precondition: {meta['uid'][:80]}, UID in object meta: {current.get('uid')}"
        raise Conflict(f'Operation cannot be fulfilled on {resource.name} "{name}": {text}', details=details)
    if meta.get("resourceVersion") and meta["resourceVersion"] != current["resourceVersion"]:
        raise modified(resource, name)


def modified(resource: Resource, name: str) -> Conflict:
    """The lost race, in the words that clients know."""
    details = {"name": name, "kind": resource.plural} | ({"group": resource.group} if resource.group else {})
    text = "the object has been modified; please apply your changes to the latest version and try again"
    return Conflict(f'Operation cannot be fulfilled on {resource.name} "{name}": {text}', details=details)
