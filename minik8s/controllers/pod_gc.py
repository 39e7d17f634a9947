"""Pods that nobody will end are removed: of nodes that are gone, of no node, and finished ones beyond a number."""

from __future__ import annotations

from minik8s.api.errors import NotFound
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.client.base import STRATEGIC_MERGE_PATCH, Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.clock import Clock, rfc3339
from minik8s.controllers.node_lifecycle import BY_NODE, node_of
from minik8s.controllers.pod_facts import is_finished

FINISHED = "finished"
THRESHOLD_KEY = "*"  # no pod's key
REMOVED_AT_ONCE = 100


class PodGCController(Controller):
    """Keys are pods' keys, and one for the number of finished pods."""

    name = "pod-garbage-collector-controller"

    def __init__(self, client: Client, informers: Informers, clock: Clock, threshold: int) -> None:
        """`threshold`: finished pods that may stay (--terminated-pod-gc-threshold)."""
        super().__init__(client, informers)
        self._clock = clock
        self._threshold = threshold
        self._nodes = informers.of(Node)
        self._pods = informers.of(Pod)
        self._pods.add_index(BY_NODE, node_of)
        self._pods.add_index(FINISHED, lambda pod: ("",) if is_finished(pod) else ())
        self._nodes.on_change(self._node_changed)
        self._pods.on_change(self._pod_changed)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None and old is not None:
            for pod in self._pods.by_index(BY_NODE, old.metadata.name):
                self.queue.add(pod.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is None:
            return
        if is_finished(new) and (old is None or not is_finished(old)):
            self.queue.add(THRESHOLD_KEY)
        name = new.spec.nodeName
        if (name and self._nodes.by_key(name) is None) or (new.deleting and not name):
            self.queue.add(new.key)

    async def reconcile(self, key: str) -> float | None:
        if key == THRESHOLD_KEY:
            await self._trim()
            return None
        pod = self._pods.by_key(key)
        if pod is None:
            return None
        if pod.spec.nodeName:
            if self._nodes.by_key(pod.spec.nodeName) is None and await self._is_absent(pod.spec.nodeName):
                await self._end(pod, "PodGC: node no longer exists")
        elif pod.deleting:
            await self._end(pod, "PodGC: unscheduled and terminating")
        return None

    async def _is_absent(self, name: str) -> bool:
        """Asked of the API: a copy may be behind a node that has just joined."""
        try:
            await self.client.get(Node, name)
        except NotFound:
            return True
        return False

    async def _end(self, pod: Pod, message: str) -> None:
        """Delete without grace; a pod that had not finished is marked Failed first, so that its owner can count it."""
        meta = pod.metadata
        try:
            if message and not is_finished(pod):
                reason = {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "DeletionByPodGC",
                    "message": message,
                    "lastTransitionTime": rfc3339(self._clock()),
                }
                body = {"metadata": {"uid": meta.uid}, "status": {"phase": "Failed", "conditions": [reason]}}
                await self.client.patch(
                    Pod, meta.name, meta.namespace, body, subresource="status", content_type=STRATEGIC_MERGE_PATCH
                )
            await self.client.delete(Pod, meta.name, meta.namespace, grace=0, uid=meta.uid)
        except NotFound:
            return

    async def _trim(self) -> None:
        finished = self._pods.by_index(FINISHED, "")
        surplus = len(finished) - self._threshold
        if surplus <= 0:
            return
        oldest = sorted(finished, key=lambda pod: (not pod.deleting, pod.metadata.creationTimestamp, pod.key))
        for pod in oldest[: min(surplus, REMOVED_AT_ONCE)]:
            await self._end(pod, "")
        if surplus > REMOVED_AT_ONCE:
            self.queue.add(THRESHOLD_KEY)
