"""What the silence of a node means: unknown conditions, taints, and when so many are silent that it must be us. Pure.

Time counts from when the master saw the last sign of life, never from a node's own clock, which may be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from minik8s.api.kinds.node import Node, Taint
from minik8s.api.meta import Condition, Json, condition
from minik8s.clock import rfc3339

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
OURS = {NOT_READY, UNREACHABLE, UNSCHEDULABLE, *PRESSURES.values()}
JUDGED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")  # what silence makes Unknown
UNHEALTHY_SHARE = 0.55  # --unhealthy-zone-threshold


class Signs(NamedTuple):
    """What a node last showed, and when (Unix seconds by the master's clock) it was new."""

    renewed: str = ""  # its Lease's renewTime
    heartbeat: str = ""  # its Ready condition's lastHeartbeatTime
    seen: float = 0.0


def observe(last: Signs | None, renewed: str, heartbeat: str, now: float) -> Signs:
    """Any change is life, whatever its value; a node seen for the first time lives."""
    if last is not None and (last.renewed, last.heartbeat) == (renewed, heartbeat):
        return last
    return Signs(renewed, heartbeat, now)


def heartbeat(node: Node) -> str:
    ready = condition(node.status.conditions, "Ready")
    return ready.lastHeartbeatTime if ready is not None else ""


def silent_conditions(node: Node, now: float) -> list[Json]:
    """The conditions to write for a node that has been silent for too long; none if they say so already."""
    time, found = rfc3339(now), []
    for type in JUDGED:
        known = condition(node.status.conditions, type)
        if known is not None and known.status == "Unknown":
            continue
        reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
        if known is None:
            reason, message = "NodeStatusNeverUpdated", "Kubelet never posted node status."
        found.append(
            {
                "type": type,
                "status": "Unknown",
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": (known.lastHeartbeatTime if known is not None else "")
                or node.metadata.creationTimestamp,
                "lastTransitionTime": time,
            }
        )
    return found


def readiness(node: Node) -> str:
    """`True`, `False` or `Unknown`."""
    ready: Condition | None = condition(node.status.conditions, "Ready")
    return ready.status if ready is not None else "Unknown"


def wanted_taints(node: Node, *, evict: bool) -> set[tuple[str, str]]:
    """(key, effect) of the taints that its conditions ask for; `evict` = its pods may be sent away for its silence."""
    wanted = {
        (PRESSURES[c.type], "NoSchedule") for c in node.status.conditions if c.type in PRESSURES and c.status == "True"
    }
    if node.spec.unschedulable:
        wanted.add((UNSCHEDULABLE, "NoSchedule"))
    state = readiness(node)
    if state != "True":
        key = NOT_READY if state == "False" else UNREACHABLE
        wanted |= {(key, "NoSchedule"), *([(key, "NoExecute")] if evict else [])}
    return wanted


def taints(node: Node, *, evict: bool, now: float) -> tuple[Taint, ...] | None:
    """The node's taints as they should be, others' untouched and in place; None if they are so already."""
    wanted = wanted_taints(node, evict=evict)
    kept = tuple(t for t in node.spec.taints if t.key not in OURS or (t.key, t.effect) in wanted or not _judged(t))
    have = {(t.key, t.effect) for t in kept}
    added = tuple(
        Taint(key=key, effect=effect, timeAdded=rfc3339(now))
        for key, effect in sorted(wanted)
        if (key, effect) not in have
    )
    result = kept + added
    return None if result == node.spec.taints else result


def _judged(taint: Taint) -> bool:
    """Whether a taint of ours is one that we set: pressures and cordon never evict, an own NoExecute is a user's."""
    return taint.effect == "NoSchedule" or (taint.effect == "NoExecute" and taint.key in (NOT_READY, UNREACHABLE))


class Brake(NamedTuple):
    """Whether evictions for silence stop, and whether those begun are taken back."""

    hold: bool
    undo: bool


def brake(states: Iterable[str]) -> Brake:
    """If all nodes are lost the fault is more likely ours than theirs: nothing is evicted. If more than two and over
    55 % are, no more are given up. Kubernetes' zone states, for one zone of a small cluster."""
    known = list(states)
    lost = sum(state != "True" for state in known)
    everything = bool(known) and lost == len(known)
    return Brake(everything or (lost > 2 and lost / len(known) >= UNHEALTHY_SHARE), everything)


def lost_pod_conditions(conditions: Mapping[str, str], now: float) -> list[Json]:
    """Conditions for a pod on a silent node by type -> status now: not ready, so that no Service sends anyone there."""
    return [
        {
            "type": type,
            "status": "False",
            "reason": "NodeNotReady",
            "message": "Node is not ready",
            "lastTransitionTime": rfc3339(now),
        }
        for type in ("Ready", "ContainersReady")
        if conditions.get(type) == "True"
    ]
