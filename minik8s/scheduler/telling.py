"""What the scheduler writes: bindings, the PodScheduled condition, events, and the eviction of preempted pods."""

from __future__ import annotations

from typing import Any

from minik8s.api.errors import Conflict, NotFound
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import Condition, condition
from minik8s.client.base import STRATEGIC_MERGE_PATCH, Client
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, rfc3339
from minik8s.scheduler.model import PodInfo
from minik8s.scheduler.preemption import Preemption

GATED = "Scheduling is blocked due to non-empty scheduling gates"
PREEMPTED = "preempting to accommodate a higher priority pod"


class Telling:
    """All methods raise StatusError, but for what is gone already."""

    def __init__(self, client: Client, recorder: Recorder, clock: Clock, *, name: str) -> None:
        self._client, self._recorder, self._clock, self._name = client, recorder, clock, name

    async def bind(self, pod: Pod, node: str) -> None:
        meta = pod.metadata
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self._client.post(Pod, meta.name, meta.namespace, "binding", binding)
        self._recorder.event(pod, "Normal", "Scheduled", f"Successfully assigned {pod.key} to {node}")

    def failed(self, pod: Pod, message: str) -> None:
        """The event alone."""
        self._recorder.event(pod, "Warning", "FailedScheduling", message)

    async def not_scheduled(self, pod: Pod, reason: str, message: str, *, nominated: str = "") -> None:
        """Set the condition and the nomination, if either says something new."""
        known = condition(pod.status.conditions, "PodScheduled") or Condition()
        status: dict[str, Any] = {}
        if (known.status, known.reason, known.message) != ("False", reason, message):
            since = known.lastTransitionTime if known.status == "False" else rfc3339(self._clock())
            status["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": reason,
                    "message": message,
                    "lastTransitionTime": since,
                }
            ]
        if pod.status.nominatedNodeName != nominated:
            status["nominatedNodeName"] = nominated or None
        if status:
            await self._patch_status(pod.metadata.name, pod.metadata.namespace, status)

    async def preempt(self, pod: Pod, preemption: Preemption, victims: list[Pod]) -> None:
        """Evict the victims, each with its grace period."""
        for victim in victims:
            await self._evict(pod, victim, preemption.node)

    async def _evict(self, pod: Pod, victim: Pod, node: str) -> None:
        meta = victim.metadata
        disrupted = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{self._name}: {PREEMPTED}",
            "lastTransitionTime": rfc3339(self._clock()),
        }
        await self._patch_status(meta.name, meta.namespace, {"conditions": [disrupted]})
        try:
            await self._client.delete(Pod, meta.name, meta.namespace, uid=meta.uid)
        except (NotFound, Conflict):
            return  # gone already, or another pod bears its name by now
        self._recorder.event(victim, "Normal", "Preempted", f"Preempted by pod {pod.metadata.uid} on node {node}")

    async def _patch_status(self, name: str, namespace: str, status: dict[str, Any]) -> None:
        try:
            await self._client.patch(
                Pod, name, namespace, {"status": status}, subresource="status", content_type=STRATEGIC_MERGE_PATCH
            )
        except NotFound:
            return  # a pod that is gone needs no condition


def victims_of(preemption: Preemption) -> list[PodInfo]:
    """Those that are not on their way out anyway."""
    return [victim for victim in preemption.victims if not victim.deleting]
