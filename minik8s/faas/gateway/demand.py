"""How much is wanted of each function: told to the autoscaler at once when a call begins to wait, and every second
while anything goes on; nothing while nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from minik8s.aio import wait_any
from minik8s.api.errors import StatusError
from minik8s.faas.gateway.fleet import Load
from minik8s.log import get_logger

PERIOD: Final = 1.0  # seconds
AT_LEAST: Final = 0.02  # seconds between two reports, however many calls begin to wait
AGAIN: Final = 0.2  # seconds after which a report that was not taken is sent anew

Json = dict[str, Any]
log = get_logger("gateway")


class Demand:
    """`loads` are all there are, by (namespace/name, shape); `send` posts what they want."""

    def __init__(
        self, node: str, loads: Mapping[tuple[str, str], Load], send: Callable[[Json], Awaitable[object]]
    ) -> None:
        self._node = node
        self._loads = loads
        self._send = send
        self._active = asyncio.Event()
        self._urgent = asyncio.Event()
        self._told: set[tuple[str, str]] = set()  # whom the last report said to be busy

    def woken(self) -> None:
        """A function that was idle is called."""
        self._active.set()

    def wanted(self) -> None:
        """A call begins to wait."""
        self._active.set()
        self._urgent.set()

    async def run(self) -> None:
        while True:
            await self._active.wait()
            await wait_any(self._urgent, timeout=PERIOD)
            self._urgent.clear()
            report, busy = self._report()
            if not report:
                self._active.clear()
                if any(load.busy for load in self._loads.values()):  # since we looked
                    self._active.set()
                continue
            try:
                await self._send({"gateway": self._node, "functions": report})
                self._told = busy
                await asyncio.sleep(AT_LEAST)
            except StatusError as error:
                log.warning("the autoscaler was not told of calls", error=str(error))
                await asyncio.sleep(AGAIN)
                self._urgent.set()

    def _report(self) -> tuple[Json, set[tuple[str, str]]]:
        """By function, an entry for each shape; and which of them are not at rest."""
        report: Json = {}
        busy: set[tuple[str, str]] = set()
        for key, load in self._loads.items():
            usage = load.usage()
            if load.busy or usage.requests or usage.concurrency:
                busy.add(key)
            elif key not in self._told:
                continue
            function, shape = key
            report.setdefault(function, []).append(
                {
                    "shape": shape, "concurrency": round(usage.concurrency, 4), "waiting": usage.waiting,
                    "requests": usage.requests,
                }
            )  # fmt: skip
        return report, busy
