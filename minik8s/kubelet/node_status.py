"""The node in the API: registered, kept alive by a Lease, described, and ready only while it can really run pods."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from minik8s.aio import backoff, wait_any
from minik8s.api.errors import AlreadyExists, Conflict, Forbidden, NotFound, StatusError
from minik8s.api.kinds.lease import Lease
from minik8s.api.kinds.node import Node
from minik8s.client.base import STRATEGIC_MERGE_PATCH
from minik8s.clock import rfc3339_micro
from minik8s.kubelet.kit import Kit
from minik8s.kubelet.node_facts import Facts, Health, Json, RoutesState, node_labels, node_status
from minik8s.log import get_logger
from minik8s.runtime.base import EngineInfo, ImageInfo, RuntimeFailure

LEASE_NAMESPACE = "kube-node-lease"
UID_LABEL = "minik8s.io/agent"  # which agent's data folder a Node belongs to
CHECK_SECONDS = 10.0  # between looks at the health of runtime and network
RECHECK_SECONDS = 2.0  # the same while one of them is not well, so that its return is seen soon
log = get_logger("node")


class NameTaken(Exception):
    """Another agent has registered a node of this name."""


class NodeStatus:
    """`run()` registers the node and keeps it alive for ever. `check_network` says what is wrong, "" for nothing."""

    def __init__(
        self,
        kit: Kit,
        facts: Facts,
        *,
        check_network: Callable[[], Awaitable[str]] | None = None,
        extended: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._kit = kit
        self._settings = kit.settings
        self._check_network = check_network
        self._extended = extended
        self._facts = facts
        self._engine: EngineInfo | None = None
        self._images: list[ImageInfo] = []
        self._told: tuple[object, ...] = ()
        self._told_at = 0.0
        self._node: Node | None = None
        self._nudge = asyncio.Event()
        self._lease = False
        self.disk_pressure = False
        self.routes: Callable[[], RoutesState | None] = lambda: None  # set by whoever keeps the routes; nudge on change
        self.registered = asyncio.Event()

    @property
    def node(self) -> Node | None:
        return self._node

    def nudge(self) -> None:
        """Something changed (devices, pressure): look at once."""
        self._nudge.set()

    async def run(self) -> None:
        await self._register_for_long()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._heartbeat(), name="node lease")
            tasks.create_task(self._describe(), name="node status")

    # -- registration

    async def _register_for_long(self) -> None:
        """Until it has worked; NameTaken is for the operator, not for repetition."""
        delays = backoff(0.2, 10.0)
        while True:
            try:
                await self.register()
            except StatusError as error:
                log.debug("node not registered yet", error=str(error))
                await asyncio.sleep(next(delays))
            else:
                self.registered.set()
                return

    async def register(self) -> None:
        """Create the Node, or adopt one that is there, keeping its labels, annotations and taints."""
        health = await self._health()
        labels = node_labels(self._settings, self._facts)
        if self._settings.node_uid:
            labels[UID_LABEL] = self._settings.node_uid
        body = {
            "metadata": {"name": self._settings.node_name, "labels": labels},
            "spec": {"taints": list(self._settings.taints)} if self._settings.taints else {},
            "status": self._status(health),
        }
        try:
            self._node = await self._kit.client.create(Node, body)
        except AlreadyExists:
            self._node = await self._adopt(labels)
        await self._tell(health)

    async def _adopt(self, labels: dict[str, str]) -> Node:
        name = self._settings.node_name
        known = await self._kit.client.get(Node, name)
        owner = known.metadata.labels.get(UID_LABEL, "")
        if owner and self._settings.node_uid and owner != self._settings.node_uid:
            raise NameTaken(
                f"a node named {name!r} is registered by another agent: start with another --node-name, or delete the "
                f"old node first (kubectl delete node {name})"
            )
        missing = {key: value for key, value in labels.items() if known.metadata.labels.get(key) != value}
        if not missing:
            return known
        return await self._kit.client.patch(Node, name, None, {"metadata": {"labels": missing}})

    # -- being alive

    async def _heartbeat(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(self._settings.lease_seconds)

    async def beat(self) -> None:
        name = self._settings.node_name
        stamp = rfc3339_micro(self._kit.clock())
        try:
            if self._lease:
                renewed = {"spec": {"renewTime": stamp, "holderIdentity": name}}
                await self._kit.client.patch(Lease, name, LEASE_NAMESPACE, renewed)
                return
            await self._kit.client.create(Lease, self._new_lease(stamp), LEASE_NAMESPACE)
            self._lease = True
        except AlreadyExists:
            self._lease = True
            await self.beat()
        except NotFound:
            self._lease = False  # made again at the next beat
        except StatusError as error:
            log.debug("heartbeat not written", error=str(error))

    def _new_lease(self, stamp: str) -> Json:
        owner = self._node.metadata.uid if self._node is not None else ""
        name = self._settings.node_name
        reference = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner}
        return {
            "metadata": {
                "name": name,
                "namespace": LEASE_NAMESPACE,
                **({"ownerReferences": [reference]} if owner else {}),
            },
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": self._settings.lease_duration,
                "renewTime": stamp,
            },
        }

    # -- being described

    async def _describe(self) -> None:
        while True:
            health = await self._health()
            try:
                await self._tell(health)
            except NotFound:
                # Somebody deleted the node while its agent lives: it registers again.
                await self._register_for_long()
            except (Conflict, Forbidden) as error:
                log.warning("node status not written", error=str(error))
            except StatusError as error:
                log.debug("node status not written", error=str(error))
            ill = health.runtime or health.network
            await wait_any(self._nudge, timeout=RECHECK_SECONDS if ill else CHECK_SECONDS)
            self._nudge.clear()

    async def _health(self) -> Health:
        runtime = network = ""
        try:
            self._engine = await self._kit.runtime.info()
            due = self._kit.clock() - self._told_at >= self._settings.status_seconds
            if due or not self._images:
                self._images = await self._kit.runtime.images()
        except RuntimeFailure as error:
            runtime = f"container runtime is down: {error}"
        if self._check_network is not None:
            problem = await self._check_network()
            network = f"container runtime network not ready: {problem}" if problem else ""
        return Health(runtime, network, disk_pressure=self.disk_pressure, routes=self.routes())

    def _status(self, health: Health) -> Json:
        conditions = self._node.status.conditions if self._node is not None else ()
        return node_status(
            self._settings,
            self._facts,
            self._engine,
            self._images,
            health,
            self._extended(),
            conditions,
            self._kit.clock(),
        )

    async def _tell(self, health: Health) -> None:
        """Write the status when something in it changed, and every few minutes."""
        key = (health, self._engine, tuple(sorted(self._extended().items())), len(self._images))
        now = self._kit.clock()
        if key == self._told and now - self._told_at < self._settings.status_seconds:
            return
        status = self._status(health)
        self._node = await self._kit.client.patch(
            Node,
            self._settings.node_name,
            None,
            {"status": status},
            subresource="status",
            content_type=STRATEGIC_MERGE_PATCH,
        )
        if health.runtime or health.network:
            log.warning("node is not ready", reason=health.runtime or health.network)
        self._told, self._told_at = key, now
