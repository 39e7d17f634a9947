"""A namespace that is deleted takes its content along, kind by kind, and says in conditions what holds it up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from minik8s.api.errors import StatusError
from minik8s.api.kinds.event import Event
from minik8s.api.kinds.namespace import Namespace, NamespaceStatus
from minik8s.api.meta import Condition, Json, Object
from minik8s.api.resource import Resource
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informer, Informers
from minik8s.clock import Clock
from minik8s.controllers.status import difference, with_condition

FINALIZER = "kubernetes"
LOOK_AGAIN = 15.0  # seconds, for kinds that nobody watches; of all others the last deletion brings us back


class Remains(NamedTuple):
    """What a round of deletion left: objects and finalizers by name, and what could not be deleted."""

    objects: Mapping[str, int]  # resource name -> number
    finalizers: Mapping[str, int]
    failures: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        return not self.objects and not self.failures


def conditions(remains: Remains) -> list[Condition]:
    """The conditions of a terminating namespace, in Kubernetes' words."""
    failed = "; ".join(remains.failures)
    objects = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(remains.objects.items()))
    holds = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(remains.finalizers.items()))
    rows = (
        ("NamespaceDeletionDiscoveryFailure", "", "", "", "ResourcesDiscovered",
         "All resources successfully discovered"),
        ("NamespaceDeletionGroupVersionParsingFailure", "", "", "", "ParsedGroupVersions",
         "All legacy kube types successfully parsed"),
        ("NamespaceDeletionContentFailure", failed, "ContentDeletionFailed",
         f"Failed to delete all resource types, {len(remains.failures)} remaining: {failed}", "ContentDeleted",
         "All content successfully deleted, may be waiting on finalization"),
        ("NamespaceContentRemaining", objects, "SomeResourcesRemain",
         f"Some resources are remaining: {objects}", "ContentRemoved", "All content successfully removed"),
        ("NamespaceFinalizersRemaining", holds, "SomeFinalizersRemain",
         f"Some content in the namespace has finalizers remaining: {holds}", "ContentHasNoFinalizers",
         "All content-preserving finalizers finished"),
    )  # fmt: skip
    return [
        Condition(type=type, status="True", reason=bad, message=trouble)
        if wrong
        else Condition(type=type, status="False", reason=good, message=fine)
        for type, wrong, bad, trouble, good, fine in rows
    ]


class NamespaceController(Controller):
    name = "namespace-controller"

    def __init__(self, client: Client, informers: Informers, clock: Clock) -> None:
        super().__init__(client, informers)
        self._clock = clock
        self._namespaces = informers.of(Namespace)
        self._namespaces.on_change(self._namespace_changed)
        for resource in self._kinds():
            if resource.type is not Event:  # they are many, hold nothing up, and nobody else keeps a copy of them
                self._follow(informers.metadata(resource))

    def _follow(self, informer: Informer[Object]) -> None:
        informer.on_change(lambda old, new: self._content_changed(informer, old, new))

    def _kinds(self) -> list[Resource]:
        return [each for each in self.client.scheme.resources if each.namespaced and "deletecollection" in each.verbs]

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if new is not None and new.deleting and (old is None or old.metadata != new.metadata):
            self.queue.add(new.metadata.name)

    def _content_changed(self, informer: Informer[Object], old: Object | None, new: Object | None) -> None:
        """The last object of a kind is gone, or a late one came: a waiting namespace wants to know."""
        name = (new or old or Object()).metadata.namespace
        namespace = self._namespaces.by_key(name)
        if namespace is not None and namespace.deleting and (old is None or not informer.list(name)):
            self.queue.add(name)

    async def reconcile(self, key: str) -> float | None:
        namespace = self._namespaces.by_key(key)
        if namespace is None or not namespace.deleting or FINALIZER not in namespace.spec.finalizers:
            return None
        remains = await self._empty(key)
        await self._tell(namespace, remains)
        if not remains.nothing:
            return LOOK_AGAIN
        raw = await self.client.raw(Namespace, key)
        raw["spec"]["finalizers"] = [each for each in raw["spec"].get("finalizers", ()) if each != FINALIZER]
        await self.client.update(Namespace, raw, subresource="finalize")
        return None

    async def _empty(self, name: str) -> Remains:
        """Ask for the deletion of everything, then count what is still there."""
        objects: dict[str, int] = {}
        finalizers: Counter[str] = Counter()
        failures = []
        for resource in self._kinds():
            try:
                left = (await self.client.list_as(resource, Object, name)).items
                if any(not each.deleting for each in left):
                    await self._delete_all(resource, name)
                    left = (await self.client.list_as(resource, Object, name)).items
            except StatusError as error:
                failures.append(f"{resource.name}: {error}")
                continue
            if left:
                objects[f"{resource.name}."] = len(left)
                finalizers.update(finalizer for each in left for finalizer in each.metadata.finalizers)
        return Remains(objects, finalizers, tuple(failures))

    async def _delete_all(self, resource: Resource, name: str) -> None:
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        await self.client.transport.request("DELETE", resource.base_path(name), body=msgspec.json.encode(options))

    async def _tell(self, namespace: Namespace, remains: Remains) -> None:
        status, now = namespace.status, self._clock()
        known = status.conditions
        if remains.nothing and not known:
            return  # nothing ever held it up, and it is gone in a moment
        for each in conditions(remains):
            known = with_condition(known, each, now)
        patch = difference(status, NamespaceStatus(phase="Terminating", conditions=known))
        if patch is not None:
            body = {"metadata": {"uid": namespace.metadata.uid}, "status": patch}
            await self.client.patch(Namespace, namespace.metadata.name, None, body, subresource="status")
