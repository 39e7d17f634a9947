"""The cluster's DNS, on every node for itself: it answers at the service address of DNS, which the node holds.

So no query of a pod is translated, crosses hosts, or waits for another node, or for a master that is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.ingress import Ingress
from minik8s.api.kinds.service import Service
from minik8s.client.informer import Informer
from minik8s.net import dns_memory
from minik8s.net.dns_forward import Forwarder
from minik8s.net.dns_server import DnsServer
from minik8s.net.dns_zone import Records, Zone, host_records, ingress_hosts, service_records
from minik8s.net.services import service_key

REMEMBER_SECONDS = 5.0
OF_INGRESS = "ingress:"  # begins the owner of an Ingress's names; Services are owners by their keys


class ClusterDns:
    """A DnsServer whose zone follows the API. The caller has put `listen` on a link (`Netlink.hold_address`).

    `memory` is where the names are kept for a start while the API is away.
    """

    def __init__(
        self,
        services: Informer[Service],
        slices: Informer[EndpointSlice],
        domain: str,
        listen: tuple[str, int],
        *,
        ingresses: Informer[Ingress] | None = None,
        ranges: Sequence[str] = (),
        forwarder: Forwarder | None = None,
        memory: Path | None = None,
    ) -> None:
        self._services = services
        self._slices = slices
        self._ingresses = ingresses
        self._memory = memory
        self._changed = asyncio.Event()
        self.zone = Zone(domain, listen[0], ranges)
        self.server = DnsServer(self.zone, forwarder or Forwarder(own=[listen[0]]), listen)

    async def run(self) -> None:
        """Eternal. Until the first lists are here it knows what it knew last, and denies nothing that it does not."""
        self.server.complete = False
        if self._memory is not None:
            for owner, records in (await asyncio.to_thread(dns_memory.read, self._memory)).items():
                self.zone.replace(owner, records)
        self._slices.add_index("service", lambda piece: filter(None, [service_key(piece)]))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.server.run())
            tasks.create_task(self._follow())
            if self._memory is not None:
                tasks.create_task(self._remember(self._memory))

    async def _follow(self) -> None:
        """Take over what the API says, and from then on each change."""
        followed: list[Informer[Any]] = [self._services, self._slices]
        followed += [] if self._ingresses is None else [self._ingresses]
        for informer in followed:
            await informer.synced()
        remembered = set(self.zone.owners) - {""}
        self._services.on_change(lambda old, new: self._update({found.key for found in (old, new) if found}))
        self._slices.on_change(lambda old, new: self._update({service_key(piece) for piece in (old, new) if piece}))
        if self._ingresses is not None:
            self._ingresses.on_change(self._ingress)
        for owner in remembered:
            self._refresh(owner)
        self.server.complete = True
        self.server.changed()

    def _refresh(self, owner: str) -> None:
        """Look at what was remembered of an owner, which may be gone by now."""
        if not owner.startswith(OF_INGRESS):
            self._update({owner})
        elif self._ingresses is None or self._ingresses.by_key(owner.removeprefix(OF_INGRESS)) is None:
            self.set_hosts(owner, {})

    def set_hosts(self, owner: str, hosts: Mapping[str, Sequence[str]]) -> None:
        """Let host names (`shop.example.com`, `*.example.com`) resolve to addresses, instead of what `owner` had."""
        self._replace(owner, host_records(hosts, self.zone.domain))

    def _ingress(self, old: Ingress | None, new: Ingress | None) -> None:
        if ingress := new or old:
            self.set_hosts(OF_INGRESS + ingress.key, ingress_hosts(new) if new else {})

    def _update(self, keys: set[str]) -> None:
        for key in filter(None, keys):
            service = self._services.by_key(key)
            slices = self._slices.by_index("service", key)
            self._replace(key, service_records(service, slices, self.zone.domain) if service else {})

    def _replace(self, owner: str, records: Records) -> None:
        if self.zone.replace(owner, records):
            self.server.changed()
            self._changed.set()

    async def _remember(self, path: Path) -> None:
        """Write the names down, some time after they have changed: what is lost by a kill is minutes old at most."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(REMEMBER_SECONDS)
            self._changed.clear()
            if self.server.complete:
                content = dns_memory.encode(self.zone.owners)
                await asyncio.to_thread(dns_memory.write, path, content)
