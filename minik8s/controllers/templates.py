"""Pod templates as they are stored, every field of them.

Structs know the fields that decisions need; a pod must get all that the user wrote. So the template of a workload is
read whole, once per generation, and kept while its owner is known.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from minik8s.api.errors import Conflict
from minik8s.api.meta import Json, Object
from minik8s.client.base import Client

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # as Kubernetes' names: no vowels, nothing that looks like another sign
HASH_LABEL = "pod-template-hash"


class Templates:
    """`spec.template` of objects, by uid and generation."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, tuple[int, Json]] = {}

    async def of(self, owner: Object) -> Json:
        """The template of exactly this generation of `owner`; Conflict if the object has moved on since."""
        meta = owner.metadata
        known = self._known.get(meta.uid)
        if known is not None and known[0] == meta.generation:
            return known[1]
        raw = await self._client.raw(type(owner), meta.name, meta.namespace)
        if (raw["metadata"]["uid"], raw["metadata"].get("generation", 0)) != (meta.uid, meta.generation):
            raise Conflict(f"{owner.key} has changed since it was read")
        template: Json = bare(raw["spec"]["template"])
        self._known[meta.uid] = (meta.generation, template)
        return template

    def forget(self, uid: str) -> None:
        self._known.pop(uid, None)


def bare(value: Any) -> Any:
    """A copy without nulls, which mean the same as absence (`creationTimestamp: null`)."""
    if isinstance(value, dict):
        return {key: bare(inner) for key, inner in value.items() if inner is not None}
    return [bare(inner) for inner in value] if isinstance(value, list) else value


def without_hash(template: Json) -> Json:
    """The template without the label that tells its versions apart: what is compared and hashed."""
    meta: Json = dict(template.get("metadata") or {})
    labels = {key: value for key, value in (meta.pop("labels", None) or {}).items() if key != HASH_LABEL}
    if labels:
        meta["labels"] = labels
    rest = {key: value for key, value in template.items() if key != "metadata"}
    return rest | ({"metadata": meta} if meta else {})


def template_hash(template: Json, collisions: int | None = None) -> str:
    """Ten characters that depend on the template alone, and on how often that name was taken by another one."""
    text = msgspec.json.encode(without_hash(template), order="deterministic") + str(collisions or "").encode()
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    signs = []
    for _ in range(10):
        number, digit = divmod(number, len(ALPHABET))
        signs.append(ALPHABET[digit])
    return "".join(signs)


def pod_from(template: Json, owner: Json, *, labels: Json | None = None, annotations: Json | None = None) -> Json:
    """A pod to create: metadata and spec of the template, owned by `owner` (an owner reference)."""
    given: Json = template.get("metadata") or {}
    meta: Json = {"generateName": f"{owner['name']}-", "ownerReferences": [owner]}
    if given.get("finalizers"):
        meta["finalizers"] = list(given["finalizers"])
    for key, more in (("labels", labels), ("annotations", annotations)):
        if merged := {**(given.get(key) or {}), **(more or {})}:
            meta[key] = merged
    return {"metadata": meta, "spec": template["spec"]}
