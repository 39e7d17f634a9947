"""rtnetlink as bytes, as far as a node needs it: links, addresses, routes, neighbours. Pure.

A message is a header (length, type, flags, sequence, port), a fixed part by type, and attributes (length, type, data),
each padded to four bytes; numbers in the machine's order but for ports of UDP. Layouts and numbers: linux/rtnetlink.h,
linux/if_link.h, linux/neighbour.h. Some 5 microseconds a message, where a general library takes a millisecond.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
GROUPS = (1, 3, 5, 7)  # of notices: links, neighbours (and forwarding entries), IPv4 addresses, IPv4 routes

REQUEST, ACK, ROOT, CREATE, EXCLUSIVE, REPLACE = 0x1, 0x4, 0x300, 0x400, 0x200, 0x100
PROTOCOL = 109  # marks routes as ours; below 128 is the kernel's and well-known daemons', this one is free
STATIC = 4  # the protocol of routes that an administrator, or one of our pods, has set
MAIN_TABLE, UNICAST, LINK_SCOPE, ANY_SCOPE = 254, 1, 253, 255
ONLINK, UP = 4, 1
PERMANENT, NO_ARP, SELF = 0x80, 0x40, 0x02
AF_BRIDGE = 7


class Address(NamedTuple):
    ip: str
    prefix: int
    link: int  # the kernel's number of the link


class Route(NamedTuple):
    destination: str  # 10.244.1.0/24
    gateway: str
    link: int
    source: str
    onlink: bool


class Neighbour(NamedTuple):
    """Who has an address (`lladdr` of `ip`), or, in a forwarding table, behind which `ip` a mac is."""

    link: int
    ip: str
    mac: str
    permanent: bool


class Link(NamedTuple):
    number: int  # the kernel's index
    name: str
    alias: str
    peer: int  # number of the other end of a pair, in its own namespace
    up: bool
    mtu: int
    mac: str
    vxlan: tuple[int, str, int] | None  # vni, local address, port


class Notice(NamedTuple):
    """What changed, as little as decides whether to look: see `notices`."""

    type: int
    link: int
    protocol: int  # of a route


# -- requests


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def _message(type: int, flags: int, fixed: bytes, *attributes: bytes) -> bytes:
    body = fixed + b"".join(attributes)
    return struct.pack("=IHHII", len(body) + 16, type, REQUEST | flags, 0, 0) + body


def acknowledged(message: bytes, number: int = 0) -> bytes:
    """The request so that it is answered by its number and an error's, 0 for none."""
    flags = struct.unpack_from("=H", message, 6)[0] | ACK
    return message[:6] + struct.pack("=HI", flags, number) + message[12:]


def _link(type: int, flags: int, index: int, *attributes: bytes, state: int = 0) -> bytes:
    return _message(type, flags, struct.pack("=BxHiII", 0, 0, index, state, state), *attributes)


def _named(name: str) -> bytes:
    return _attribute(3, name.encode() + b"\0")


def _info(kind: str, data: bytes = b"") -> bytes:
    return _attribute(18, _attribute(1, kind.encode()) + (_attribute(2, data) if data else b""))  # IFLA_LINKINFO


def new_link(name: str, kind: str) -> bytes:
    return _link(NEWLINK, CREATE | EXCLUSIVE, 0, _named(name), _info(kind))


def new_pair(name: str, mac: str, inner: str, namespace: int, mtu: int) -> bytes:
    """Two ends of a wire: `name` with `mac` here, `inner` born in the namespace of a descriptor."""
    size = _attribute(4, struct.pack("=I", mtu))
    there = bytes(16) + _named(inner) + _attribute(28, struct.pack("=I", namespace)) + size  # IFLA_NET_NS_FD
    return _link(
        NEWLINK, CREATE | EXCLUSIVE, 0, _named(name), size, _mac(1, mac), _info("veth", _attribute(1, there))
    )  # fmt: skip


