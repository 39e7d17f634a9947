"""rtnetlink as bytes, as far as routes to other nodes need it: links of VXLAN, addresses, routes, neighbours. Pure.

A message is a header (length, type, flags, sequence, port), a fixed part by type, and attributes (length, type, data),
each padded to four bytes; numbers in the machine's order but for ports of UDP. Layouts and numbers: linux/rtnetlink.h,
linux/if_link.h, linux/neighbour.h. Some 5 microseconds a message, where a general library takes a millisecond.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
GROUPS = (1, 3, 5, 7)  # of notices: links, neighbours (and forwarding entries), IPv4 addresses, IPv4 routes

REQUEST, ACK, ROOT, CREATE, EXCLUSIVE, REPLACE = 0x1, 0x4, 0x300, 0x400, 0x200, 0x100
PROTOCOL = 109  # marks routes as ours; below 128 is the kernel's and well-known daemons', this one is free
MAIN_TABLE, UNICAST, ANY_SCOPE = 254, 1, 255
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


class LinkFacts(NamedTuple):
    number: int
    name: str
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


def acknowledged(message: bytes) -> bytes:
    """The request so that it is answered by an error number, 0 for none."""
    flags = struct.unpack_from("=H", message, 6)[0] | ACK
    return message[:6] + struct.pack("=H", flags) + message[8:]


def _link(type: int, flags: int, index: int, *attributes: bytes, state: int = 0) -> bytes:
    return _message(type, flags, struct.pack("=BxHiII", 0, 0, index, state, state), *attributes)


def new_vxlan(name: str, vni: int, local: str, port: int, mac: str, mtu: int) -> bytes:
    data = (
        _attribute(1, struct.pack("=I", vni))  # IFLA_VXLAN_ID
        + _attribute(4, socket.inet_aton(local))  # IFLA_VXLAN_LOCAL
        + _attribute(7, b"\0")  # IFLA_VXLAN_LEARNING
        + _attribute(15, struct.pack("!H", port))  # IFLA_VXLAN_PORT
    )
    info = _attribute(18, _attribute(1, b"vxlan") + _attribute(2, data))  # IFLA_LINKINFO: kind, data
    named = _attribute(3, name.encode() + b"\0")
    return _link(NEWLINK, CREATE | EXCLUSIVE, 0, named, _attribute(4, struct.pack("=I", mtu)), _mac(1, mac), info)


def set_link(index: int, *, mtu: int = 0, mac: str = "") -> bytes:
    """Bring it up, and set what is given."""
    attributes = [_attribute(4, struct.pack("=I", mtu))] if mtu else []
    attributes += [_mac(1, mac)] if mac else []
    return _link(NEWLINK, 0, index, *attributes, state=UP)


def delete_link(index: int) -> bytes:
    return _link(DELLINK, 0, index)


def address(index: int, ip: str, *, delete: bool = False) -> bytes:
    data = socket.inet_aton(ip)
    fixed = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, index)
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


def read_link(data: bytes) -> LinkFacts:
    index, flags = struct.unpack_from("=iI", data, 20)
    found = _attributes(data, 32)
    info = _attributes(found.get(18, b""), 0)
    vxlan = None
    if info.get(1, b"").rstrip(b"\0") == b"vxlan":
        inner = _attributes(info.get(2, b""), 0)
        vni, port = int.from_bytes(inner.get(1, b""), "little"), int.from_bytes(inner.get(15, b""), "big")
        vxlan = (vni, _ip(inner.get(4)), port)
    mtu = struct.unpack("=I", found.get(4, bytes(4)))[0]
    return LinkFacts(
        index, found.get(3, b"").rstrip(b"\0").decode(), bool(flags & UP), mtu, _colons(found.get(1)), vxlan
    )


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
