"""What the kernel remembers of connections through service addresses, and how to make it forget some of them.

A translated connection keeps its endpoint for as long as the kernel remembers it. UDP has no end that would be noticed:
a client that keeps its source port would go on to a pod that is gone. A TCP client of a pod that vanished with all its
network would hang until it loses patience; forgotten, its next packet reaches another endpoint, which resets it. An
attempt to connect that nobody answered is remembered for two minutes, and takes along who comes from the same port.

One dump of the IPv4 table in the kernel's own form, 1 µs an entry, in a thread: the table is bounded by
nf_conntrack_max, hence so is the work.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator

from minik8s.net.base import NetworkError
from minik8s.net.services import Flow

CT_NEW, CT_GET, CT_DELETE = 1 << 8, 1 << 8 | 1, 1 << 8 | 2  # of NFNL_SUBSYS_CTNETLINK
NETLINK_NETFILTER, NLMSG_ERROR, NLMSG_DONE = 12, 2, 3
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
HEADERS = 20  # nlmsghdr and nfgenmsg
TUPLE = 52  # CTA_TUPLE_ORIG of TCP or UDP over IPv4; CTA_TUPLE_REPLY follows it, alike
_FIELDS = struct.Struct("=20x4s8xB15x2s14x4s")  # from HEADERS on: original destination, protocol, its port, who replies
_HEADER = struct.Struct("=IHHII")
CTA_STATUS, SEEN_REPLY = 3, 1 << 1
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


async def forget(flows: Iterable[Flow]) -> int:
    """Drop the kernel's memory of these; answers of how many. Raises NetworkError."""
    # Made here, not in the thread: it belongs to the network namespace of whoever makes it.
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as sock:
        sock.settimeout(10)
        work = asyncio.get_running_loop().run_in_executor(None, _forget, sock, matcher(flows))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
        except OSError as error:
            raise NetworkError(f"the kernel's connections cannot be read: {error.strerror or error}") from None


def matcher(flows: Iterable[Flow]) -> Callable[[bytes, int, int], bool]:
    """Whether the entry between two offsets (from its tuples on) in a dump belongs to one of the flows."""
    wanted: dict[tuple[int, bytes, bytes], dict[bytes, bool]] = {}  # endpoint -> whether only if it never answered
    for flow in flows:
        address = socket.inet_aton(flow.address) if flow.address else b""
        endpoint = socket.inet_aton(flow.endpoint) if flow.endpoint else b""
        door = wanted.setdefault((PROTOCOLS[flow.protocol], address, struct.pack("!H", flow.port)), {})
        door[endpoint] = flow.unanswered and door.get(endpoint, True)

    def matches(answer: bytes, at: int, end: int) -> bool:
        destination, protocol, port, replier = _FIELDS.unpack_from(answer, at)
        for address in (destination, b""):
            endpoints = wanted.get((protocol, address, port), {})
            if replier in endpoints:
                return not endpoints[replier] or not _answered(answer, at + 2 * TUPLE, end)
            if b"" in endpoints and (replier == destination or address):
                return True
        return False

    return matches


def _answered(answer: bytes, at: int, end: int) -> bool:
    """Whether anything has come back, by the attributes that follow the tuples."""
    while at < end:
        length, kind = struct.unpack_from("=HH", answer, at)
        if kind == CTA_STATUS:
            status: int = struct.unpack_from("!I", answer, at + 4)[0]
            return bool(status & SEEN_REPLY)
        at += (length + 3) & ~3
    return True


def _forget(sock: socket.socket, matches: Callable[[bytes, int, int], bool]) -> int:
    found = list(_dump(sock, matches))
    for original in found:
        body = struct.pack("=BBH", socket.AF_INET, 0, 0) + original
        sock.send(_HEADER.pack(16 + len(body), CT_DELETE, REQUEST | ACK, 0, 0) + body)
        sock.recv(4096)  # an error only says that it has ended by itself in between
    return len(found)


def _dump(sock: socket.socket, matches: Callable[[bytes, int, int], bool]) -> Iterator[bytes]:
    sock.send(_HEADER.pack(HEADERS, CT_GET, REQUEST | DUMP, 0, 0) + struct.pack("=BBH", socket.AF_INET, 0, 0))
    while True:
        answer, at = sock.recv(1 << 18), 0
        while at < len(answer):
            length, kind = struct.unpack_from("=IH", answer, at)
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", answer, at + 16)[0]
                raise OSError(code, os.strerror(code))
            tuples, end = at + HEADERS, at + length
            # Other protocols have tuples of another length, and nothing to do with services.
            fits = kind == CT_NEW and length > HEADERS + 2 * TUPLE and answer[tuples] == TUPLE
            if fits and matches(answer, tuples, end):
                yield answer[tuples : tuples + TUPLE]
            at += (length + 3) & ~3
