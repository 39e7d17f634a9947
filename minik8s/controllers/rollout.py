"""The arithmetic of a Deployment: how many pods each of its ReplicaSets should have next. Pure.

The rules are those of Kubernetes (pkg/controller/deployment): never more than replicas + maxSurge pods asked for,
never fewer than replicas - maxUnavailable available through our doing, and a change of `replicas` in the middle of a
rollout is shared in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from minik8s.api.kinds.deployment import Deployment, RollingUpdateDeployment
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.meta import IntOrString

PREFIX = "deployment.kubernetes.io/"
DESIRED = PREFIX + "desired-replicas"
MAXIMUM = PREFIX + "max-replicas"
REVISION = PREFIX + "revision"

Sizes = dict[str, int]  # name of a ReplicaSet -> replicas


class Bounds(NamedTuple):
    """How far a rollout may go above and below the wanted number of pods."""

    surge: int
    unavailable: int


def scaled(value: IntOrString, total: int, *, up: bool) -> int:
    """A number, or a percentage of `total` rounded up or down. ValueError for other text (validation refuses it)."""
    if isinstance(value, int):
        return value
    share = int(value.removesuffix("%")) * total / 100
    return math.ceil(share) if up else math.floor(share)


def bounds(deployment: Deployment) -> Bounds:
    """maxSurge rounds up, maxUnavailable down; if both come to 0 one pod may be missing, or nothing could move."""
    if deployment.spec.strategy.type != "RollingUpdate":
        return Bounds(0, 0)
    rolling = deployment.spec.strategy.rollingUpdate or RollingUpdateDeployment()
    wanted = deployment.spec.replicas
    surge = scaled(rolling.maxSurge, wanted, up=True)
    unavailable = min(scaled(rolling.maxUnavailable, wanted, up=False), wanted)
    return Bounds(surge, 1 if surge == 0 and unavailable == 0 else unavailable)


def total(sets: Sequence[ReplicaSet]) -> int:
    return sum(each.spec.replicas for each in sets)


def by_age(sets: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Oldest first; names decide between equals, so that the order is the same each time."""
    return sorted(sets, key=lambda each: (each.metadata.creationTimestamp, each.metadata.name))


def revision(annotations: dict[str, str]) -> int:
    text = annotations.get(REVISION, "")
    return int(text) if text.isdecimal() else 0


# -- rolling update


def new_size(deployment: Deployment, current: int, everything: int) -> int:
    """Replicas of the new set, which has `current`, when all sets together have `everything`."""
    wanted = deployment.spec.replicas
    if current >= wanted:
        return wanted
    if deployment.spec.strategy.type == "Recreate":
        return wanted
    room = wanted + bounds(deployment).surge - everything
    return current + max(0, min(room, wanted - current))


