"""Objects whose owners are gone go too; owners may wait for their dependents, or let them go free.

The copies of all kinds' metadata, indexed by owner uid, are the graph. Nothing is deleted on the word of a copy: that
an owner is absent is asked of the API, by uid, right before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from minik8s.api.errors import NotFound
from minik8s.api.kinds.event import Event
from minik8s.api.meta import Json, Object, ObjectMeta, OwnerReference
from minik8s.api.resource import Resource
from minik8s.client.base import STRATEGIC_MERGE_PATCH, Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informer, Informers

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
BY_OWNER = "owner"


class Owners(NamedTuple):
    """An object's owner references by what became of the owners."""

    solid: list[OwnerReference]
    absent: list[OwnerReference]
    waiting: list[OwnerReference]  # being deleted in the foreground: they wait for their dependents to go first


def policy(meta: ObjectMeta) -> str:
    """How an object's own dependents are to be treated when it is collected: as its finalizers say."""
    if ORPHAN in meta.finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in meta.finalizers else "Background"


def finalizing(obj: Object) -> bool:
    """Being deleted, and its dependents are our business first."""
    return obj.deleting and (FOREGROUND in obj.metadata.finalizers or ORPHAN in obj.metadata.finalizers)


class GarbageCollector(Controller):
    """Keys are `resource name|object key`."""

    name = "generic-garbage-collector"
    workers = 8

    def __init__(self, client: Client, informers: Informers) -> None:
        super().__init__(client, informers)
        self._informers: dict[str, Informer[Object]] = {}
        for resource in client.scheme.resources:
            if "delete" in resource.verbs and resource.type is not Event:  # Events are many and never own anything
                self._follow(resource)

    def _follow(self, resource: Resource) -> None:
        informer = self._informers[resource.name] = self.informers.metadata(resource)
        informer.add_index(BY_OWNER, lambda obj: [ref.uid for ref in obj.metadata.ownerReferences])
        informer.on_change(lambda old, new: self._changed(resource, old, new))

    # -- what to look at

    def _changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._wake_dependents(old)
        if old is not None and (new is None or new.metadata.ownerReferences != old.metadata.ownerReferences):
            self._wake_waiting_owners(old)
        if new is None:
            return
        changed = old is None or old.metadata.ownerReferences != new.metadata.ownerReferences
        if finalizing(new) or (changed and not new.deleting and not self._all_known(new)):
            self.queue.add(f"{resource.name}|{new.key}")

    def _all_known(self, obj: Object) -> bool:
        """Whether the copies know all owners, alive; what they do not know must be asked for."""
        for reference in obj.metadata.ownerReferences:
            owner = self._known_owner(obj.metadata, reference)
            if owner is None or owner.deleting:
                return False
        return True

    def _wake_dependents(self, owner: Object) -> None:
        for name, key, _ in self._dependents(owner.metadata.uid):
            self.queue.add(f"{name}|{key}")

    def _wake_waiting_owners(self, dependent: Object) -> None:
        for reference in dependent.metadata.ownerReferences:
            owner = self._known_owner(dependent.metadata, reference)
            if owner is not None and finalizing(owner):
                resource = self.client.scheme.by_kind(reference.apiVersion, reference.kind)
                if resource is not None:
                    self.queue.add(f"{resource.name}|{owner.key}")

    def _dependents(self, uid: str) -> list[tuple[str, str, Object]]:
        return [
            (name, each.key, each)
            for name, informer in self._informers.items()
            for each in informer.by_index(BY_OWNER, uid)
        ]

    def _known_owner(self, dependent: ObjectMeta, reference: OwnerReference) -> Object | None:
        resource = self.client.scheme.by_kind(reference.apiVersion, reference.kind)
        informer = self._informers.get(resource.name) if resource is not None else None
        if resource is None or informer is None:
            return None
        owner = informer.get(dependent.namespace if resource.namespaced else None, reference.name)
        return owner if owner is not None and owner.metadata.uid == reference.uid else None

    # -- what to do

    async def reconcile(self, key: str) -> float | None:
        name, _, object_key = key.partition("|")
        known = self._informers[name].by_key(object_key)
        if known is None:
            return None
        resource = self._informers[name].resource
        live = await self._live(resource, known.metadata.namespace, known.metadata.name)
        if live is None or live.uid != known.metadata.uid:
            return None
        if not live.deletionTimestamp:
            await self._collect(resource, live)
        elif ORPHAN in live.finalizers:
            await self._free_dependents(live)
            await self._drop_finalizer(resource, live, ORPHAN)
        elif FOREGROUND in live.finalizers:
            await self._finish_foreground(resource, live)
        return None

    async def _live(self, resource: Resource, namespace: str, name: str) -> ObjectMeta | None:
        try:
            raw = await self.client.raw(resource, name, namespace or None)
        except NotFound:
            return None
        return msgspec.convert(raw["metadata"], ObjectMeta)

    async def _sort_owners(self, meta: ObjectMeta) -> Owners:
        owners = Owners([], [], [])
        for reference in meta.ownerReferences:
            resource = self.client.scheme.by_kind(reference.apiVersion, reference.kind)
            if resource is None or (resource.namespaced and not meta.namespace):
                # Nobody can tell whether such an owner exists: a kind that is not served, or a cluster-wide object
                # that names an owner in some namespace. Kubernetes does not collect these either.
                owners.solid.append(reference)
                continue
            namespace = meta.namespace if resource.namespaced else ""
            owner = await self._live(resource, namespace, reference.name)
            if owner is None or owner.uid != reference.uid:
                owners.absent.append(reference)
            elif owner.deletionTimestamp and FOREGROUND in owner.finalizers:
                owners.waiting.append(reference)
            else:
                owners.solid.append(reference)
        return owners

    async def _collect(self, resource: Resource, meta: ObjectMeta) -> None:
        """Delete the object if no owner holds it any more, or cut the references to those that do not."""
        if not meta.ownerReferences:
            return
        owners = await self._sort_owners(meta)
        if owners.solid:
            if gone := [*owners.absent, *owners.waiting]:
                await self._cut(resource, meta, [ref.uid for ref in gone])
            return
        how = policy(meta)
        if owners.waiting and (dependents := self._dependents(meta.uid)):
            # An owner waits for us and we have dependents: they go first. In a circle somebody must not be waited for.
            if any(finalizing(each) for _, _, each in dependents):
                await self._unblock(resource, meta)
            how = "Foreground"
        try:
            await self.client.delete(
                resource, meta.name, meta.namespace or None, propagation=how, uid=meta.uid,
                resource_version=meta.resourceVersion,
            )  # fmt: skip
        except NotFound:
            return

    async def _finish_foreground(self, resource: Resource, meta: ObjectMeta) -> None:
        """Let the owner go once no dependent that blocks it is left; until then see that they are deleted."""
        blocked = False
        for name, key, dependent in self._dependents(meta.uid):
            if dependent.metadata.namespace != meta.namespace and meta.namespace:
                continue
            blocked |= any(r.uid == meta.uid and r.blockOwnerDeletion for r in dependent.metadata.ownerReferences)
            if not dependent.deleting:
                self.queue.add(f"{name}|{key}")
        if not blocked:
            await self._drop_finalizer(resource, meta, FOREGROUND)

    async def _free_dependents(self, owner: ObjectMeta) -> None:
        """Take the owner out of its dependents. Read from the API: one that a copy misses would be deleted later."""
        for resource in [informer.resource for informer in self._informers.values()]:
            if owner.namespace and not resource.namespaced:
                continue
            for each in (await self.client.list_as(resource, Object, owner.namespace or None)).items:
                if any(reference.uid == owner.uid for reference in each.metadata.ownerReferences):
                    await self._cut(resource, each.metadata, [owner.uid])

    async def _cut(self, resource: Resource, meta: ObjectMeta, uids: list[str]) -> None:
        await self._patch_references(resource, meta, [{"$patch": "delete", "uid": uid} for uid in uids])

    async def _unblock(self, resource: Resource, meta: ObjectMeta) -> None:
        blocking = [ref for ref in meta.ownerReferences if ref.blockOwnerDeletion]
        await self._patch_references(resource, meta, [{"uid": r.uid, "blockOwnerDeletion": False} for r in blocking])

    async def _patch_references(self, resource: Resource, meta: ObjectMeta, references: list[Json]) -> None:
        patch: Json = {"metadata": {"uid": meta.uid, "ownerReferences": references}}
        await self._patch(resource, meta, patch, content_type=STRATEGIC_MERGE_PATCH)

    async def _drop_finalizer(self, resource: Resource, meta: ObjectMeta, finalizer: str) -> None:
        left = [each for each in meta.finalizers if each != finalizer]
        # The revision makes sure that no finalizer that came meanwhile is lost.
        await self._patch(resource, meta, {"metadata": {"resourceVersion": meta.resourceVersion, "finalizers": left}})

    async def _patch(self, resource: Resource, meta: ObjectMeta, patch: Json, **how: Any) -> None:
        try:
            await self.client.patch(resource.type, meta.name, meta.namespace or None, patch, **how)
        except NotFound:
            return
