"""The service proxy of a node: keeps the kernel's service table as Services and EndpointSlices say.

A change is applied at once; what comes in while one is being applied goes into the next transaction together. Every
minute, and at once when another program has touched the rules, the table is read back and healed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.service import Service
from minik8s.client.informer import Informer
from minik8s.log import get_logger
from minik8s.net import nft, services
from minik8s.net.base import NetworkError
from minik8s.net.metrics import proxy_metrics
from minik8s.net.netlink import Netlink
from minik8s.net.nftables import Nftables, NotThere

FULL_SECONDS = 60.0
RETRY_SECONDS = 1.0
SETTLE_SECONDS = 0.02

log = get_logger("proxy")


class ServiceProxy:
    """`own_addresses` are service addresses that this node answers itself, such as that of DNS."""

    def __init__(
        self,
        service_informer: Informer[Service],
        slice_informer: Informer[EndpointSlice],
        node_name: str,
        nftables: Nftables,
        netlink: Netlink,
        *,
        cluster_cidr: str,
        service_cidr: str,
        own_addresses: Iterable[str] = (),
    ) -> None:
        self._services = service_informer
        self._slices = slice_informer
        self._node = node_name
        self._nft = nftables
        self._netlink = netlink
        self._cluster_cidr = cluster_cidr
        self._fixed = nft.services_table(cluster_cidr, service_cidr)
        self._own = frozenset(own_addresses)
        self._wanted = nft.Merged()
        self._chains: frozenset[str] = frozenset()  # in the kernel
        self._rules: dict[str, bytes] = {}  # by chain, as the kernel showed them when we had made them
        self._dirty: set[str] = set()
        self._disturbed = False
        self._wake = asyncio.Event()
        self._metrics = proxy_metrics()

    async def run(self) -> None:
        """Eternal. The rules stay when it ends: services go on while the agent restarts."""
        self._slices.add_index("service", lambda piece: filter(None, [services.service_key(piece)]))
        self._services.on_change(lambda old, new: self._note(_key(old or new)))
        self._slices.on_change(self._note_slice)
        self._nft.on_disturbance(self._note_disturbance)
        await self._services.synced()
        await self._slices.synced()
        self._render(self._take_dirty())
        due = await self._guarded_reconcile(time.monotonic())
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await self._wake.wait()
            self._wake.clear()
            if self._dirty:
                due = await self._sync(self._take_dirty(), due)
            if self._disturbed:
                await asyncio.sleep(SETTLE_SECONDS)  # others' changes come in bursts
                self._disturbed = False
                due = due if await self._is_intact() else 0.0
            if time.monotonic() >= due:
                due = await self._guarded_reconcile(time.monotonic())

    async def teardown(self) -> None:
        await self._nft.apply(nft.remove(nft.SERVICES))

    # -- what has changed

    def _note(self, key: str) -> None:
        self._dirty.add(key)
        self._wake.set()

    def _note_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for key in {services.service_key(piece) for piece in (old, new) if piece is not None} - {""}:
            self._note(key)

    def _note_disturbance(self) -> None:
        self._disturbed = True
        self._wake.set()

    def _take_dirty(self) -> set[str]:
        dirty, self._dirty = self._dirty, set()
        return dirty

    # -- one change

    async def _sync(self, keys: set[str], due: float) -> float:
        """Bring the services `keys` into the kernel; answers when the next full look is due."""
        started = time.perf_counter()
        parts = {key: self._wanted.part(key) for key in keys}
        script, chains = self._render(keys)
        try:
            if script:
                await self._nft.apply(script)
                self._chains |= chains
            self._metrics.sync_seconds.observe(time.perf_counter() - started)
            await self._forget(parts)
        except NetworkError as error:  # the table is not what we think: look at all of it, now
            self._metrics.failures.inc()
            log.warning("the kernel refused a change of services", error=str(error))
            return 0.0
        return due

    def _render(self, keys: Iterable[str]) -> tuple[str, frozenset[str]]:
        """Take the services' present state over; answers the commands for it and the chains they make."""
        script, known = "", self._chains
        for key in sorted(keys):
            service = self._services.by_key(key)
            pieces = self._slices.by_index("service", key)
            contents = services.render(service, pieces, self._node, own=self._own) if service else nft.EMPTY
            old, new = self._wanted.replace(key, contents)
            script += nft.diff(nft.SERVICES, old._replace(chains=known), new, self._cluster_cidr)
            known |= new.chains
        self._metrics.services.set(len(self._wanted))
        return script, known

    async def _forget(self, before: Mapping[str, nft.Ruleset]) -> None:
        """What the kernel remembers of connections to endpoints that are gone."""
        pairs = [(part, self._wanted.part(key)) for key, part in before.items()]
        if flows := [flow for old, new in pairs for flow in services.stale_udp(old, new)]:
            await self._netlink.forget_udp(flows)
        lost = any(services.loses_sticky_endpoint(old, new) for old, new in pairs)
        if lost and (table := await self._nft.table(nft.SERVICES)):
            await self._unstick(table.affinity)

    async def _unstick(self, affinity: Mapping[str, Mapping[str, str]]) -> None:
        _, stale = services.sort_affinity(affinity, self._wanted.contents())
        for name, entries in stale.items():
            for key in entries:
                with suppress(NotThere):  # expired in between
                    await self._nft.apply(f"delete element inet {nft.SERVICES} {name} {{ {key} }}\n")

    # -- the full look

    async def _guarded_reconcile(self, now: float) -> float:
        try:
            await self._reconcile()
        except NetworkError as error:
            self._metrics.failures.inc()
            log.error("cannot bring services into the kernel; trying again", error=str(error))
            return now + RETRY_SECONDS
        return now + FULL_SECONDS

    async def _reconcile(self) -> None:
        """Compare the kernel with what is wanted and heal the difference."""
        wanted = self._wanted.contents()
        table = await self._nft.table(nft.SERVICES)
        if table is None or not self._rules or not await self._is_intact():
            live = services.sort_affinity(table.affinity, wanted)[0] if table else {}
            if self._rules:
                self._metrics.drift.inc()
                log.warning("the service rules were changed by another program; making them anew")
            script = nft.replace(nft.SERVICES, self._fixed, wanted, self._cluster_cidr)
            await self._nft.apply(script + nft.elements(nft.SERVICES, "add", live))
            self._chains = wanted.chains
            self._rules = await self._nft.rules(nft.SERVICES)
            return
        script = nft.diff(nft.SERVICES, table.contents, wanted, self._cluster_cidr)
        if script:
            self._metrics.drift.inc()
            log.warning("service addresses were changed by another program; healed", commands=script[:500])
            await self._nft.apply(script)
        await self._unstick(table.affinity)

    async def _is_intact(self) -> bool:
        """Every chain is there and its rules are those first seen in it; new chains are learned."""
        rules = await self._nft.rules(nft.SERVICES)
        intact = self._chains <= rules.keys() and all(rules.get(chain) == seen for chain, seen in self._rules.items())
        self._rules = rules if intact else self._rules
        return intact


def _key(obj: Service | None) -> str:
    return obj.key if obj is not None else ""
