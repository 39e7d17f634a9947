"""Which address a host has is the kernel's to say, and it says when that changes: rtnetlink's multicast groups."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator

from minik8s.net.base import NetworkError

RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE = 0x10, 0x40  # linux/rtnetlink.h


async def address_changes() -> AsyncIterator[None]:
    """Something about this host's addresses or routes has changed: once at each message of the kernel, for ever.

    Raises NetworkError.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE))
        sock.setblocking(False)
        while True:
            try:
                await loop.sock_recv(sock, 65536)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # messages were lost: there was at least one
                    raise NetworkError(f"changes of addresses cannot be followed: {error.strerror}") from None
            yield
