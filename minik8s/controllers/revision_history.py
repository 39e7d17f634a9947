"""Templates of the past, kept as ControllerRevisions so that a rollout can be undone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from minik8s.api.errors import AlreadyExists, NotFound
from minik8s.api.kinds.controllerrevision import ControllerRevision
from minik8s.api.labels import selects
from minik8s.api.meta import Json, LabelSelector, Object
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.controllers.daemon_plan import HASH_LABEL
from minik8s.controllers.ownership import claim, index_by_controller, owner_reference
from minik8s.controllers.templates import bare, template_hash

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def snapshot(template: Json) -> Json:
    """What a revision holds: a strategic merge patch that brings the template back."""
    return {"spec": {"template": {**template, "$patch": "replace"}}}


class RevisionHistory:
    """The revisions of one kind of owner (DaemonSet; StatefulSet is of the same shape)."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self.revisions = informers.of(ControllerRevision)
        index_by_controller(self.revisions)

    async def current(self, owner: Any, template: Json) -> tuple[ControllerRevision | None, list[ControllerRevision]]:
        """The revision of `template`, the newest of all, and the older ones.

        None if its name belongs to another template: the owner's collisionCount has to grow.
        """
        selector: LabelSelector = owner.spec.selector

        def matches(each: Object) -> bool:
            return selects(selector, each.metadata.labels)

        known = await claim(self._client, owner, matches, self.revisions)
        data = snapshot(template)
        same = sorted((each for each in known if bare(each.data) == data), key=lambda each: each.revision)
        newest = max((each.revision for each in known), default=0)
        if not same:
            made = await self._create(owner, template, data, newest + 1)
            return made, known
        found = same[-1]
        if found.revision < newest:
            meta = found.metadata
            patch = {"metadata": {"uid": meta.uid}, "revision": newest + 1}
            found = await self._client.patch(ControllerRevision, meta.name, meta.namespace, patch)
            await self.revisions.caught_up(found.metadata.resourceVersion)
        return found, [each for each in known if each.metadata.uid != found.metadata.uid]

    async def _create(self, owner: Any, template: Json, data: Json, number: int) -> ControllerRevision | None:
        mark = template_hash(template, owner.status.collisionCount)
        meta = owner.metadata
        labels = {**(template.get("metadata") or {}).get("labels", {}), HASH_LABEL: mark}
        document = {
            "metadata": {
                "name": f"{meta.name}-{mark}",
                "namespace": meta.namespace,
                "labels": labels,
                "annotations": {key: value for key, value in meta.annotations.items() if key != LAST_APPLIED},
                "ownerReferences": [owner_reference(owner, self._client.resource(type(owner)))],
            },
            "data": data,
            "revision": number,
        }
        try:
            made = await self._client.create(ControllerRevision, document)
        except AlreadyExists:
            made = await self._client.get(ControllerRevision, f"{meta.name}-{mark}", meta.namespace)
            if bare(made.data) != data or made.controller is None or made.controller.uid != meta.uid:
                return None
        await self.revisions.caught_up(made.metadata.resourceVersion)
        return made

    async def trim(self, old: list[ControllerRevision], limit: int, used: Collection[str]) -> None:
        """Delete the oldest beyond `limit`, but none whose hash is in `used` by a living pod."""
        spare = sorted(
            (r for r in old if r.metadata.labels.get(HASH_LABEL) not in used), key=lambda each: each.revision
        )
        for each in spare[: max(0, len(spare) - limit)]:
            try:
                await self._client.delete(ControllerRevision, each.metadata.name, each.metadata.namespace)
            except NotFound:
                continue
