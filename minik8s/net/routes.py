"""Which routes lead to the pods of other nodes: pure decisions, and the difference to what the kernel has.

A peer in our own subnet is the next hop of a plain route to its pods. One behind a router gets its packets in VXLAN
(in the manner of flannel): one link for all peers (the VTEP), whose forwarding entries say behind which host a mac is,
permanent neighbours that say which mac has a peer's tunnel address, and routes by that address. Mac and tunnel address
follow from what the Node says (the mac from the host's address, the tunnel address is the pod range's first, which no
pod gets), so that nothing else needs to be told.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from minik8s.api.kinds.node import SIMULATED_BY, Node
from minik8s.net import rtnl

MODES = ("auto", "routes", "vxlan")
VTEP = "mk8s-vxlan"
VNI = 0x6D6B38  # "mk8"; no other program's
PORT = 8472
OVERHEAD = 50  # bytes of VXLAN around a packet: outer IP 20, UDP 8, VXLAN 8, inner Ethernet 14
Way = Literal["route", "vxlan", "none"]


class Peer(NamedTuple):
    """A node as others need it; we are one, too."""

    name: str
    address: str
    pod_cidr: str

    @property
    def tunnel(self) -> str:
        """The first address of its pods: its own in the pod network."""
        return self.pod_cidr.partition("/")[0]

    @property
    def probe(self) -> str:
        """The last one, no pod's either: of what is wired there like a pod, to be reached in trials."""
        return str(ipaddress.ip_network(self.pod_cidr)[-1])


class Uplink(NamedTuple):
    """The link that has our own address."""

    number: int
    mtu: int
    networks: tuple[str, ...]  # of its addresses


class Vtep(NamedTuple):
    local: str
    mac: str
    mtu: int
    tunnel: str


class Route(NamedTuple):
    destination: str
    gateway: str
    source: str
    way: Way  # "none": over a link where we want nothing


class Wanted(NamedTuple):
    vtep: Vtep | None
    routes: frozenset[Route]
    neighbours: frozenset[tuple[str, str]]  # tunnel address, mac
    forwarding: frozenset[tuple[str, str]]  # node's address, mac
    beyond: tuple[Peer, ...] = ()  # those that no way leads to


class Seen(NamedTuple):
    """What the kernel has of ours."""

    vtep: Vtep | None
    routes: frozenset[Route]
    neighbours: frozenset[tuple[str, str]]
    forwarding: frozenset[tuple[str, str]]


NOTHING = Seen(None, frozenset(), frozenset(), frozenset())


class Change(NamedTuple):
    verb: Literal["set", "delete"]
    what: Literal["vtep", "route", "neighbour", "forwarding"]
    value: tuple[object, ...]


def peer_of(node: Node) -> Peer | None:
    """None as long as the Node does not say what is needed, or says what cannot be, and for one without real pods."""
    if SIMULATED_BY in node.metadata.labels:
        return None
    address = next((a.address for a in node.status.addresses if a.type == "InternalIP" and ":" not in a.address), "")
    try:
        ipaddress.IPv4Address(address)
        cidr = ipaddress.IPv4Network(node.spec.podCIDR)
    except ValueError:
        return None
    return Peer(node.metadata.name, address, str(cidr))


def others(nodes: Iterable[Node], own: Peer) -> list[Peer]:
    """By name. Of two that claim one range the first by name is believed, and nobody who claims ours or our address."""
    found: list[Peer] = []
    ranges = {own.pod_cidr}
    for node in sorted(nodes, key=lambda node: node.metadata.name):
        peer = peer_of(node)
        if peer is None or peer.name == own.name or peer.address == own.address or peer.pod_cidr in ranges:
            continue
        found.append(peer)
        ranges.add(peer.pod_cidr)
    return found


def mac_of(address: str) -> str:
    """02 marks a mac as nobody's hardware; then `m` and the node's address."""
    return (b"\x02m" + socket.inet_aton(address)).hex(":")


def way_to(peer: Peer, mode: str, networks: Sequence[str]) -> Way:
    if mode == "vxlan":
        return "vxlan"
    near = any(ipaddress.ip_address(peer.address) in ipaddress.ip_network(network) for network in networks)
    if near:
        return "route"
    return "vxlan" if mode == "auto" else "none"


