"""The metadata that every object carries, as frozen structs for those who read objects to decide something.

Structs are read-only views: the API server and the store keep the JSON whole; who writes, sends a patch or a dict.
Absent strings are "", absent lists are (), absent maps are {}; `None` only where absence means something of its own.
Field names are the wire's.
"""

from __future__ import annotations

from typing import Any, dataclass_transform

import msgspec


@dataclass_transform(frozen_default=True)
class Struct(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Base of all API structs: unknown fields are ignored, defaults are not encoded."""


class OwnerReference(Struct):
    apiVersion: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    blockOwnerDeletion: bool = False


class ObjectMeta(Struct):
    name: str = ""
    namespace: str = ""
    generateName: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generation: int = 0
    creationTimestamp: str = ""  # RFC 3339, whole seconds, Z
    deletionTimestamp: str = ""  # "" = not being deleted
    deletionGracePeriodSeconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    ownerReferences: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()


class Object(Struct):
    """Base of all kinds. `key` is `namespace/name`, or `name` for what has no namespace."""

    apiVersion: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()

    @property
    def key(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}" if self.metadata.namespace else self.metadata.name

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages this object, if it has one."""
        for reference in self.metadata.ownerReferences:  # no generator: half a dozen controllers ask of every pod
            if reference.controller:
                return reference
        return None

    @property
    def deleting(self) -> bool:
        return bool(self.metadata.deletionTimestamp)


class Condition(Struct):
    type: str = ""
    status: str = ""  # True | False | Unknown
    reason: str = ""
    message: str = ""
    lastTransitionTime: str = ""
    lastUpdateTime: str = ""
    lastHeartbeatTime: str = ""
    lastProbeTime: str = ""
    observedGeneration: int = 0


class LabelSelectorRequirement(Struct):
    key: str = ""
    operator: str = ""  # In | NotIn | Exists | DoesNotExist (node affinity also Gt | Lt)
    values: tuple[str, ...] = ()


class LabelSelector(Struct):
    """None of both selects everything, as in Kubernetes; no selector at all (None) selects nothing."""

    matchLabels: dict[str, str] = {}
    matchExpressions: tuple[LabelSelectorRequirement, ...] = ()


class LocalObjectReference(Struct):
    name: str = ""


class ObjectReference(Struct):
    apiVersion: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resourceVersion: str = ""
    fieldPath: str = ""


IntOrString = int | str
Json = dict[str, Any]


def condition(conditions: tuple[Condition, ...], type: str) -> Condition | None:
    for each in conditions:  # no generator: it is asked of every pod, before and after every change
        if each.type == type:
            return each
    return None


def is_true(conditions: tuple[Condition, ...], type: str) -> bool:
    found = condition(conditions, type)
    return found is not None and found.status == "True"
