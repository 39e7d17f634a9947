"""What names and metadata may look like: the rules that hold for every kind."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from minik8s.api.errors import Cause, forbidden, invalid, required
from minik8s.api.resource import Json, Resource

SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no look-alikes: as Kubernetes' generated names
SUFFIX_LENGTH = 5
MAX_NAME = 253
MAX_LABEL = 63
MAX_ANNOTATIONS = 256 * 1024  # bytes over all keys and values

_SUBDOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_QUALIFIED = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_ANNOTATION = re.compile(_QUALIFIED.pattern, re.IGNORECASE)
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")

_SUBDOMAIN_RULE = "must consist of lower case letters, digits, '-' and '.', and begin and end with a letter or digit"
_LABEL_RULE = "must consist of lower case letters, digits and '-', and begin and end with a letter or digit"
_LABEL_1035_RULE = "must consist of lower case letters, digits and '-', begin with a letter, end with a letter or digit"
_PATH_GROUPS = ("rbac.authorization.k8s.io",)  # their names are paths' segments: `system:node`
_LABELS = ("namespaces", "services")


def generated(prefix: str, rng: random.Random) -> str:
    """A name that begins with `prefix` and fits in a label."""
    suffix = "".join(rng.choices(SUFFIX_ALPHABET, k=SUFFIX_LENGTH))
    return prefix[: MAX_LABEL - SUFFIX_LENGTH] + suffix


def name_fault(resource: Resource, name: str, field: str = "metadata.name") -> Cause | None:
    """What is wrong with the name of an object, with a proposal for one that is right."""
    if resource.group in _PATH_GROUPS:
        bad = name in (".", "..") or "/" in name or "%" in name
        return invalid(field, name, "may not be '.' or '..' and may not contain '/' or '%'") if bad else None
    rule, words, length = _SUBDOMAIN, "a lowercase RFC 1123 subdomain " + _SUBDOMAIN_RULE, MAX_NAME
    if not resource.group and resource.plural in _LABELS:
        rule, words, length = _LABEL, "a lowercase RFC 1123 label " + _LABEL_RULE, MAX_LABEL
        if resource.plural == "services":
            rule, words = _LABEL_1035, "a DNS-1035 label " + _LABEL_1035_RULE
    if len(name) > length:
        return invalid(field, name, f"must be no more than {length} characters")
    if rule.fullmatch(name):
        return None
    proposal = propose(name)
    hint = f" (for example '{proposal}')" if rule.fullmatch(proposal) else ""
    return invalid(field, name, words + hint)


def propose(name: str) -> str:
    """The nearest name that is allowed."""
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.") or "my-name"


def metadata_faults(meta: Json, resource: Resource) -> list[Cause]:
    """What is wrong with an object's metadata; its types have been checked."""
    causes: list[Cause] = []
    name = meta.get("name")
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    elif fault := name_fault(resource, name):
        causes.append(fault)
    for key, value in (meta.get("labels") or {}).items():
        if not _QUALIFIED.fullmatch(key):
            causes.append(invalid("metadata.labels", key, "a key is [prefix/]name, the name at most 63 characters"))
        if not _VALUE.fullmatch(value):
            rule = "a value is empty, or at most 63 letters, digits, '-', '_' and '.' between letters or digits"
            causes.append(invalid("metadata.labels", value, rule))
    if annotations := meta.get("annotations"):
        causes += _annotation_faults(annotations)
    for index, owner in enumerate(meta.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                causes.append(required(f"metadata.ownerReferences[{index}].{field}"))
    if sum(1 for owner in meta.get("ownerReferences") or () if owner.get("controller")) > 1:
        causes.append(forbidden("metadata.ownerReferences", "only one of them may be the controller"))
    for finalizer in meta.get("finalizers") or ():
        if not _QUALIFIED.fullmatch(finalizer):
            causes.append(invalid("metadata.finalizers", finalizer, "a finalizer is [prefix/]name"))
    return causes


def _annotation_faults(annotations: dict[str, str]) -> list[Cause]:
    causes = [
        invalid("metadata.annotations", key, "a key is [prefix/]name, the name at most 63 characters")
        for key in annotations
        if not _ANNOTATION.fullmatch(key)
    ]
    size = sum(len(key) + len(value) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS:
        causes.append(
            Cause("metadata.annotations", "FieldValueTooLong", f"Too long: {size} of {MAX_ANNOTATIONS} bytes")
        )
    return causes


def new_finalizers(old: Sequence[str], new: Sequence[str]) -> Cause | None:
    """Nobody may begin to hold back an object whose deletion has begun."""
    added: list[Any] = sorted(set(new) - set(old))
    if not added:
        return None
    detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
    return forbidden("metadata.finalizers", detail)
