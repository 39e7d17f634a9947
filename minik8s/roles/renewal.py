"""Certificates that outlive themselves: at two thirds of their life they are made anew, while the agent runs.

To renew is to do again what a start does, which makes only what is old. The TLS contexts over the files then read them
again: OpenSSL takes what a context holds at each handshake, so that new connections show the new certificate, and those
that are open go on as they are.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from minik8s.aio import backoff, wait_any
from minik8s.clock import Clock, system_clock
from minik8s.log import get_logger
from minik8s.roles.identity import Files, IdentityError, client_context, renewal_due, server_context

LOOK = 3600.0  # seconds between looks at the clock at most: a machine may have slept, or been told another time
SHORTEST = 0.2  # seconds between two renewals, whatever a certificate says
SPREAD = 0.03  # of the wait, by chance: nodes that joined together do not renew together
log = get_logger("certificates")


class Credentials:
    """The TLS contexts over some certificates. `renew` is idempotent and raises IdentityError; `run` is eternal."""

    def __init__(
        self, certificates: Sequence[Path], renew: Callable[[], Awaitable[object]], *, clock: Clock = system_clock
    ) -> None:
        self._certificates = certificates
        self._renew = renew
        self._clock = clock
        self._live: list[tuple[ssl.SSLContext, Files]] = []
        self._nudge = asyncio.Event()

    def server(self, pair: Files, ca_file: Path) -> ssl.SSLContext:
        return self._followed(server_context(pair, ca_file), pair)

    def client(self, pair: Files, ca_file: Path) -> ssl.SSLContext:
        return self._followed(client_context(ca_file, pair), pair)

    def _followed(self, context: ssl.SSLContext, pair: Files) -> ssl.SSLContext:
        self._live.append((context, pair))
        return context

    def nudge(self) -> None:
        """Names or addresses may have changed: look at once."""
        self._nudge.set()

    async def run(self) -> None:
        delays = backoff(1.0, 300.0)
        due = self._due()
        while True:
            await wait_any(self._nudge, timeout=min(max(due - self._clock(), SHORTEST), LOOK))
            if not self._nudge.is_set() and self._clock() < due:
                continue
            self._nudge.clear()
            try:
                await self._renew()
                self.reload()
                due = self._due()
            except (IdentityError, OSError, ValueError) as error:
                delay = next(delays)
                log.warning(
                    "certificates not renewed",
                    error=str(error),
                    retry_seconds=round(delay),
                    remedy="see that the master answers and clocks agree; once it has expired, join with a new token",
                )
                due = self._clock() + delay
            else:
                delays = backoff(1.0, 300.0)
                log.debug("certificates looked at", renewal_in_seconds=round(due - self._clock()))

    def reload(self) -> None:
        for context, pair in self._live:
            context.load_cert_chain(*pair)

    def _due(self) -> float:
        """When the first of the certificates is to be renewed, and a little later. ValueError: one is broken."""
        now = self._clock()
        first = min(renewal_due(file.read_bytes()) for file in self._certificates)
        return first + max(first - now, 0.0) * random.random() * SPREAD
