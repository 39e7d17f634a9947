"""On which nodes a DaemonSet's pods belong, and which pods to make and remove for it. Pure.

The rules are Kubernetes' (pkg/controller/daemon): one pod per node that fits; a terminating one keeps its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from minik8s.api.kinds.daemonset import DaemonSet, DaemonSetStatus, RollingUpdateDaemonSet
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod, PodSpec, Toleration
from minik8s.api.meta import Json
from minik8s.api.placement import pinned_nodes, selects_node, untolerated
from minik8s.controllers.pod_facts import is_available, is_finished, is_ready
from minik8s.controllers.rollout import scaled

HASH_LABEL = "controller-revision-hash"
_PREFIX = "node.kubernetes.io/"
_EVERYWHERE = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)


class Fit(NamedTuple):
    run: bool  # a pod should be made there
    keep: bool  # a pod that is there may stay


def tolerations(spec: PodSpec) -> list[Json]:
    """What every daemon pod tolerates besides its own: trouble of the node, which it may be there to cure."""
    wanted = (*_EVERYWHERE, *([("network-unavailable", "NoSchedule")] if spec.hostNetwork else []))
    return [{"key": _PREFIX + key, "operator": "Exists", "effect": effect} for key, effect in wanted]


def fit(spec: PodSpec, node: Node) -> Fit:
    """Whether a template's pod belongs on a node."""
    if (spec.nodeName and spec.nodeName != node.metadata.name) or not selects_node(spec, node):
        return Fit(run=False, keep=False)
    known = (*spec.tolerations, *(Toleration(**each) for each in tolerations(spec)))
    taints = node.spec.taints
    keep = untolerated(taints, known, frozenset(("NoExecute",))) is None
    return Fit(run=keep and untolerated(taints, known) is None, keep=keep)


def pinned(pod: Json, node: str) -> Json:
    """A pod document that can only run on `node`: its node affinity names it, whatever else it was."""
    spec = pod["spec"]
    affinity = spec.get("affinity") or {}
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    by_node = {**(affinity.get("nodeAffinity") or {}), "requiredDuringSchedulingIgnoredDuringExecution": required}
    return {**pod, "spec": {**spec, "affinity": {**affinity, "nodeAffinity": by_node}}}


def node_of(pod: Pod) -> str:
    """The node of a daemon pod, also while it is not scheduled yet; "" if it has none."""
    return pod.spec.nodeName or next(iter(pinned_nodes(pod.spec) or ()), "")


@dataclass
class Plan:
    create: list[str] = field(default_factory=list)  # names of nodes
    delete: list[Pod] = field(default_factory=list)
    finished: list[Pod] = field(default_factory=list)  # to be removed and made again, with back-off


def by_node(pods: Iterable[Pod]) -> dict[str, list[Pod]]:
    found: dict[str, list[Pod]] = {}
    for pod in sorted(pods, key=lambda each: (each.metadata.creationTimestamp, each.metadata.name)):
        found.setdefault(node_of(pod), []).append(pod)
    return found


def manage(fits: Mapping[str, Fit], placed: Mapping[str, Sequence[Pod]], revision: str, *, surging: bool) -> Plan:
    """What to make and remove so that each node has what it should. `surging`: two may meet during an update.

    Pods on nodes that are not known (any more) are left to pod garbage collection.
    """
    plan = Plan()
    for name, node in fits.items():
        pods = placed.get(name, ())
        if node.run and not pods:
            plan.create.append(name)
        elif not node.keep:
            plan.delete.extend(pods)
        elif node.keep and pods:
            plan.finished.extend(pod for pod in pods if is_finished(pod) and not pod.deleting)
            running = [pod for pod in pods if not is_finished(pod) and not pod.deleting]
            for group in _rivals(running, revision, surging=surging):
                plan.delete.extend(group[1:])
    return plan


def _rivals(pods: Sequence[Pod], revision: str, *, surging: bool) -> list[list[Pod]]:
    """Pods of which only the first, the oldest, may live; while surging each revision, old and new, may have one."""
    if not surging:
        return [list(pods)]
    new = [pod for pod in pods if pod.metadata.labels.get(HASH_LABEL) == revision]
    return [new, [pod for pod in pods if pod not in new]]


def limits(daemons: DaemonSet, desired: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) for that many nodes; percentages round up."""
    rolling = daemons.spec.updateStrategy.rollingUpdate or RollingUpdateDaemonSet()
    surge = scaled(rolling.maxSurge, desired, up=True)
    unavailable = scaled(rolling.maxUnavailable, desired, up=True)
    return surge, 1 if not surge and not unavailable else unavailable


def update(
    daemons: DaemonSet, fits: Mapping[str, Fit], placed: Mapping[str, Sequence[Pod]], revision: str, now: float
) -> Plan:
    """The next step of a rolling update: which old pods may go, and with maxSurge where new ones come beside them."""
    nodes = [name for name, node in fits.items() if node.run]
    surge, unavailable = limits(daemons, len(nodes))
    plan, free, down, extra = Plan(), [], 0, 0
    min_ready = daemons.spec.minReadySeconds
    for name in nodes:
        new, old = _newest(placed.get(name, ()), revision)
        fresh = new is not None and is_available(new, min_ready, now)
        if old is None:
            down += not fresh
        elif surge and new is not None:
            extra += 1
            if fresh and not old.deleting:
                plan.delete.append(old)
        elif old.deleting or new is not None:
            down += 1
        elif not is_available(old, min_ready, now):
            down += 1  # it serves nobody: replacing it costs nothing
            (plan.create if surge else plan.delete).append(name if surge else old)  # type: ignore[arg-type]
        else:
            free.append((name, old))
    if surge:
        plan.create.extend(name for name, _ in free[: max(0, surge - extra - len(plan.create))])
    else:
        plan.delete.extend(pod for _, pod in free[: max(0, unavailable - down)])
    return plan


def _newest(pods: Sequence[Pod], revision: str) -> tuple[Pod | None, Pod | None]:
    """The pod of this revision and one of another, as far as there are any that have not finished."""
    alive = [pod for pod in pods if not is_finished(pod)]
    new = next((p for p in alive if p.metadata.labels.get(HASH_LABEL) == revision and not p.deleting), None)
    return new, next((p for p in alive if p.metadata.labels.get(HASH_LABEL) != revision), None)


def status_of(
    daemons: DaemonSet, fits: Mapping[str, Fit], placed: Mapping[str, Sequence[Pod]], revision: str, now: float
) -> DaemonSetStatus:
    desired = current = ready = available = updated = misplaced = 0
    min_ready = daemons.spec.minReadySeconds
    for name, node in fits.items():
        pods = [pod for pod in placed.get(name, ()) if not is_finished(pod)]
        if not node.run:
            misplaced += bool(pods)
            continue
        desired += 1
        if pods:
            current += 1
            ready += any(is_ready(pod) for pod in pods)
            available += any(is_available(pod, min_ready, now) for pod in pods)
            updated += any(pod.metadata.labels.get(HASH_LABEL) == revision for pod in pods)
    return DaemonSetStatus(
        currentNumberScheduled=current,
        desiredNumberScheduled=desired,
        numberMisscheduled=misplaced,
        numberReady=ready,
        updatedNumberScheduled=updated,
        numberAvailable=available,
        numberUnavailable=desired - available,
        observedGeneration=daemons.metadata.generation,
        collisionCount=daemons.status.collisionCount,
        conditions=daemons.status.conditions,
    )