def new_vxlan(name: str, vni: int, local: str, port: int, mac: str, mtu: int) -> bytes:
    data = (
        _attribute(1, struct.pack("=I", vni))  # IFLA_VXLAN_ID
        + _attribute(4, socket.inet_aton(local))  # IFLA_VXLAN_LOCAL
        + _attribute(7, b"\0")  # IFLA_VXLAN_LEARNING
        + _attribute(15, struct.pack("!H", port))  # IFLA_VXLAN_PORT
    )
    size = _attribute(4, struct.pack("=I", mtu))
    return _link(NEWLINK, CREATE | EXCLUSIVE, 0, _named(name), size, _mac(1, mac), _info("vxlan", data))


def set_link(index: int, *, alias: str = "", group: int = 0) -> bytes:
    """Bring it up, and set what is given."""
    attributes = [_attribute(20, alias.encode())] if alias else []
    attributes += [_attribute(27, struct.pack("=I", group))] if group else []
    return _link(NEWLINK, 0, index, *attributes, state=UP)


def delete_link(index: int) -> bytes:
    return _link(DELLINK, 0, index)


def delete_group(group: int) -> bytes:
    """All links of a group."""
    return _link(DELLINK, 0, 0, _attribute(27, struct.pack("=I", group)))


def address(index: int, ip: str, *, scope: int = 0, delete: bool = False) -> bytes:
    data = socket.inet_aton(ip)
    fixed = struct.pack("=BBBBI", socket.AF_INET, 32, 0, scope, index)
    type, flags = (DELADDR, 0) if delete else (NEWADDR, CREATE | REPLACE)
    return _message(type, flags, fixed, _attribute(2, data), _attribute(1, data))


def route(wanted: Route, *, delete: bool = False) -> bytes:
    """Set a route in place of the one to the same destination, or delete it if it is ours."""
    ip, _, prefix = wanted.destination.partition("/")
    destination = _attribute(1, socket.inet_aton(ip))
    if delete:
        return _message(DELROUTE, 0, _route_fixed(int(prefix), scope=ANY_SCOPE), destination)
    return _message(
        NEWROUTE,
        CREATE | REPLACE,
        _route_fixed(int(prefix), type=UNICAST, flags=ONLINK if wanted.onlink else 0),
        destination,
        _attribute(5, socket.inet_aton(wanted.gateway)),
        _attribute(4, struct.pack("=i", wanted.link)),
        _attribute(7, socket.inet_aton(wanted.source)),
    )


def pod_route(ip: str, prefix: int, link: int, gateway: str = "") -> bytes:
    """A route of a pod's wiring, on either side: not one of those that lead to peers."""
    scope = 0 if gateway else LINK_SCOPE
    fixed = struct.pack("=8BI", socket.AF_INET, prefix, 0, 0, MAIN_TABLE, STATIC, scope, UNICAST, 0)
    attributes = [_attribute(4, struct.pack("=i", link))]
    attributes += [_attribute(1, socket.inet_aton(ip))] if prefix else []
    attributes += [_attribute(5, socket.inet_aton(gateway))] if gateway else []
    return _message(NEWROUTE, CREATE | REPLACE, fixed, *attributes)


def _route_fixed(prefix: int, *, scope: int = 0, type: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=8BI", socket.AF_INET, prefix, 0, 0, MAIN_TABLE, PROTOCOL, scope, type, flags)


def neighbour(link: int, ip: str, mac: str, *, delete: bool = False) -> bytes:
    fixed = struct.pack("=BxHiHBB", socket.AF_INET, 0, link, PERMANENT, 0, UNICAST)
    return _entry(fixed, ip, mac, delete=delete)


def forwarding(link: int, ip: str, mac: str, *, delete: bool = False) -> bytes:
    """The entry of a VXLAN link that says behind which host a mac is."""
    fixed = struct.pack("=BxHiHBB", AF_BRIDGE, 0, link, PERMANENT | NO_ARP, SELF, 0)
    return _entry(fixed, ip, mac, delete=delete)


def _entry(fixed: bytes, ip: str, mac: str, *, delete: bool) -> bytes:
    attributes = (_attribute(1, socket.inet_aton(ip)), _mac(2, mac))
    return _message(DELNEIGH if delete else NEWNEIGH, 0 if delete else CREATE | REPLACE, fixed, *attributes)


def _mac(kind: int, mac: str) -> bytes:
    return _attribute(kind, bytes.fromhex(mac.replace(":", "")))


def get_link(name: str) -> bytes:
    return _link(GETLINK, 0, 0, _named(name))


def dump_links() -> bytes:
    return _link(GETLINK, ROOT, 0)


def dump_addresses() -> bytes:
    return _message(GETADDR, ROOT, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0))


