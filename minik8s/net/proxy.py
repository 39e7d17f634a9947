"""The service proxy of a node: keeps the kernel's service table as Services and EndpointSlices say.

A change is applied at once; what comes in while one is being applied goes into the next transaction together. When
another program has changed any rules of this host, our chains are looked at at once, and within a minute the whole
table is read back and healed. The kernel counts transactions: while they are all ours, there is nothing to read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.service import Service
from minik8s.client.informer import Informer
from minik8s.log import get_logger
from minik8s.net import conntrack, nft, services
from minik8s.net.base import NetworkError
from minik8s.net.health_check import HealthCheck, HealthCheckServers
from minik8s.net.metrics import proxy_metrics
from minik8s.net.nftables import Nftables, NotThere, Table

FULL_SECONDS = 60.0
RETRY_SECONDS = 1.0
SETTLE_SECONDS = 0.02  # between looks at our chains while others change rules: their changes come in bursts
ELSEWHERE_SECONDS = 0.2  # in which all nodes' proxies have heard of a change, and answers under way are given

log = get_logger("proxy")


class ServiceProxy:
    """`own_addresses` are service addresses that this node answers itself, such as that of DNS."""

    def __init__(
        self,
        service_informer: Informer[Service],
        slice_informer: Informer[EndpointSlice],
        node_name: str,
        nftables: Nftables,
        *,
        cluster_cidr: str,
        service_cidr: str,
        own_addresses: Iterable[str] = (),
    ) -> None:
        self._services = service_informer
        self._slices = slice_informer
        self._node = node_name
        self._nft = nftables
        self._cluster_cidr = cluster_cidr
        self._fixed = nft.services_table(cluster_cidr, service_cidr)
        self._own = frozenset(own_addresses)
        self._wanted = nft.Merged()
        self._chains: frozenset[str] = frozenset()  # in the kernel
        self._rules: dict[str, bytes] = {}  # by chain, as the kernel showed them when we had made them
        self._checks: dict[str, tuple[int, HealthCheck]] = {}  # Service -> port, answer
        self._servers = HealthCheckServers()
        self._strangers = -1  # Nftables.strangers() at the last full look
        self._dirty: set[str] = set()
        self._dead: dict[str, set[str]] = {}  # Service -> endpoints that terminated and are gone
        self._stale: set[services.Flow] = set()  # that the kernel is to forget
        self._found_stale = asyncio.Event()
        self._disturbed = False
        self._wake = asyncio.Event()
        self._applied = asyncio.Event()  # what the informers know is in the kernel
        self._heard = asyncio.Event()  # set, and replaced, at each change of a slice
        self._metrics = proxy_metrics()

    async def run(self) -> None:
        """Eternal. The rules stay when it ends: services go on while the agent restarts."""
        self._slices.add_index("service", lambda piece: filter(None, [services.service_key(piece)]))
        self._services.on_change(lambda old, new: self._note(_key(old or new)))
        self._slices.on_change(self._note_slice)
        self._nft.on_disturbance(self._note_disturbance)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_up(), name="proxy changes")
                tasks.create_task(self._forget(), name="proxy connections")
        finally:
            self._servers.close()

    async def _keep_up(self) -> None:
        await self._services.synced()
        await self._slices.synced()
        self._render(self._take_dirty())
        due = await self._guarded_reconcile(time.monotonic())
        look_at = 0.0
        while True:
            await self._servers.serve(dict(self._checks.values()))
            if not self._dirty:
                self._applied.set()
            until = max(look_at, time.monotonic()) if self._disturbed else due
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    await self._wake.wait()
            self._wake.clear()
            if self._dirty:
                due = await self._sync(self._take_dirty(), due)
            if self._disturbed and time.monotonic() >= look_at:
                self._disturbed = False
                due = due if await self._is_intact() else 0.0
                look_at = time.monotonic() + SETTLE_SECONDS
            if time.monotonic() >= due:
                due = await self._guarded_reconcile(time.monotonic())

    async def withdrawn(self, pod: Pod) -> None:
        """Return when no Service leads new clients to a pod that was asked to end, here and most likely elsewhere.

        At once if none ever did. A pod that is the last of its Service goes on being asked: there is nobody else.
        """
        uid, namespace = pod.metadata.uid, pod.metadata.namespace
        known = self._slices.list(namespace)
        if not any(e.targetRef is not None and e.targetRef.uid == uid for piece in known for e in piece.endpoints):
            return
        while any(services.leads_to(piece, uid) for piece in self._slices.list(namespace)):
            await self._heard.wait()
        await self._applied.wait()
        await asyncio.sleep(ELSEWHERE_SECONDS)

    async def teardown(self) -> None:
        await self._nft.apply(nft.remove(nft.SERVICES))

    # -- what has changed

    def _note(self, key: str) -> None:
        self._dirty.add(key)
        self._applied.clear()
        self._wake.set()

    def _note_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for key in {services.service_key(piece) for piece in (old, new) if piece is not None} - {""}:
            ended = services.terminating_ips(old) - services.terminating_ips(new)
            if ended:
                self._dead.setdefault(key, set()).update(ended)
            self._note(key)
        self._heard.set()
        self._heard = asyncio.Event()

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
            await self._part_with(parts)
        except NetworkError as error:  # the table is not what we think: look at all of it, now
            self._metrics.failures.inc()
            self._strangers = -1
            log.warning(
                "the kernel refused a change of services",
                error=str(error),
                remedy="nothing, if this stays alone: all rules are compared at once; else see 'minik8s doctor'",
            )
            return 0.0
        return due

    def _render(self, keys: Iterable[str]) -> tuple[str, frozenset[str]]:
        """Take the services' present state over; answers the commands for it and the chains they make."""
        script, known = "", self._chains
        for key in sorted(keys):
            service = self._services.by_key(key)
            pieces = self._slices.by_index("service", key)
            contents = services.render(service, pieces, self._node, own=self._own) if service else nft.EMPTY
            check = services.health_check(service, pieces, self._node) if service else None
            self._checks.pop(key, None)
            if service and check:
                self._checks[key] = (service.spec.healthCheckNodePort, check)
            old, new = self._wanted.replace(key, contents)
            script += nft.diff(nft.SERVICES, old._replace(chains=known), new, self._cluster_cidr)
            known |= new.chains
        self._metrics.services.set(len(self._wanted))
        return script, known

    async def _part_with(self, before: Mapping[str, nft.Ruleset]) -> None:
        """What the kernel remembers of connections to endpoints that are gone, and of clients that were theirs."""
        pairs = [(part, self._wanted.part(key)) for key, part in before.items()]
        flows = [f for old, new in pairs for f in services.stale_udp(old, new) + services.unanswered_tcp(old, new)]
        for key in before:
            dead = self._dead.pop(key, set()) - services.endpoint_ips(self._slices.by_index("service", key))
            flows += services.orphaned_tcp(self._wanted.part(key), dead)
        self._note_stale(flows)
        if any(services.loses_sticky_endpoint(old, new) for old, new in pairs):
            await self._unstick(await self._nft.maps(nft.SERVICES, *nft.AFFINITY))

    def _note_stale(self, flows: Iterable[services.Flow]) -> None:
        self._stale.update(flows)
        if self._stale:
            self._found_stale.set()

    async def _forget(self) -> None:
        """Beside the changes: the kernel walks all of its table for each look, some 10 ms even if that is empty."""
        while True:
            await self._found_stale.wait()
            self._found_stale.clear()
            flows, self._stale = self._stale, set()
            try:
                await conntrack.forget(flows)
            except NetworkError as error:
                self._metrics.failures.inc()
                log.warning(
                    "clients of endpoints that are gone may hang until they lose patience",
                    error=str(error),
                    remedy="install conntrack's kernel module and see 'minik8s doctor'; the clients may connect again",
                )

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
            log.error(
                "cannot bring services into the kernel; trying again",
                error=str(error),
                remedy="'minik8s doctor' tells what the kernel lacks, 'nft list ruleset' who else has rules",
            )
            return now + RETRY_SECONDS
        return now + FULL_SECONDS

    async def _reconcile(self) -> None:
        """Compare the kernel with what is wanted and heal the difference, unless nobody else has written since."""
        strangers = await self._nft.strangers()
        if self._rules and strangers == self._strangers:
            return
        wanted = self._wanted.contents()
        table = await self._nft.table(nft.SERVICES)
        if table is None or not self._rules or not await self._is_intact():
            await self._make_anew(table, wanted)
        else:
            script = nft.diff(nft.SERVICES, table.contents, wanted, self._cluster_cidr)
            if script:
                self._metrics.drift.inc()
                log.warning(
                    "service addresses were changed by another program; healed",
                    commands=script[:500],
                    remedy="find what changes the table of minik8s ('nft monitor') and leave it out there",
                )
                await self._nft.apply(script)
            await self._unstick(table.affinity)
        self._strangers = strangers

    async def _make_anew(self, table: Table | None, wanted: nft.Ruleset) -> None:
        live = services.sort_affinity(table.affinity, wanted)[0] if table else {}
        if self._rules:
            self._metrics.drift.inc()
            log.warning(
                "the service rules were changed by another program; making them anew",
                remedy="find what changes the table of minik8s ('nft monitor') and leave it out there",
            )
        script = nft.replace(nft.SERVICES, self._fixed, wanted, self._cluster_cidr)
        await self._nft.apply(script + nft.elements(nft.SERVICES, "add", live))
        self._chains = wanted.chains
        self._rules = await self._nft.rules(nft.SERVICES)
        if table and (flows := services.stale_udp(table.contents, wanted)):  # while we were away
            self._note_stale(flows)

    async def _is_intact(self) -> bool:
        """Every chain is there and its rules are those first seen in it; new chains are learned."""
        rules = await self._nft.rules(nft.SERVICES)
        intact = self._chains <= rules.keys() and all(rules.get(chain) == seen for chain, seen in self._rules.items())
        self._rules = rules if intact else self._rules
        return intact


def _key(obj: Service | None) -> str:
    return obj.key if obj is not None else ""
