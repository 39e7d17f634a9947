"""The node in the API: registered, kept alive by a Lease, described, and ready only while it can really run pods.

A Node that somebody deletes while its agent lives stays deleted until the agent is started again, or the Node made by
hand: as with Kubernetes' kubelet. But an API that has never heard of it registers it: its store was lost or restored.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping

from minik8s.aio import backoff, wait_any
from minik8s.api.errors import AlreadyExists, Conflict, Forbidden, NotFound, StatusError
from minik8s.api.kinds.lease import INTERVAL_ANNOTATION, NODE_LEASES, Lease
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.node import KEY_ANNOTATION, Node
from minik8s.api.meta import condition
from minik8s.client.base import STRATEGIC_MERGE_PATCH
from minik8s.clock import rfc3339_micro
from minik8s.kubelet.kit import Amount, Kit
from minik8s.kubelet.node_facts import Facts, Health, Json, RoutesState, advertised, node_labels, node_status
from minik8s.log import get_logger
from minik8s.runtime.base import EngineInfo, ImageInfo, RuntimeFailure

UID_LABEL = "minik8s.io/agent"  # which agent's data folder a Node belongs to
CHECK_SECONDS = 10.0  # between looks at the health of runtime and network
RECHECK_SECONDS = 2.0  # the same while one of them is not well, so that its return is seen soon
DURATION = 8  # heartbeats that a Lease lasts: with one in five seconds kubelet's 40 s
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
        extended: Callable[[], Mapping[str, Amount | None]] = dict,
    ) -> None:
        self._kit = kit
        self._settings = kit.settings
        self._check_network = check_network
        self._extended = extended
        self._facts = facts
        self._engine: EngineInfo | None = None
        self._images: list[ImageInfo] = []
        self._ill = False  # runtime or network, when they were last looked at
        self._told: tuple[object, ...] = ()
        self._told_at = 0.0
        self._advertised: Json = {}  # what allocatable lacks of what others have added to capacity
        self._node: Node | None = None
        self._nudge = asyncio.Event()
        self._lease = False
        self._interval = self._settings.lease_seconds
        self._cut_off = False  # the last heartbeat did not get through
        self._deleted = False  # by somebody, while we live
        self._store = ""  # by which we know the API's store again: the uid of an object as old as the store itself
        self.disk_pressure = False
        self.routes: Callable[[], RoutesState | None] = lambda: None  # set by whoever keeps the routes; nudge on change
        self.registered = asyncio.Event()

    @property
    def node(self) -> Node | None:
        return self._node

    @property
    def engine(self) -> EngineInfo | None:
        """The container engine, as it was last seen."""
        return self._engine

    def nudge(self) -> None:
        """Something changed (devices, pressure): look at once."""
        self._nudge.set()

    def readdress(self, ip: str) -> None:
        """This machine has another address: announce it."""
        log.info("this node's address has changed", address=ip, before=self._settings.node_ip)
        self._settings.node_ip = ip
        self.nudge()

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
        annotations = {KEY_ANNOTATION: self._settings.node_key} if self._settings.node_key else {}
        metadata = {"name": self._settings.node_name, "labels": labels, "annotations": annotations}
        body = {
            "metadata": metadata,
            "spec": {"taints": list(self._settings.taints)} if self._settings.taints else {},
            "status": self._status(health),
        }
        self._told = ()
        try:
            self._node = await self._kit.client.create(Node, body)
            if not self._ill and condition(self._node.status.conditions, "Ready") is not None:
                self._told, self._told_at = self._key(health), self._kit.clock()  # it has been made with its status
        except AlreadyExists:
            self._node = await self._adopt(labels, annotations)
        self._deleted = False
        await self._learn()
        await self._tell(health)

    async def _adopt(self, labels: dict[str, str], annotations: dict[str, str]) -> Node:
        known = await self._kit.client.get(Node, self._settings.node_name)
        self._check_owner(known)
        meta = known.metadata
        if labels.items() <= meta.labels.items() and annotations.items() <= meta.annotations.items():
            return known
        ours = {"metadata": {"labels": labels, "annotations": annotations}}
        return await self._kit.client.patch(Node, meta.name, None, ours)

    def _check_owner(self, known: Node) -> None:
        owner, name = known.metadata.labels.get(UID_LABEL, ""), known.metadata.name
        if owner and self._settings.node_uid and owner != self._settings.node_uid:
            raise NameTaken(
                f"a node named {name!r} is registered by another agent: start with another --node-name, or delete the "
                f"old node first (kubectl delete node {name})"
            )

    async def _learn(self) -> None:
        """How often the master wants to hear from us, and which store it has."""
        leases = await self._kit.client.get(Namespace, NODE_LEASES)
        self._store = leases.metadata.uid
        try:
            wanted = float(leases.metadata.annotations.get(INTERVAL_ANNOTATION, "inf"))
        except ValueError:  # somebody has written there
            wanted = math.inf
        self._interval = max(min(wanted, self._settings.lease_seconds), 0.1)

    # -- being alive

    async def _heartbeat(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(self._interval * random.uniform(0.9, 1.0))  # or all nodes would fall in step

    async def beat(self) -> None:
        if self._deleted:
            return
        name = self._settings.node_name
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": math.ceil(self._interval * DURATION),
            "renewTime": rfc3339_micro(self._kit.clock()),
        }
        try:
            if self._lease:
                await self._kit.client.patch(Lease, name, NODE_LEASES, {"spec": spec})
            else:
                await self._kit.client.create(Lease, {"metadata": self._lease_meta(), "spec": spec}, NODE_LEASES)
                self._lease = True
        except AlreadyExists:
            self._lease = True
            await self.beat()
        except NotFound:
            self._lease = False  # made again at the next beat; it went with its Node, perhaps
            self.nudge()
        except StatusError as error:
            log.debug("heartbeat not written", error=str(error))
            self._cut_off = True
        else:
            if self._cut_off:
                self._cut_off = False
                await self._return()

    async def _return(self) -> None:
        """The API is back: it may think that we are lost, and have been told other settings."""
        try:
            await self._learn()
        except StatusError as error:
            log.debug("settings not read", error=str(error))
        self._told = ()
        self.nudge()

    def _lease_meta(self) -> Json:
        owner = self._node.metadata.uid if self._node is not None else ""
        name = self._settings.node_name
        reference = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner}
        return {"name": name, "namespace": NODE_LEASES, **({"ownerReferences": [reference]} if owner else {})}

    # -- being described

    async def _describe(self) -> None:
        """Look now and then. Registering has just looked: if all was well then, the first look has time."""
        if not self._ill:
            await self._pause()
        while True:
            health = await self._health()
            try:
                await self._compare()
                await self._tell(health)
            except NotFound:
                await self._missing()
            except (Conflict, Forbidden) as error:
                log.warning(
                    "node status not written",
                    error=str(error),
                    remedy="the node's own certificate must still be this node's: 'minik8s join' makes it anew",
                )
            except StatusError as error:
                log.debug("node status not written", error=str(error))
            await self._pause()

    async def _pause(self) -> None:
        pause = (RECHECK_SECONDS if self._ill or self._deleted else CHECK_SECONDS) * random.uniform(0.9, 1.0)
        await wait_any(self._nudge, timeout=pause)
        self._nudge.clear()

    async def _compare(self) -> None:
        """Whether the Node still says what it was told: others judge it when they do not hear from us."""
        told = condition(self._node.status.conditions, "Ready") if self._node is not None else None
        known = await self._kit.client.get(Node, self._settings.node_name)
        self._check_owner(known)
        if self._deleted:
            await self.register()
            return
        there = condition(known.status.conditions, "Ready")
        self._advertised = advertised(known.status, self._extended())
        if self._advertised or told is None or there is None or there.status != told.status:
            self._told = ()

    async def _missing(self) -> None:
        """There is no Node of ours. Has somebody deleted it, or does this API not know what it once told us?"""
        if self._deleted or self._node is None:
            return
        name, seen = self._settings.node_name, int(self._node.metadata.resourceVersion)
        try:
            nodes = await self._kit.client.list(Node, fields=f"metadata.name={name}")
            leases = await self._kit.client.get(Namespace, NODE_LEASES)
        except StatusError as error:
            log.debug("not known whether the node was deleted", error=str(error))
            return
        if leases.metadata.uid != self._store or int(nodes.metadata.resourceVersion) < seen:
            log.warning(
                "the API does not know this node any more: its store was replaced; registering again",
                remedy="nothing: this node registers again",
            )
            await self._register_for_long()
            return
        self._deleted, self._lease = True, False
        log.warning("this node was deleted; to register it again, restart the agent ('minik8s stop', 'minik8s start')")

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
        self._ill = bool(runtime or network)
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

    def _key(self, health: Health) -> tuple[object, ...]:
        """What the status is made of."""
        extended = tuple(sorted(self._extended().items()))
        return (health, self._engine, extended, len(self._images), self._settings.node_ip)

    async def _tell(self, health: Health) -> None:
        """Write the status when something in it changed, and every few minutes."""
        key, now = self._key(health), self._kit.clock()
        if key == self._told and now - self._told_at < self._settings.status_seconds:
            return
        status = self._status(health)
        status["allocatable"] |= self._advertised
        self._node = await self._kit.client.patch(
            Node,
            self._settings.node_name,
            None,
            {"status": status},
            subresource="status",
            content_type=STRATEGIC_MERGE_PATCH,
        )
        if health.runtime or health.network:
            log.warning(
                "node is not ready",
                reason=health.runtime or health.network,
                remedy="'minik8s doctor' tells what this host lacks; see that the Docker Engine answers",
            )
        self._told, self._told_at = key, now
