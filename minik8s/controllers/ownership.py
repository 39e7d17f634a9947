"""Who manages what: the owner reference decides, labels only say what may be adopted.

An owner adopts orphans that its selector matches and releases what no longer matches. Before adopting it asks the API
itself, by uid, that it still exists and is not being deleted: a copy may be old, and a dead owner must not adopt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from minik8s.api.errors import Invalid, NotFound
from minik8s.api.meta import Json, Object
from minik8s.api.resource import Resource
from minik8s.client.base import STRATEGIC_MERGE_PATCH, Client
from minik8s.client.informer import Informer

T = TypeVar("T", bound=Object)
BY_CONTROLLER = "controller"  # informer index: uid of the managing owner; orphans are under their namespace
ORPHAN = "orphan:"


class Claims(NamedTuple):
    """What an owner has, may take and must let go."""

    kept: list[Any]
    adoptable: list[Any]
    released: list[Any]


def claims(owner: Object, matches: Callable[[Object], bool], candidates: Iterable[T]) -> Claims:
    """Sort `candidates` for `owner`: its own are kept or released, matching orphans are adoptable, others ignored."""
    result = Claims([], [], [])
    for candidate in candidates:
        reference = candidate.controller
        if reference is not None:
            if reference.uid == owner.metadata.uid:
                (result.kept if owner.deleting or matches(candidate) else result.released).append(candidate)
        elif not owner.deleting and not candidate.deleting and matches(candidate):
            result.adoptable.append(candidate)
    return result


def owner_reference(owner: Object, resource: Resource) -> Json:
    """The reference that makes `owner` the managing controller of a dependent."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def index_by_controller(informer: Informer[Any]) -> None:
    """Keep objects findable by the uid of their controller, and orphans by namespace."""
    informer.add_index(BY_CONTROLLER, _controller_of)


def _controller_of(obj: Object) -> tuple[str]:
    reference = obj.controller
    return (reference.uid if reference is not None else ORPHAN + obj.metadata.namespace,)


def owned(informer: Informer[T], owner: Object) -> list[T]:
    return list(informer.by_index(BY_CONTROLLER, owner.metadata.uid))


def orphans(informer: Informer[T], namespace: str) -> list[T]:
    return list(informer.by_index(BY_CONTROLLER, ORPHAN + namespace))


async def claim(client: Client, owner: Object, matches: Callable[[Object], bool], informer: Informer[T]) -> list[T]:
    """Adopt and release as `claims` says and return what `owner` manages now.

    What was released or vanished meanwhile is left out; the event of the change brings the owner back here.
    """
    found = claims(owner, matches, owned(informer, owner) + orphans(informer, owner.metadata.namespace))
    mine: list[T] = list(found.kept)
    if found.adoptable and await _still_lives(client, owner):
        reference = owner_reference(owner, client.resource(type(owner)))
        for orphan in found.adoptable:
            adopted = await _patch_owners(client, orphan, reference)
            if adopted is not None:
                mine.append(adopted)
    for lost in found.released:
        await _patch_owners(client, lost, {"$patch": "delete", "uid": owner.metadata.uid})
    return mine


async def _still_lives(client: Client, owner: Object) -> bool:
    try:
        live = await client.get(type(owner), owner.metadata.name, owner.metadata.namespace)
    except NotFound:
        return False
    return live.metadata.uid == owner.metadata.uid and not live.deleting


async def _patch_owners(client: Client, dependent: T, reference: Json) -> T | None:
    meta = dependent.metadata
    # The uid makes the patch fail on another object that took the same name meanwhile.
    patch = {"metadata": {"uid": meta.uid, "ownerReferences": [reference]}}
    try:
        return await client.patch(type(dependent), meta.name, meta.namespace, patch, content_type=STRATEGIC_MERGE_PATCH)
    except (NotFound, Invalid):
        return None  # gone, or somebody else's since: the event of that change will be looked at
