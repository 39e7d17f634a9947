"""What the informers tell, turned into the snapshot; and the assumptions that run ahead of them.

A decision is assumed to come true at once, so that the next one counts with it while the binding is still on its way.
The informer's news confirms it; a failed binding takes it back.
"""

from __future__ import annotations

from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod, PodSpec, ResourceRequirements
from minik8s.scheduler.model import TERMINAL, PodInfo, Shapes
from minik8s.scheduler.snapshot import Snapshot


class Cache:
    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self._shapes = Shapes()
        self._assumed: set[str] = set()

    def info(self, pod: Pod) -> PodInfo:
        return PodInfo(pod, self._shapes.of(pod))

    def is_assumed(self, key: str) -> bool:
        return key in self._assumed

    def assume(self, pod: PodInfo, node: str) -> None:
        """Count with `pod` on `node` from now on."""
        pod.node = node
        self._assumed.add(pod.key)
        self.snapshot.add_pod(pod)
        self.snapshot.forget_nomination(pod.key)
        self.snapshot.last_placed = node

    def forget(self, pod: PodInfo) -> None:
        """The assumption did not come true. Nothing happens if something newer is known under the pod's key."""
        if pod.key in self._assumed and self.snapshot.pods.get(pod.key) is pod:
            self._assumed.discard(pod.key)
            self.snapshot.remove_pod(pod.key)

    def set_pod(self, pod: Pod) -> None:
        """A pod as the API has it now, which may be on a node or not, running, ending or finished."""
        if not pod.spec.nodeName:
            return
        self._assumed.discard(pod.key)
        if pod.status.phase in TERMINAL:
            self.snapshot.remove_pod(pod.key)
            return
        known = self.snapshot.pods.get(pod.key)
        if known is not None and _same(known, pod):
            return
        self.snapshot.add_pod(self.info(pod))

    def remove_pod(self, key: str) -> None:
        self._assumed.discard(key)
        self.snapshot.remove_pod(key)
        self.snapshot.forget_nomination(key)


def _same(known: PodInfo, pod: Pod) -> bool:
    """Whether nothing that the scheduler looks at has changed: most news of a pod are its status."""
    return (
        known.node == pod.spec.nodeName
        and known.uid == pod.metadata.uid
        and known.deleting == pod.deleting
        and known.priority == pod.spec.priority
        and known.labels == pod.metadata.labels
        and _resources(known.shape.spec) == _resources(pod.spec)  # they can be changed in place
    )


def _resources(spec: PodSpec) -> list[ResourceRequirements]:
    return [container.resources for container in (*spec.containers, *spec.initContainers)]


def node_changed(old: Node | None, new: Node) -> bool:
    """Whether a node's news matter to pods that did not fit; a heartbeat does not."""
    return old is None or (
        old.metadata.labels != new.metadata.labels
        or old.spec != new.spec
        or old.status.allocatable != new.status.allocatable
        or old.status.capacity != new.status.capacity
    )


def images_changed(old: Node, new: Node) -> bool:
    return old.status.images != new.status.images
