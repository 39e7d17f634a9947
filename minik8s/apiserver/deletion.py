"""How an object goes: at once, or in two steps while finalizers or a grace period hold it. Pure decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from minik8s.api.errors import BadRequest, Conflict
from minik8s.api.meta import Struct
from minik8s.api.resource import Json, Resource
from minik8s.clock import parse_time, rfc3339

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"  # finalizers that the garbage collector works off
POLICIES = ("", "Background", "Foreground", "Orphan")


class Preconditions(Struct):
    uid: str | None = None
    resourceVersion: str | None = None


class DeleteOptions(Struct):
    gracePeriodSeconds: int | None = None
    propagationPolicy: str | None = None
    orphanDependents: bool | None = None
    preconditions: Preconditions | None = None
    dryRun: tuple[str, ...] | None = None


class Plan(NamedTuple):
    """`remove`: take it out of the store. Else store `obj` (or leave it alone, when it is as it was)."""

    remove: bool
    obj: Json


_decode = msgspec.json.Decoder(DeleteOptions).decode


def parse_options(body: bytes, query: Mapping[str, str]) -> DeleteOptions:
    """Options come in the body, or by the same names in the query."""
    try:
        if body:
            options = _decode(body)
        else:
            policy = query.get("propagationPolicy", "")
            grace = query.get("gracePeriodSeconds")
            orphan = query.get("orphanDependents")
            options = DeleteOptions(int(grace) if grace else None, policy, orphan == "true" if orphan else None)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadRequest(f"the delete options are not valid: {error}") from None
    if (options.propagationPolicy or "") not in POLICIES:
        raise BadRequest(f"propagationPolicy must be one of {', '.join(POLICIES[1:])}")
    if (options.gracePeriodSeconds or 0) < 0:
        raise BadRequest("gracePeriodSeconds must not be negative")
    return options


def held(obj: Json) -> bool:
    """Whether finalizers hold an object: its metadata's, or those that a Namespace has in its spec."""
    spec = obj.get("spec")
    in_spec = spec.get("finalizers") if obj["kind"] == "Namespace" and isinstance(spec, dict) else None
    return bool(obj["metadata"].get("finalizers") or in_spec)


def finished(obj: Json) -> bool:
    """Whether nothing is left that an object whose deletion has begun waits for."""
    meta = obj["metadata"]
    return bool(meta.get("deletionTimestamp")) and not meta.get("deletionGracePeriodSeconds") and not held(obj)


def check_preconditions(resource: Resource, obj: Json, wanted: Preconditions | None) -> None:
    if wanted is None:
        return
    meta = obj["metadata"]
    for field, label, value in (
        ("uid", "UID", wanted.uid),
        ("resourceVersion", "ResourceVersion", wanted.resourceVersion),
    ):
        if value and value != meta.get(field):
            text = f"the {label} in the precondition ({value[:80]}) does not match the {label} in record"
            text += f" ({meta.get(field)})"
            details = {"name": meta["name"], "kind": resource.plural}
            raise Conflict(
                f'Operation cannot be fulfilled on {resource.name} "{meta["name"]}": {text}', details=details
            )


def plan_delete(obj: Json, options: DeleteOptions, grace: int, now: float) -> Plan:
    """Decide over a freshly decoded object (which is changed). `grace` in seconds, what its kind grants it."""
    meta = obj["metadata"]
    meta.pop("resourceVersion", None)
    _set_policy(meta, options)
    if meta.get("deletionTimestamp"):
        left = meta.get("deletionGracePeriodSeconds") or 0
        if grace < left:  # a grace period may only become shorter
            begun = _begun(meta)
            meta["deletionGracePeriodSeconds"] = grace
            meta["deletionTimestamp"] = rfc3339(min(begun + grace, now + grace))
        return Plan(finished(obj), obj)
    if not grace and not held(obj):
        return Plan(True, obj)
    meta["deletionTimestamp"] = rfc3339(now + grace)
    meta["deletionGracePeriodSeconds"] = grace
    if "generation" in meta:
        meta["generation"] += 1
    if obj["kind"] == "Namespace":
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
    return Plan(False, obj)


def _begun(meta: Json) -> float:
    return parse_time(meta["deletionTimestamp"]) - (meta.get("deletionGracePeriodSeconds") or 0)


def _set_policy(meta: Json, options: DeleteOptions) -> None:
    """The garbage collector is told by a finalizer what is to become of the dependents."""
    policy = options.propagationPolicy or ("Orphan" if options.orphanDependents else "")
    if not policy and options.orphanDependents is None:
        return
    kept = [name for name in meta.get("finalizers") or () if name not in (FOREGROUND, ORPHAN)]
    kept += {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(policy, [])
    if kept:
        meta["finalizers"] = kept
    else:
        meta.pop("finalizers", None)


def pod_grace(pod: Json, wanted: int | None) -> int:
    """A pod that no node has taken, or that has ended, needs no time to end."""
    spec, phase = pod.get("spec") or {}, (pod.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    return int(spec.get("terminationGracePeriodSeconds") or 0 if wanted is None else wanted)


GRACEFUL: Mapping[str, Callable[[Json, int | None], int]] = {"pods": pod_grace}
"""The kinds whose objects end gracefully: stored object, wished seconds -> seconds."""
