"""A ClusterRole with an `aggregationRule` allows what the ClusterRoles that it selects allow together.

So whoever brings kinds of their own extends `view`, `edit` and `admin` by a role with a label, and nobody edits those.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import msgspec

from minik8s.api.kinds.rbac import ClusterRole, PolicyRule
from minik8s.api.labels import selects
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers


def aggregated(role: ClusterRole, others: Iterable[ClusterRole]) -> tuple[PolicyRule, ...]:
    """The rules of all that `role` selects, in the order of their names, each once."""
    selectors = role.aggregationRule.clusterRoleSelectors if role.aggregationRule is not None else ()
    chosen = (
        other
        for other in sorted(others, key=lambda each: each.metadata.name)
        if other.metadata.name != role.metadata.name
        and any(selects(selector, other.metadata.labels) for selector in selectors)
    )
    return tuple(dict.fromkeys(rule for other in chosen for rule in other.rules))


class ClusterRoleAggregationController(Controller):
    name: ClassVar[str] = "clusterrole-aggregation-controller"
    workers: ClassVar[int] = 1

    def __init__(self, client: Client, informers: Informers) -> None:
        super().__init__(client, informers)
        self._roles = informers.of(ClusterRole)
        self._roles.on_change(self._changed)

    def _changed(self, old: ClusterRole | None, new: ClusterRole | None) -> None:
        """Any role may be, or have been, part of any that aggregates."""
        for role in self._roles.list():
            if role.aggregationRule is not None:
                self.queue.add(role.metadata.name)

    async def reconcile(self, key: str) -> float | None:
        role = self._roles.by_key(key)
        if role is None or role.aggregationRule is None or role.deleting:
            return None
        rules = aggregated(role, self._roles.list())
        if rules != role.rules:
            meta = {"uid": role.metadata.uid, "resourceVersion": role.metadata.resourceVersion}
            done = await self.client.patch(
                ClusterRole, key, None, {"metadata": meta, "rules": msgspec.to_builtins(rules)}
            )
            await self._roles.caught_up(done.metadata.resourceVersion)
        return None
