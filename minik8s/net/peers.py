"""Keeps the ways to the pods of other nodes as routes.py decides them, for ever.

The API says which nodes there are, the kernel what it has. Whenever one of them changes both are compared and the
difference is applied: so a restart touches nothing that is right, and what others flush or delete is healed. The peers
are remembered on disk, so that a host which boots while the master is away reaches them all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from minik8s.aio import backoff, wait_any
from minik8s.api.kinds.node import Node
from minik8s.client.informer import Informer
from minik8s.log import get_logger
from minik8s.net import netlink, routes, rtnl
from minik8s.net.base import NetworkError
from minik8s.net.metrics import peer_metrics
from minik8s.net.netlink import Netlink
from minik8s.net.routes import Change, Peer, Seen, Uplink, Wanted

CHECK_SECONDS = 60.0
SETTLE_SECONDS = 0.05  # changes come in bursts: look once at the end

log = get_logger("peers")


class Condition(NamedTuple):
    """What the node's condition NetworkUnavailable says; the reasons are those of Kubernetes' route controller."""

    available: bool
    reason: str
    message: str


FINE = Condition(True, "RouteCreated", "routes to the pods of all other nodes are set")
NOT_YET = Condition(True, "RouteCreated", "routes are being set")


class PeerRoutes:
    """`await run()`, eternal. `own` is this node as it was started; its Node's address counts once it is there.

    `folder` (DATA/net) keeps the peers. `changed` is called when `condition` has changed.
    """

    def __init__(
        self, nodes: Informer[Node], own: Peer, link: Netlink, folder: Path, mode: str, changed: Callable[[], None]
    ) -> None:
        self._nodes = nodes
        self._netlink = link
        self._file = folder / "peers.json"
        self.mode = mode
        self._changed = changed
        self._wake = asyncio.Event()
        self._numbers = (0, 0)  # of uplink and VTEP, as last seen
        self._settled: Wanted | None = None  # what we have brought into the kernel: other differences are drift
        self._metrics = peer_metrics()
        self.own = own
        self.peers: Sequence[Peer] = ()
        self.uplink: Uplink | None = None
        self.condition = NOT_YET
        self.moved = asyncio.Event()  # set when `peers` have other members

    async def run(self) -> None:
        self.peers = await asyncio.to_thread(self._remembered)
        self._nodes.on_change(self._node_changed)
        with netlink.listen(rtnl.GROUPS) as notices:
            loop = asyncio.get_running_loop()
            loop.add_reader(notices, self._noticed, notices)
            try:
                await self._keep()
            finally:
                loop.remove_reader(notices)

    async def _keep(self) -> None:
        delays = backoff(0.2, 10.0)
        while True:
            self._wake.clear()
            try:
                condition = await self._reconcile()
                delays, pause = backoff(0.2, 10.0), CHECK_SECONDS
            except NetworkError as error:
                condition, pause = Condition(False, "NoRouteCreated", str(error)), next(delays)
            if condition != self.condition:
                if not condition.available:
                    log.error(
                        "pods of other nodes are out of reach",
                        error=condition.message,
                        remedy="'minik8s doctor net' tells which pairs of nodes, and what would help",
                    )
                self.condition = condition
                self._changed()
            await wait_any(self._wake, timeout=pause)
            await asyncio.sleep(SETTLE_SECONDS)

    # -- what may have changed

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if old is None or new is None or routes.peer_of(old) != routes.peer_of(new):
            self._wake.set()

    def _noticed(self, notices: socket.socket) -> None:
        while True:
            try:
                data = notices.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some were lost
                self._wake.set()
                continue
            if any(routes.concerns(notice, *self._numbers) for notice in rtnl.notices(data)):
                self._wake.set()

    # -- one look

    async def _reconcile(self) -> Condition:
        await self._take_over_nodes()
        if self.uplink is None and not self.peers:
            return FINE  # alone: where its own address is does not matter
        seen, uplink = await self._look()
        self.uplink = uplink
        if uplink is None:
            raise NetworkError(
                f"no link of this host has its node address {self.own.address}; give it to one, or set --node-ip"
            )
        wanted = routes.plan(self.own, self.peers, self.mode, uplink)
        changes = routes.diff(seen, wanted)
        if changes and wanted == self._settled:
            self._metrics.drift.inc()
            log.warning(
                "routes to other nodes were changed by another program; healing",
                changes=len(changes),
                remedy="find what changes them ('ip monitor route') and let it leave those of minik8s alone",
            )
        before, self._settled = self._settled, None
        if any(change.what == "vtep" for change in changes):
            await self._set_vtep(wanted)
            seen, _ = await self._look()
            changes = routes.diff(seen, wanted)
        if changes:
            await self._netlink.request(*(self._request(change) for change in changes))
            log.info("routes to other nodes set", peers=len(self.peers), changes=len(changes))
        if wanted != before:
            self.moved.set()
        self._settled = wanted
        self._metrics.peers.set(len(self.peers))
        return _condition(wanted)

    async def _take_over_nodes(self) -> None:
        """Peers as the API tells them, once it has; until then those that were there last time."""
        if not self._nodes.has_synced:
            return
        nodes = self._nodes.list()
        mine = next((peer for node in nodes if (peer := routes.peer_of(node)) and peer.name == self.own.name), None)
        if mine is not None:
            if mine.pod_cidr != self.own.pod_cidr:
                raise NetworkError(
                    f"this node was given the pod range {mine.pod_cidr}, its pods are in {self.own.pod_cidr}: "
                    "restart the agent here"
                )
            self.own = mine
        peers = routes.others(nodes, self.own)
        if peers != self.peers:
            self.peers = peers
            await asyncio.to_thread(self._remember, peers)

    async def _look(self) -> tuple[Seen, Uplink | None]:
        links, addresses, table = await self._netlink.dump(rtnl.dump_links(), rtnl.dump_addresses(), rtnl.dump_routes())
        known = {link.number: link for link in map(rtnl.read_link, links)}
        held = [rtnl.read_address(each) for each in addresses]
        mtus = {link.number: link.mtu for link in known.values() if not link.name.startswith(netlink.LINK_PREFIX)}
        uplink = routes.uplink_of(self.own.address, held, mtus)
        vtep = next((link for link in known.values() if link.name == routes.VTEP), None)
        self._numbers = (uplink.number if uplink else 0, vtep.number if vtep else 0)
        entries: list[list[bytes]] = [[], []]
        if vtep is not None:
            entries = await self._netlink.dump(rtnl.dump_neighbours(vtep.number), rtnl.dump_forwarding(vtep.number))
        return routes.seen(uplink, vtep, held, table, *entries), uplink

    async def _set_vtep(self, wanted: Wanted) -> None:
        """Make it right, from new if need be: what was over it is set again afterwards."""
        number = self._numbers[1]
        if number:
            await self._netlink.request((f"delete link {routes.VTEP}", rtnl.delete_link(number)))
        if wanted.vtep is None:
            return
        want = wanted.vtep
        create = rtnl.new_vxlan(routes.VTEP, routes.VNI, want.local, routes.PORT, want.mac, want.mtu)
        await self._netlink.request((f"create VXLAN link {routes.VTEP} (UDP port {routes.PORT})", create))
        number = socket.if_nametoindex(routes.VTEP)
        await self._netlink.request(
            (f"set address {want.tunnel}", rtnl.address(number, want.tunnel)),
            (f"bring link {routes.VTEP} up", rtnl.set_link(number)),
        )

    def _request(self, change: Change) -> tuple[str, bytes]:
        uplink, vtep = self._numbers
        purpose, gone = f"{change.verb} {change.what} {' '.join(map(str, change.value))}", change.verb == "delete"
        if change.what == "route":
            destination, gateway, source, way = map(str, change.value)
            link = vtep if way == "vxlan" else uplink
            wanted = rtnl.Route(destination, gateway, link, source, onlink=True)
            return purpose, rtnl.route(wanted, delete=gone)
        ip, mac = map(str, change.value)
        make = rtnl.neighbour if change.what == "neighbour" else rtnl.forwarding
        return purpose, make(vtep, ip, mac, delete=gone)

    # -- the memory of peers

    def _remembered(self) -> list[Peer]:
        try:
            return [Peer(*map(str, each)) for each in json.loads(self._file.read_text())]
        except (FileNotFoundError, ValueError, TypeError):
            return []  # never written, or cut short by a power cut: the API will tell

    def _remember(self, peers: Sequence[Peer]) -> None:
        draft = self._file.with_suffix(".new")
        try:
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(peers))
            os.replace(draft, self._file)
        except OSError as error:
            log.warning(
                "peers are not remembered: a boot without the master would miss them",
                error=str(error),
                remedy="make space, or make the data folder writable",
            )


async def routes_left(link: Netlink) -> list[rtnl.Route]:
    """The routes of ours that the kernel has, also without an agent."""
    (found,) = await link.dump(rtnl.dump_routes())
    return [route for each in found if (route := rtnl.read_route(each))]


async def withdraw(link: Netlink) -> None:
    """Delete them; those over the VXLAN link went with it."""
    gone = [(f"delete route {r.destination}", rtnl.route(r, delete=True)) for r in await routes_left(link)]
    await link.request(*gone)


def _condition(wanted: Wanted) -> Condition:
    if not wanted.beyond:
        return FINE
    names = ", ".join(f"{peer.name} ({peer.address})" for peer in wanted.beyond[:5])
    return Condition(
        False,
        "NoRouteCreated",
        f"--pod-network routes does not reach nodes of other subnets: {names}; use auto or vxlan on every node",
    )