def roll(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> Sizes:
    """The next step of a rolling update: grow the new set as far as the surge allows, shrink the old ones as far as
    availability allows. Only sizes that change are in the answer."""
    before = new.spec.replicas
    grown = new_size(deployment, before, total((new, *old)))
    sizes = {new.metadata.name: grown} if grown != before else {}
    return sizes | shrink_old(deployment, new, grown, old)


def shrink_old(deployment: Deployment, new: ReplicaSet, grown: int, old: Sequence[ReplicaSet]) -> Sizes:
    """Old sets lose their unhealthy pods first, then available ones, the oldest set first.

    `grown` is the new set's size as planned now; its pods that are not available yet are no reason to remove others.
    """
    if not total(old):
        return {}
    least = deployment.spec.replicas - bounds(deployment).unavailable
    pending = grown - min(new.status.availableReplicas, grown)
    budget = total(old) + grown - least - pending
    if budget <= 0:
        return {}
    sizes = {each.metadata.name: each.spec.replicas for each in by_age(old)}
    for each in by_age(old):
        unhealthy = max(0, each.spec.replicas - each.status.availableReplicas)
        sizes[each.metadata.name] -= min(unhealthy, budget)
        budget -= min(unhealthy, budget)
    # Now every pod that is left counts as available; what is above the least number may go.
    available = min(new.status.availableReplicas, grown)
    available += sum(min(each.status.availableReplicas, each.spec.replicas) for each in old)
    spare = min(budget, available - least)
    for each in by_age(old):
        if spare <= 0:
            break
        gone = min(sizes[each.metadata.name], spare)
        sizes[each.metadata.name] -= gone
        spare -= gone
    return _changes(sizes, old)


def _changes(sizes: Sizes, sets: Sequence[ReplicaSet]) -> Sizes:
    before = {each.metadata.name: each.spec.replicas for each in sets}
    return {name: size for name, size in sizes.items() if size != before[name]}


# -- a change of spec.replicas


def needs_scaling(deployment: Deployment, sets: Sequence[ReplicaSet]) -> bool:
    """Whether `replicas` has changed since the active sets were sized: their annotation tells for which number."""
    wanted = str(deployment.spec.replicas)
    return any(each.spec.replicas > 0 and each.metadata.annotations.get(DESIRED, wanted) != wanted for each in sets)


def scale(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> Sizes:
    """Sizes after `replicas` changed: the one active set takes all; several share the change in proportion."""
    wanted = deployment.spec.replicas
    sets = [*([new] if new is not None else []), *old]
    active = [each for each in sets if each.spec.replicas > 0]
    if len(active) <= 1:
        single = active[0] if active else new or (by_age(old)[-1] if old else None)
        return {single.metadata.name: wanted} if single is not None and single.spec.replicas != wanted else {}
    if new is not None and _saturated(deployment, new):
        return {each.metadata.name: 0 for each in old if each.spec.replicas}
    if deployment.spec.strategy.type != "RollingUpdate":
        return {}
    return _proportional(deployment, active)


def _saturated(deployment: Deployment, new: ReplicaSet) -> bool:
    wanted = deployment.spec.replicas
    sized_for = new.metadata.annotations.get(DESIRED)
    return new.spec.replicas == wanted == new.status.availableReplicas and sized_for == str(wanted)


def _proportional(deployment: Deployment, active: Sequence[ReplicaSet]) -> Sizes:
    wanted = deployment.spec.replicas
    allowed = wanted + bounds(deployment).surge if wanted else 0
    change = allowed - total(active)
    # Growing favours the largest and newest, shrinking the largest and oldest.
    ordered = by_age(active)[:: -1 if change > 0 else 1]
    ordered.sort(key=lambda each: -each.spec.replicas)
    sizes, given = {each.metadata.name: each.spec.replicas for each in ordered}, 0
    for each in ordered if change else ():
        rest = change - given
        share = _share(deployment, each, allowed)
        part = max(0, min(share, rest)) if change > 0 else min(0, max(share, rest))
        sizes[each.metadata.name] += part
        given += part
    for each in ordered:  # what rounding left over; a set cannot give more than it has
        name, rest = each.metadata.name, change - given
        part = max(rest, -sizes[name])
        sizes[name] += part
        given += part
    return _changes(sizes, active)


def _share(deployment: Deployment, each: ReplicaSet, allowed: int) -> int:
    """How much this set would change if it kept its part of the whole, by the maximum it was sized for."""
    if not deployment.spec.replicas:
        return -each.spec.replicas
    text = each.metadata.annotations.get(MAXIMUM, "")
    before = int(text) if text.isdecimal() else deployment.status.replicas
    return round(each.spec.replicas * allowed / before) - each.spec.replicas if before else 0


# -- history


def superfluous(deployment: Deployment, old: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Old sets without pods beyond `revisionHistoryLimit`, the lowest revisions first."""
    empty = [
        each
        for each in old
        if not each.spec.replicas
        and not each.status.replicas
        and each.metadata.generation <= each.status.observedGeneration
        and not each.deleting
    ]
    empty.sort(key=lambda each: (revision(each.metadata.annotations), each.metadata.creationTimestamp))
    return empty[: max(0, len(empty) - deployment.spec.revisionHistoryLimit)]
