"""Pods leave nodes whose NoExecute taints they do not tolerate, at once or when their `tolerationSeconds` are over."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minik8s.api.errors import NotFound
from minik8s.api.kinds.node import Node, Taint
from minik8s.api.kinds.pod import Pod, Toleration
from minik8s.api.placement import tolerates
from minik8s.client.base import STRATEGIC_MERGE_PATCH, Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, parse_time, rfc3339
from minik8s.controllers.node_lifecycle import BY_NODE, node_of


def eviction_time(
    tolerations: Iterable[Toleration], taints: Iterable[Taint], since: Callable[[Taint], float]
) -> float | None:
    """When a pod has to go: 0 for now, None for never, else Unix seconds. `since` says when a taint came."""
    known, times = tuple(tolerations), []
    for taint in taints:
        if taint.effect != "NoExecute":
            continue
        toleration = next((each for each in known if tolerates(each, taint)), None)
        if toleration is None:
            return 0.0
        if toleration.tolerationSeconds is not None:
            if toleration.tolerationSeconds <= 0:
                return 0.0
            times.append(since(taint) + toleration.tolerationSeconds)
    return min(times, default=None)


class TaintEvictionController(Controller):
    """Keys are pods' keys."""

    name = "taint-eviction-controller"
    workers = 8

    def __init__(self, client: Client, informers: Informers, recorder: Recorder, clock: Clock) -> None:
        super().__init__(client, informers)
        self._clock = clock
        self._recorder = recorder
        self._seen: dict[
            tuple[str, str, str], float
        ] = {}  # (node, taint key, value) -> when; for taints without a time
        self._nodes = informers.of(Node)
        self._pods = informers.of(Pod)
        self._pods.add_index(BY_NODE, node_of)
        self._nodes.on_change(self._node_changed)
        self._pods.on_change(self._pod_changed)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        before = _evicting(old)
        after = _evicting(new)
        if before == after:
            return
        name = (new or old or Node()).metadata.name
        for taint in set(before) - set(after):
            self._seen.pop((name, taint.key, taint.value), None)
        for taint in set(after) - set(before):
            self._seen[name, taint.key, taint.value] = self._clock()
        for pod in self._pods.by_index(BY_NODE, name):
            self.queue.add(pod.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or new.deleting or not new.spec.nodeName:
            return
        if old is None or not old.spec.nodeName or old.spec.tolerations != new.spec.tolerations:
            node = self._nodes.by_key(new.spec.nodeName)
            if _evicting(node):
                self.queue.add(new.key)

    async def reconcile(self, key: str) -> float | None:
        pod = self._pods.by_key(key)
        node = self._nodes.by_key(pod.spec.nodeName) if pod is not None else None
        if pod is None or node is None or pod.deleting:
            return None
        now, name = self._clock(), node.metadata.name

        def since(taint: Taint) -> float:
            return parse_time(taint.timeAdded) or self._seen.get((name, taint.key, taint.value), now)

        time = eviction_time(pod.spec.tolerations, _evicting(node), since)
        if time is None:
            return None
        if time > now:
            return time - now
        await self._evict(pod)
        return None

    async def _evict(self, pod: Pod) -> None:
        meta = pod.metadata
        self._recorder.event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {pod.key}")
        reason = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": rfc3339(self._clock()),
        }
        body = {"metadata": {"uid": meta.uid}, "status": {"conditions": [reason]}}
        try:
            await self.client.patch(
                Pod, meta.name, meta.namespace, body, subresource="status", content_type=STRATEGIC_MERGE_PATCH
            )
            await self.client.delete(Pod, meta.name, meta.namespace, uid=meta.uid)
        except NotFound:
            return


def _evicting(node: Node | None) -> tuple[Taint, ...]:
    return tuple(taint for taint in node.spec.taints if taint.effect == "NoExecute") if node is not None else ()
