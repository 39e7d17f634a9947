"""The address of this machine, while it runs: leases of addresses end, cables are moved to another interface."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from minik8s.config import Config
from minik8s.net.addresses import address_changes

SETTLE = 0.3  # seconds: a change of address is many messages, and for a moment there is none


async def follow_address(config: Config, known: str, changed: Callable[[str], Awaitable[None]]) -> None:
    """Call `changed` with each new address from now on, for ever. `known` is the one that has been announced.

    An address that was set by --node-ip is followed by nobody. A machine without any stays known by its last one.
    """
    if config.node_ip:
        await asyncio.Event().wait()
    address = known
    async for _ in address_changes():
        await asyncio.sleep(SETTLE)
        now = await asyncio.to_thread(lambda: config.ip)  # the master's name may have to be looked up
        if now != address and not now.startswith("127."):
            address = now
            await changed(now)
