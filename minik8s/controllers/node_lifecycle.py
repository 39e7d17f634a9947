"""Nodes that fall silent are marked Unknown and tainted, their pods leave the Services at once; life undoes it.

Time in which this process itself did not run (a stalled machine, a lid that was closed) is nobody's silence.
"""

from __future__ import annotations

import asyncio

import msgspec

from minik8s.api.errors import NotFound
from minik8s.api.kinds.lease import Lease
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import Json
from minik8s.client.base import STRATEGIC_MERGE_PATCH, Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock
from minik8s.controllers.node_health import (
    Brake,
    Signs,
    brake,
    heartbeat,
    lost_pod_conditions,
    observe,
    readiness,
    silent_conditions,
    taints,
)
from minik8s.controllers.pod_control import attempt_all

LEASES = "kube-node-lease"
BY_NODE = "node"
PULSES = 8  # in a grace period: how often we feel our own
STARTUP_GRACE = 3.0  # times the grace that a node gets which has never shown life: 60 s to 20 s in Kubernetes' terms


def node_of(pod: Pod) -> tuple[str, ...]:
    return (pod.spec.nodeName,) if pod.spec.nodeName else ()


class NodeLifecycleController(Controller):
    name = "node-lifecycle-controller"

    def __init__(self, client: Client, informers: Informers, recorder: Recorder, clock: Clock, grace: float) -> None:
        """`grace`: seconds of silence after which a node is Unknown (--node-monitor-grace-period)."""
        super().__init__(client, informers)
        self._clock = clock
        self._grace = grace
        self._pulse = clock()
        self._recorder = recorder
        self._signs: dict[str, Signs] = {}
        self._states: dict[str, str] = {}  # readiness by node, as last seen
        self._brake = Brake(hold=False, undo=False)
        self._nodes = informers.of(Node)
        self._leases = informers.of(Lease, namespace=LEASES)
        self._pods = informers.of(Pod)
        self._pods.add_index(BY_NODE, node_of)
        self._nodes.on_change(self._node_changed)
        self._leases.on_change(self._lease_changed)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._feel(), name="pulse of the node controller")
            tasks.create_task(super().run(), name=self.name)

    async def _feel(self) -> None:
        while True:
            self._pulse = self._clock()
            await asyncio.sleep(self._grace / PULSES)
            if late := self._stalled():
                self._signs = {name: signs._replace(seen=signs.seen + late) for name, signs in self._signs.items()}
                self.log.warning(
                    "this process did not run for a while: nodes are given that time",
                    seconds=round(late),
                    remedy="nothing is lost; if this comes often, the machine sleeps or is short of CPU or memory",
                )

    def _stalled(self) -> float:
        """For how many seconds we have missed our own pulse; 0 if it was only a little."""
        late = self._clock() - self._pulse
        return late if late > 2 * self._grace / PULSES else 0.0

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            name = (old or Node()).metadata.name
            self._signs.pop(name, None)
        else:
            name = new.metadata.name
            self._observe(name)
        before, after = self._states.pop(name, None), readiness(new) if new is not None else None
        if after is not None:
            self._states[name] = after
        if before != after:
            self._judge_all()
        self.queue.add(name)

    def _judge_all(self) -> None:
        now = brake(self._states.values())
        if now != self._brake:
            self._brake = now
            for name in self._states:
                self.queue.add(name)

    def _lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        if new is not None:
            self._observe(new.metadata.name)  # a heartbeat is only noted: the node's timer will find it

    def _observe(self, name: str) -> None:
        node, lease = self._nodes.by_key(name), self._leases.get(LEASES, name)
        if node is not None:
            renewed = lease.spec.renewTime if lease is not None else ""
            self._signs[name] = observe(self._signs.get(name), renewed, heartbeat(node), self._clock())

    async def reconcile(self, key: str) -> float | None:
        node, signs = self._nodes.by_key(key), self._signs.get(key)
        if node is None or signs is None:
            return None
        if self._stalled():
            return self._grace / PULSES  # until then what nodes have sent meanwhile is read
        now = self._clock()
        grace = self._grace * (1.0 if signs.renewed or signs.heartbeat else STARTUP_GRACE)
        grace = max(grace, self._promised(key))
        left = signs.seen + grace - now
        if left <= 0:
            node = await self._give_up(node, now)
        await self._taint(node, now)
        return left if left > 0 else None  # a silent node comes back by an event

    def _promised(self, name: str) -> float:
        """Seconds within which the node itself means to be heard of, four times: it may not know our settings yet."""
        lease = self._leases.get(LEASES, name)
        return lease.spec.leaseDurationSeconds / 2 if lease is not None else 0.0

    async def _give_up(self, node: Node, now: float) -> Node:
        patch = silent_conditions(node, now)
        if patch:
            self._recorder.event(
                node, "Normal", "NodeNotReady", f"Node {node.metadata.name} status is now: NodeNotReady"
            )
            node = await self.client.patch(
                Node, node.metadata.name, None, {"status": {"conditions": patch}},
                subresource="status", content_type=STRATEGIC_MERGE_PATCH,
            )  # fmt: skip
            await self._nodes.caught_up(node.metadata.resourceVersion)
        lost = [pod for pod in self._pods.by_index(BY_NODE, node.metadata.name) if self._marks(pod, now)]
        for result in await attempt_all(self._mark_lost, lost):
            if isinstance(result, Exception) and not isinstance(result, NotFound):
                raise result
        return node

    @staticmethod
    def _marks(pod: Pod, now: float) -> list[Json]:
        return lost_pod_conditions({each.type: each.status for each in pod.status.conditions}, now)

    async def _mark_lost(self, pod: Pod) -> None:
        meta = pod.metadata
        body = {"metadata": {"uid": meta.uid}, "status": {"conditions": self._marks(pod, self._clock())}}
        await self.client.patch(
            Pod, meta.name, meta.namespace, body, subresource="status", content_type=STRATEGIC_MERGE_PATCH
        )
        self._recorder.event(pod, "Warning", "NodeNotReady", "Node is not ready")

    async def _taint(self, node: Node, now: float) -> None:
        evicted = any(taint.effect == "NoExecute" for taint in node.spec.taints)
        evict = not self._brake.undo and (evicted or not self._brake.hold)
        wanted = taints(node, evict=evict, now=now)
        if wanted is None:
            return
        # The list is replaced as a whole: the revision keeps a taint that a user set meanwhile.
        patch = {
            "metadata": {"resourceVersion": node.metadata.resourceVersion},
            "spec": {"taints": msgspec.to_builtins(wanted) or None},
        }
        written = await self.client.patch(Node, node.metadata.name, None, patch)
        await self._nodes.caught_up(written.metadata.resourceVersion)
