"""When a pod fits nowhere: on which node would evicting pods of lower priority make room, and which of them.

On each node that refused for a reason that evicting can cure, all pods of lower priority are thought away; if the pod
then fits, as many as possible are taken back, the most important first. Of the nodes the one is chosen that loses the
least: lowest highest priority, then lowest and fewest in sum, then the youngest pods.
"""

from __future__ import annotations

from typing import NamedTuple

from minik8s.scheduler.cycle import Refusals, fit_message
from minik8s.scheduler.model import PodInfo, Reason
from minik8s.scheduler.plugins import plans, refuse
from minik8s.scheduler.snapshot import Snapshot

NEVER = "not eligible due to preemptionPolicy=Never."
TERMINATING = "not eligible due to a terminating pod on the nominated node."
NOT_HELPFUL = Reason("DefaultPreemption", "Preemption is not helpful for scheduling")
NO_VICTIMS = Reason("DefaultPreemption", "No preemption victims found for incoming pod")
MOST_CANDIDATES = 100  # nodes that are tried; Kubernetes' minCandidateNodesAbsolute
PRIORITY_OFFSET = 2**31  # makes every priority positive, so that a sum counts pods too


class Preemption(NamedTuple):
    """`node` is "" if evicting does not help; then `message` tells why, in Kubernetes' words."""

    node: str
    victims: tuple[PodInfo, ...] = ()
    message: str = ""


def plan(pod: PodInfo, snapshot: Snapshot, refused: Refusals, *, nominated: str = "") -> Preemption:
    """`nominated`: where room is being made for `pod` already; as long as pods end there, no more are evicted."""
    if pod.shape.spec.preemptionPolicy == "Never":
        return Preemption("", message=NEVER)
    if nominated in snapshot.nodes:
        there = snapshot.nodes[nominated].pods.values()
        if any(other.deleting and other.priority < pod.priority for other in there):
            return Preemption(nominated, message=TERMINATING)
    nobody_lower = pod.priority <= min(snapshot.priorities, default=pod.priority)
    candidates: dict[str, tuple[PodInfo, ...]] = {}
    failed: dict[str, tuple[Reason, ...]] = {}
    for name in sorted(refused):
        if any(reason.permanent for reason in refused[name]):
            failed[name] = (NOT_HELPFUL,)
        elif len(candidates) < MOST_CANDIDATES:
            victims = () if nobody_lower else _victims(pod, name, snapshot)
            if victims:
                candidates[name] = victims
            else:
                failed[name] = (NO_VICTIMS,)
    if not candidates:
        return Preemption("", message=fit_message(failed, len(snapshot.nodes)))
    node = _least_loss(candidates)
    return Preemption(node, candidates[node])


def _victims(pod: PodInfo, name: str, snapshot: Snapshot) -> tuple[PodInfo, ...]:
    """The fewest pods of lower priority whose end makes `pod` fit on the node; () if nothing does."""
    info = snapshot.node_for(pod, name)
    lower = [other for other in info.pods.values() if other.priority < pod.priority]
    gone = {other.key for other in lower}
    if not lower or not _fits(pod, name, snapshot, gone):
        return ()
    for other in sorted(lower, key=lambda other: (-other.priority, other.created, other.key)):
        if _fits(pod, name, snapshot, gone - {other.key}):
            gone.discard(other.key)
    return tuple(other for other in lower if other.key in gone)


def _fits(pod: PodInfo, name: str, snapshot: Snapshot, gone: set[str]) -> bool:
    trial = snapshot.node_for(pod, name).trial(without=gone)
    if refuse(pod, trial):
        return False
    return not any(each.reject(trial) for each in plans(pod, snapshot, frozenset(gone)))


def _least_loss(candidates: dict[str, tuple[PodInfo, ...]]) -> str:
    def loss(name: str) -> tuple[int, int, int]:
        priorities = [victim.priority for victim in candidates[name]]
        return max(priorities), sum(priority + PRIORITY_OFFSET for priority in priorities), len(priorities)

    least = min(map(loss, candidates))
    equal = [name for name in sorted(candidates) if loss(name) == least]
    # the node whose oldest most important victim is the youngest
    return max(equal, key=lambda name: min(v.created for v in candidates[name] if v.priority == least[0]))
