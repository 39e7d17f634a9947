"""Ways to other nodes' pods: which way for which peer, and that the difference heals whatever the kernel has."""

from __future__ import annotations

import socket

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.kinds.node import SIMULATED_BY, Node
from minik8s.api.meta import ObjectMeta
from minik8s.net import routes, rtnl
from minik8s.net.routes import NOTHING, Change, Peer, Route, Seen, Uplink, Vtep, Wanted

OWN = Peer("h1", "10.0.0.1", "10.244.0.0/24")
NEAR = Peer("h3", "10.0.0.3", "10.244.2.0/24")
FAR = Peer("h2", "10.0.1.2", "10.244.1.0/24")
UPLINK = Uplink(2, 1500, ("10.0.0.0/24",))


def node(name: str, address: str = "", cidr: str = "") -> Node:
    addresses = [{"type": "Hostname", "address": name}, *([{"type": "InternalIP", "address": address}] * bool(address))]
    document = {"metadata": {"name": name}, "spec": {"podCIDR": cidr}, "status": {"addresses": addresses}}
    return msgspec.convert(document, Node)


def test_a_peer_is_what_a_node_says_when_it_says_enough() -> None:
    assert routes.peer_of(node("h2", "10.0.1.2", "10.244.1.0/24")) == FAR
    for strange in (("", "10.244.1.0/24"), ("10.0.1.2", ""), ("fd00::1", "10.244.1.0/24"), ("10.0.1.2", "fd00::/64"),
                    ("10.0.1.2", "10.244.1.7/24"), ("10.0.1.2; reboot", "10.244.1.0/24")):  # fmt: skip
        assert routes.peer_of(node("h2", *strange)) is None


def test_nobody_takes_what_is_ours_or_another_s() -> None:
    nodes = [
        node("z", FAR.address, "10.244.9.0/24"),  # h2's address: all the better for it
        node("y", "10.0.0.9", NEAR.pod_cidr),  # h3's range
        node("x", "10.0.0.8", OWN.pod_cidr),
        node("w", OWN.address, "10.244.8.0/24"),
        *(node(*peer) for peer in (NEAR, OWN, FAR)),
    ]
    assert routes.others(nodes, OWN) == [FAR, NEAR, Peer("z", FAR.address, "10.244.9.0/24")]
    simulated = msgspec.structs.replace(node(*FAR), metadata=ObjectMeta(name="h2", labels={SIMULATED_BY: "w"}))
    assert routes.others([simulated], OWN) == []


@pytest.mark.parametrize(
    ("mode", "near", "far"), [("auto", "route", "vxlan"), ("vxlan", "vxlan", "vxlan"), ("routes", "route", "none")]
)
def test_the_way_is_chosen_per_peer(mode: str, near: str, far: str) -> None:
    assert routes.way_to(NEAR, mode, UPLINK.networks) == near
    assert routes.way_to(FAR, mode, UPLINK.networks) == far
    assert routes.plan(OWN, [NEAR, FAR], mode, UPLINK).beyond == ((FAR,) if far == "none" else ())


def test_the_plan_for_one_near_and_one_far() -> None:
    assert routes.plan(OWN, [NEAR, FAR], "auto", UPLINK) == Wanted(
        Vtep("10.0.0.1", "02:6d:0a:00:00:01", 1450, "10.244.0.0"),
        frozenset(
            {
                Route("10.244.2.0/24", "10.0.0.3", "10.0.0.1", "route"),
                Route("10.244.1.0/24", "10.244.1.0", "10.244.0.0", "vxlan"),
            }
        ),
        frozenset({("10.244.1.0", "02:6d:0a:00:01:02")}),
        frozenset({("10.0.1.2", "02:6d:0a:00:01:02")}),
    )
    assert routes.plan(OWN, [NEAR], "auto", UPLINK).vtep is None  # nothing is made that nobody needs


PEERS = st.lists(
    st.builds(
        lambda i, near: Peer(f"n{i}", f"10.0.{0 if near else 1}.{i}", f"10.244.{i}.0/24"),
        st.integers(2, 9),
        st.booleans(),
    ),
    unique_by=lambda peer: peer.name,
    max_size=5,
)
PLANS = st.builds(lambda peers, mode: routes.plan(OWN, peers, mode, UPLINK), PEERS, st.sampled_from(routes.MODES))


