"""Do the packets of pods get through to another node? What was tried, and what the result means in words. Pure.

Four things are tried from a node to a peer, each needing the one before: the peer itself; its own address in the pod
network, which needs the way but no forwarding; its probe, which is wired like a pod; and that again with the largest
packet that pods send.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

from minik8s.net.routes import PORT, Way

HEADERS = 28  # bytes of IP and ICMP around what an echo request carries
SMALLEST = 576 - HEADERS  # what every path of IPv4 lets through (RFC 791)
Json = dict[str, Any]


class Reach(NamedTuple):
    """What a node has found out about one peer."""

    peer: str
    address: str  # of the peer
    way: Way
    node: bool = False
    tunnel: bool = False
    pod: bool = False
    size: int = 0  # bytes of the largest packet that got through, 0 if none did
    largest: int = 0  # bytes that pods' links let through
    milliseconds: float = 0.0

    @property
    def well(self) -> bool:
        return self.pod and self.size >= self.largest


class Words(NamedTuple):
    well: bool
    detail: str
    remedy: str = ""


def from_json(document: Json) -> Reach:
    """Of a node that may be of another release. Raises TypeError."""
    return Reach(**{key: value for key, value in document.items() if key in Reach._fields})


def words(source: str, address: str, reach: Reach) -> Words:
    """What there is to say of the way from the node `source`, which has `address`, to a peer."""
    pair = f"{source} -> {reach.peer}"
    if reach.way == "none":
        return Words(
            False, f"{pair}: no way: {reach.peer} ({reach.address}) is in another subnet",
            "run the agents of all nodes with --pod-network auto or vxlan",
        )  # fmt: skip
    by = "VXLAN" if reach.way == "vxlan" else "route"
    if reach.well:
        return Words(True, f"{pair}: {by}, {reach.milliseconds:.1f} ms, packets up to {reach.size} bytes")
    if reach.pod:
        missing = reach.largest - reach.size
        return Words(
            False,
            f"{pair}: packets over {reach.size} bytes get lost, pods send up to {reach.largest}: something between "
            f"{address} and {reach.address} lets less through than the links of these hosts say",
            f"lower the MTU of the link with the node's address by {missing} bytes on both hosts, "
            "restart their agents and the pods there",
        )
    if reach.tunnel:
        return Words(
            False,
            f"{pair}: packets reach the other host, but not pods there: a firewall drops what is forwarded on "
            f"{source} or {reach.peer}",
            "look for DROP in 'iptables -S FORWARD' and 'nft list ruleset' there, and let links mk8s+ through",
        )
    if not reach.node:
        return Words(
            False,
            f"{pair}: {reach.address} does not answer at all, neither as a host nor as a way to its pods",
            "see that the host is on and its network is up, and that no firewall drops ping",
        )
    if reach.way == "vxlan":
        return Words(
            False,
            f"{pair}: {reach.peer} itself answers, packets in VXLAN do not come back: UDP port {PORT} is blocked "
            f"between {address} and {reach.address}",
            f"let UDP port {PORT} through in both directions: on firewalls between them, and on both hosts "
            f"(iptables -I INPUT -p udp --dport {PORT} -j ACCEPT)",
        )
    return Words(
        False,
        f"{pair}: {reach.peer} itself answers, packets with pods' addresses do not come back: something in this subnet "
        "drops addresses that it did not give (as clouds do)",
        "run the agents of all nodes with --pod-network vxlan, or switch that check of sources off",
    )


def sizes(largest: int) -> Generator[int, bool, None]:
    """A dialogue by `send(whether it got through)`: which sizes to try, in a search for the largest that does."""
    low, high = 0, largest - HEADERS
    if (yield high):
        return
    low = SMALLEST if (yield SMALLEST) else 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if (yield middle) else (low, middle)