def plan(own: Peer, peers: Iterable[Peer], mode: str, uplink: Uplink) -> Wanted:
    """All that the kernel should have. `mode` is one of MODES."""
    by_way: dict[Way, list[Peer]] = {"route": [], "vxlan": [], "none": []}
    for peer in peers:
        by_way[way_to(peer, mode, uplink.networks)].append(peer)
    tunnelled = by_way["vxlan"]
    vtep = Vtep(own.address, mac_of(own.address), uplink.mtu - OVERHEAD, own.tunnel) if tunnelled else None
    routes = [Route(peer.pod_cidr, peer.address, own.address, "route") for peer in by_way["route"]]
    routes += [Route(peer.pod_cidr, peer.tunnel, own.tunnel, "vxlan") for peer in tunnelled]
    return Wanted(
        vtep,
        frozenset(routes),
        frozenset((peer.tunnel, mac_of(peer.address)) for peer in tunnelled),
        frozenset((peer.address, mac_of(peer.address)) for peer in tunnelled),
        tuple(by_way["none"]),
    )


def diff(seen: Seen, wanted: Wanted) -> list[Change]:
    """What turns the one into the other; nothing twice, and what is right is not touched."""
    changes: list[Change] = []
    if seen.vtep != wanted.vtep:
        changes.append(Change("set", "vtep", wanted.vtep) if wanted.vtep else Change("delete", "vtep", ()))
    destinations = {route.destination for route in wanted.routes}
    changes += [
        Change("delete", "route", route)
        for route in sorted(seen.routes - wanted.routes)
        if route.destination not in destinations
    ]
    # Setting replaces by key, which is the tunnel address of a neighbour and the mac of a forwarding entry.
    keys = {ip for ip, _ in wanted.neighbours}
    changes += [
        Change("delete", "neighbour", e) for e in sorted(seen.neighbours - wanted.neighbours) if e[0] not in keys
    ]
    macs = {mac for _, mac in wanted.forwarding}
    changes += [
        Change("delete", "forwarding", e) for e in sorted(seen.forwarding - wanted.forwarding) if e[1] not in macs
    ]
    changes += [Change("set", "forwarding", entry) for entry in sorted(wanted.forwarding - seen.forwarding)]
    changes += [Change("set", "neighbour", entry) for entry in sorted(wanted.neighbours - seen.neighbours)]
    changes += [Change("set", "route", route) for route in sorted(wanted.routes - seen.routes)]
    if wanted.vtep is None and seen.vtep is not None:  # with the link everything over it goes by itself
        changes = [c for c in changes if c.what == "vtep" or (c.what == "route" and c.value[3] != "vxlan")]
    return changes


def seen(
    uplink: Uplink | None,
    vtep: rtnl.Link | None,
    addresses: Iterable[rtnl.Address],
    table: Iterable[bytes],
    neighbours: Iterable[bytes],
    forwarding: Iterable[bytes],
) -> Seen:
    """What the kernel has, from its own messages."""
    ways: dict[int, Way] = {uplink.number: "route"} if uplink else {}
    right: Vtep | None = None
    if vtep is not None:
        ways[vtep.number] = "vxlan"
        held = [a.ip for a in addresses if a.link == vtep.number and a.prefix == 32]
        if vtep.up and len(held) == 1 and vtep.vxlan is not None and (vtep.vxlan[0], vtep.vxlan[2]) == (VNI, PORT):
            right = Vtep(vtep.vxlan[1], vtep.mac, vtep.mtu, held[0])
        else:
            right = Vtep("", vtep.mac, vtep.mtu, "")  # there, and to be made anew
    found = (rtnl.read_route(each) for each in table)
    near = [rtnl.read_neighbour(each) for each in neighbours]
    behind = [rtnl.read_neighbour(each) for each in forwarding]
    number = vtep.number if vtep else 0
    return Seen(
        right,
        frozenset(Route(r.destination, r.gateway, r.source, ways.get(r.link, "none")) for r in found if r),
        frozenset((n.ip, n.mac) for n in near if n.link == number and n.permanent),
        frozenset((n.ip, n.mac) for n in behind if n.link == number and n.ip),
    )


def uplink_of(address: str, addresses: Iterable[rtnl.Address], mtus: Mapping[int, int]) -> Uplink | None:
    """The link that carries `address`; None while no link does."""
    listed = list(addresses)
    number = next((each.link for each in listed if each.ip == address and each.link in mtus), None)
    if number is None:
        return None
    networks = {str(ipaddress.ip_network((a.ip, a.prefix), strict=False)) for a in listed if a.link == number}
    return Uplink(number, mtus[number], tuple(sorted(networks)))


def concerns(notice: rtnl.Notice, uplink: int, vtep: int) -> bool:
    """Whether a notice of the kernel may be about something of ours; the links by number."""
    if notice.type in (rtnl.NEWADDR, rtnl.DELADDR):
        return True
    if notice.type in (rtnl.NEWROUTE, rtnl.DELROUTE):
        return notice.protocol == rtnl.PROTOCOL
    if notice.type in (rtnl.NEWLINK, rtnl.DELLINK):
        return notice.link in (uplink, vtep)
    return notice.link == vtep