def performed(seen: Seen, changes: list[Change]) -> Seen:
    """What a kernel has afterwards: setting replaces by key, and what is over a link goes with it."""
    vtep, found = (
        seen.vtep,
        {"route": set(seen.routes), "neighbour": set(seen.neighbours), "forwarding": set(seen.forwarding)},
    )
    key = {"route": 0, "neighbour": 0, "forwarding": 1}
    for verb, what, value in changes:
        if what == "vtep":
            vtep = Vtep(*value) if verb == "set" else None  # type: ignore[arg-type]
            found = {"route": {r for r in found["route"] if r.way != "vxlan"}, "neighbour": set(), "forwarding": set()}
            continue
        found[what] = {each for each in found[what] if each[key[what]] != value[key[what]]}
        if verb == "set":
            found[what].add(value)
    return Seen(vtep, *(frozenset(found[what]) for what in ("route", "neighbour", "forwarding")))


@given(PLANS, PLANS)
def test_from_any_state_to_any_plan_and_then_nothing(before: Wanted, wanted: Wanted) -> None:
    seen = Seen(before.vtep, before.routes, before.neighbours, before.forwarding)
    changes = routes.diff(seen, wanted)
    if any(change.what == "vtep" for change in changes):  # as the shell does: first the link, then a new look
        seen = performed(seen, [change for change in changes if change.what == "vtep"])
        changes = routes.diff(seen, wanted)
    after = performed(seen, changes)
    assert after == Seen(wanted.vtep, wanted.routes, wanted.neighbours, wanted.forwarding)
    assert routes.diff(after, wanted) == []


@given(PLANS)
def test_from_nothing_and_back(wanted: Wanted) -> None:
    assert all(change.verb == "set" for change in routes.diff(NOTHING, wanted))
    seen = Seen(wanted.vtep, wanted.routes, wanted.neighbours, wanted.forwarding)
    empty = Wanted(None, frozenset(), frozenset(), frozenset())
    assert performed(seen, routes.diff(seen, empty)) == NOTHING


def test_the_uplink_is_the_link_with_the_nodes_address() -> None:
    addresses = [rtnl.Address("10.0.0.1", 24, 2), rtnl.Address("10.9.0.1", 16, 2), rtnl.Address("127.0.0.1", 8, 1)]
    assert routes.uplink_of("10.0.0.1", addresses, {1: 65536, 2: 9000}) == Uplink(
        2, 9000, ("10.0.0.0/24", "10.9.0.0/16")
    )
    assert routes.uplink_of("10.0.0.2", addresses, {1: 65536, 2: 9000}) is None
    assert routes.uplink_of("10.0.0.1", addresses, {1: 65536}) is None  # it is a link of ours


def test_which_notices_concern_us() -> None:
    uplink, vtep = 2, 5
    heard = [
        (rtnl.NEWADDR, 9, 0), (rtnl.DELROUTE, 0, rtnl.PROTOCOL), (rtnl.NEWLINK, 2, 0), (rtnl.DELLINK, 5, 0),
        (rtnl.DELNEIGH, 5, 0),
    ]  # fmt: skip
    assert all(routes.concerns(rtnl.Notice(*each), uplink, vtep) for each in heard)
    others = [(rtnl.NEWROUTE, 0, 4), (rtnl.NEWLINK, 7, 0), (rtnl.NEWNEIGH, 2, 0)]  # pods, and who is on the wire
    assert not any(routes.concerns(rtnl.Notice(*each), uplink, vtep) for each in others)


def test_messages_are_read_as_they_are_written() -> None:
    """The kernel's answers have the layout of requests."""
    wanted = rtnl.Route("10.244.1.0/24", "10.244.1.0", 5, "10.244.0.0", onlink=True)
    assert rtnl.read_route(rtnl.route(wanted)) == wanted
    assert rtnl.read_neighbour(rtnl.neighbour(5, "10.244.1.0", "02:6d:0a:00:01:02")) == rtnl.Neighbour(
        5, "10.244.1.0", "02:6d:0a:00:01:02", permanent=True
    )
    made = rtnl.read_link(rtnl.new_vxlan("mk8s-vxlan", 7, "10.0.0.1", 8472, "02:6d:0a:00:00:01", 1450))
    assert made == rtnl.Link(0, "mk8s-vxlan", "", 0, False, 1450, "02:6d:0a:00:00:01", (7, "10.0.0.1", 8472))
    assert rtnl.read_address(rtnl.address(3, "10.244.0.0")) == rtnl.Address("10.244.0.0", 32, 3)
    both = rtnl.address(3, "10.244.0.0") + rtnl.route(wanted)
    assert list(rtnl.notices(both)) == [rtnl.Notice(rtnl.NEWADDR, 3, 0), rtnl.Notice(rtnl.NEWROUTE, 0, rtnl.PROTOCOL)]
    assert list(rtnl.split(both[:30] + bytes(3))) != []  # cut short: no endless loop
    assert socket.inet_aton("10.244.1.0") in both