def dump_routes() -> bytes:
    """Of ours alone, if the socket asks for strict checking of requests."""
    return _message(GETROUTE, ROOT, _route_fixed(0))


def dump_neighbours(link: int) -> bytes:
    return _message(GETNEIGH, ROOT, struct.pack("=BxHiHBB", socket.AF_INET, 0, 0, 0, 0, 0), _index_attribute(link))


def dump_forwarding(link: int) -> bytes:
    return _message(GETNEIGH, ROOT, struct.pack("=BxHiHBB", AF_BRIDGE, 0, link, 0, 0, 0))


def _index_attribute(link: int) -> bytes:
    return _attribute(8, struct.pack("=I", link))  # NDA_IFINDEX


# -- answers


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, message) of each in what one read gave."""
    offset = 0
    while offset + 16 <= len(data):
        length, type = struct.unpack_from("=IH", data, offset)
        if length < 16:
            return
        yield type, data[offset : offset + length]
        offset += (length + 3) & ~3


def _attributes(data: bytes, start: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while start + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, start)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[start + 4 : start + length]  # without the flags for 'nested' and 'network order'
        start += (length + 3) & ~3
    return found


def _ip(data: bytes | None) -> str:
    return socket.inet_ntoa(data) if data is not None and len(data) == 4 else ""


def _colons(data: bytes | None) -> str:
    return data.hex(":") if data else ""


def read_link(data: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", data, 20)
    found = _attributes(data, 32)
    info = _attributes(found.get(18, b""), 0)
    vxlan = None
    if _text(info.get(1)) == "vxlan":
        inner = _attributes(info.get(2, b""), 0)
        vni, port = _number(inner.get(1)), int.from_bytes(inner.get(15, b""), "big")
        vxlan = (vni, _ip(inner.get(4)), port)
    return Link(
        index, _text(found.get(3)), _text(found.get(20)), _number(found.get(5)), bool(flags & UP),
        _number(found.get(4)), _colons(found.get(1)), vxlan,
    )  # fmt: skip


def _text(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode(errors="replace")


def _number(data: bytes | None) -> int:
    return int.from_bytes(data or b"", sys.byteorder)


def read_address(data: bytes) -> Address:
    prefix, index = struct.unpack_from("=xBxxI", data, 16)
    found = _attributes(data, 24)
    return Address(_ip(found.get(2) or found.get(1)), prefix, index)


def read_route(data: bytes) -> Route | None:
    """None for one that is not ours, or not of the main table."""
    prefix, table, protocol, flags = struct.unpack_from("=xBxxBBxxI", data, 16)
    if protocol != PROTOCOL or table != MAIN_TABLE:
        return None
    found = _attributes(data, 28)
    link = struct.unpack("=i", found.get(4, bytes(4)))[0]
    destination = f"{_ip(found.get(1)) or '0.0.0.0'}/{prefix}"
    return Route(destination, _ip(found.get(5)), link, _ip(found.get(7)), bool(flags & ONLINK))


def read_neighbour(data: bytes) -> Neighbour:
    index, state = struct.unpack_from("=4xiH", data, 16)
    found = _attributes(data, 28)
    return Neighbour(index, _ip(found.get(1)), _colons(found.get(2)), bool(state & PERMANENT))


def notices(data: bytes) -> Iterator[Notice]:
    """What the kernel tells the groups of `GROUPS`."""
    for type, message in split(data):
        if type in (NEWLINK, DELLINK, NEWNEIGH, DELNEIGH):
            yield Notice(type, struct.unpack_from("=i", message, 20)[0], 0)
        elif type in (NEWADDR, DELADDR):
            yield Notice(type, struct.unpack_from("=I", message, 20)[0], 0)
        elif type in (NEWROUTE, DELROUTE):
            yield Notice(type, 0, message[21])
