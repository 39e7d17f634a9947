"""The pod network of one node on the real kernel: leases, links, the way out, ports of the node.

Pods are wired by routed veth pairs (see netlink.py); there is no bridge. The kernel's links are the truth about who
is wired, the leases file remembers addresses of pods whose sandbox is being restarted.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from minik8s.aio import wait_any
from minik8s.log import get_logger
from minik8s.net import docker_forward, ipam, nft
from minik8s.net.base import HostPort, NetworkError, PodAddress
from minik8s.net.netlink import GATEWAY, LINK_PREFIX, Netlink, link_name
from minik8s.net.nftables import Nftables

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
CHECK_SECONDS = 60.0
SETTLE_SECONDS = 0.2  # others' changes come in bursts (dockerd makes dozens): look once at the end

log = get_logger("network")


class RoutedPodNetwork:
    """`PodNetwork` by netlink and nftables. `folder` (DATA/net) keeps the leases.

    `netlink` and `nftables` are opened by the caller, who shares them with the service proxy and DNS.
    """

    def __init__(
        self,
        pod_cidr: str,
        folder: Path,
        netlink: Netlink,
        nftables: Nftables,
        *,
        cluster_cidr: str,
        service_cidr: str,
        node_ip: str = "",
        overhead: int = 0,
    ) -> None:
        """`overhead`: bytes that the way to other nodes puts around a packet, which pods' links must leave free."""
        self._folder = folder
        self._netlink = netlink
        self._nft = nftables
        self._cluster_cidr = cluster_cidr
        self._table = nft.pods_table(pod_cidr, cluster_cidr, service_cidr, f"{LINK_PREFIX}*")
        self._leases = ipam.Leases(pod_cidr, {})
        self._host_ports = nft.EMPTY
        self._rules: dict[str, bytes] = {}  # as the kernel showed them when we had made them
        self._ip_forward_before: str | None = None
        self._mtu = 1500
        self._node_ip = node_ip
        self._overhead = overhead
        self._disturbed = asyncio.Event()
        self._preparing = asyncio.Lock()

    @property
    def pod_cidr(self) -> str:
        return self._leases.cidr

    @property
    def mtu(self) -> int:
        """Of pods' links."""
        return self._mtu

    async def __aenter__(self) -> Self:
        self._load()
        self._leases = self._leases.seen(await self._netlink.pods())
        self._mtu = await self._netlink.uplink_mtu(self._node_ip) - self._overhead
        await self._prepare()
        self._nft.on_disturbance(self._disturbed.set)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Pods stay wired, rules stay loaded."""

    async def run(self) -> None:
        while True:
            await wait_any(self._disturbed, timeout=CHECK_SECONDS)
            await asyncio.sleep(SETTLE_SECONDS)
            self._disturbed.clear()
            try:
                await self._prepare()
            except NetworkError as error:  # tried again in a minute; pods that are wired go on
                log.error(
                    "cannot prepare the host for pods",
                    error=str(error),
                    remedy="'minik8s doctor' tells what this host lacks; it is tried again in a minute",
                )

    async def reserve(self, pod_uid: str, *, ip: str | None = None) -> str:
        before = self._leases
        self._leases = before.take(pod_uid, ip)
        if self._leases != before:
            self._save()
        return self._leases.held[pod_uid]

    async def attach(self, pod_uid: str, netns_pid: int, *, ip: str | None = None) -> PodAddress:
        before = self._leases
        address = await self.reserve(pod_uid, ip=ip)
        try:
            interface = await self._netlink.wire(pod_uid, netns_pid, address, self._mtu)
        except NetworkError:
            if pod_uid not in before.held:
                self._leases = self._leases.release(pod_uid)
                self._save()
            raise
        return PodAddress(address, GATEWAY, interface)

    async def detach(self, pod_uid: str) -> None:
        await self._netlink.remove(link_name(pod_uid))
        if pod_uid in self._leases.held:  # only now: an address is free when nobody answers to it any more
            self._leases = self._leases.release(pod_uid)
            self._save()

    async def known(self) -> dict[str, str]:
        before = self._leases
        wired = await self._netlink.pods()
        # A pod may have come or gone since the kernel was asked: then its old answer must not undo that.
        if self._leases is before:
            self._leases = before.seen(wired)
        return dict(self._leases.held)

    async def set_host_ports(self, ports: Mapping[str, Sequence[HostPort]]) -> None:
        wanted = host_port_elements(ports)
        change = nft.diff(nft.PODS, self._host_ports, wanted, self._cluster_cidr)
        self._host_ports = wanted
        if not change:
            return
        try:
            await self._nft.apply(change)
        except NetworkError:  # the table is not as it was: make all of it anew
            self._rules = {}
            await self._prepare()

    async def teardown(self) -> None:
        self._load()
        await docker_forward.remove()
        await self._nft.apply(nft.remove(nft.PODS) + nft.remove(nft.SERVICES))
        await asyncio.gather(*(self._netlink.remove(link.name) for link in await self._netlink.links()))
        self._restore_forwarding()
        self._leases, self._host_ports, self._rules = ipam.Leases(self.pod_cidr, {}), nft.EMPTY, {}
        self._file.unlink(missing_ok=True)

    # -- the host's part

    async def _prepare(self) -> None:
        async with self._preparing:
            self._enable_forwarding()
            await docker_forward.ensure(f"{LINK_PREFIX}+")
            if not await self._is_intact():
                await self._nft.apply(nft.replace(nft.PODS, self._table, self._host_ports, self._cluster_cidr))
                self._rules = await self._nft.rules(nft.PODS)

    async def _is_intact(self) -> bool:
        if not self._rules:  # not made by this process yet
            return False
        if await self._nft.rules(nft.PODS) == self._rules:
            table = await self._nft.table(nft.PODS)
            if table and not nft.diff(nft.PODS, table.contents, self._host_ports, self._cluster_cidr):
                return True
        log.warning(
            "the pod network's rules were changed by another program; making them anew",
            remedy="find what changes the table of minik8s ('nft monitor') and leave it out there",
        )
        return False

    def _enable_forwarding(self) -> None:
        if (before := IP_FORWARD.read_text().strip()) != "1":
            self._ip_forward_before = before
            self._save()
            IP_FORWARD.write_text("1")

    def _restore_forwarding(self) -> None:
        if self._ip_forward_before is not None:
            IP_FORWARD.write_text(self._ip_forward_before)
            self._ip_forward_before = None

    # -- the leases file

    @property
    def _file(self) -> Path:
        return self._folder / "leases.json"

    def _load(self) -> None:
        try:
            data = json.loads(self._file.read_text())
            self._leases = ipam.from_dict(self.pod_cidr, data["leases"])
            self._ip_forward_before = data.get("ipForwardBefore")
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            # Written without fsync, as it describes links that a power cut takes away too.
            log.warning(
                "leases file is damaged and ignored; wired pods keep their addresses",
                error=str(error),
                remedy="nothing: it is written anew",
            )

    def _save(self) -> None:
        """Some 0.1 ms; before the wiring, so that no crash in between gives an address twice."""
        data: dict[str, Any] = {"leases": self._leases.to_dict(), "ipForwardBefore": self._ip_forward_before}
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".tmp")
        draft.write_text(json.dumps(data))
        os.replace(draft, self._file)


def host_port_elements(ports: Mapping[str, Sequence[HostPort]]) -> nft.Ruleset:
    """Contents of the pods' table. A port that two pods claim belongs to the first by uid."""
    exact: dict[str, str] = {}
    everywhere: dict[str, str] = {}
    hairpin: dict[str, str] = {}
    for pod_uid in sorted(ports):
        for port in ports[pod_uid]:
            key = f"{port.protocol.lower()} . {port.host_port}"
            target = f"{port.pod_ip} . {port.container_port}"
            if port.host_ip in ("", "0.0.0.0"):
                everywhere.setdefault(key, target)
            else:
                exact.setdefault(f"{port.host_ip} . {key}", target)
            hairpin[f"{port.pod_ip} . {port.pod_ip}"] = ""
    return nft.Ruleset(frozenset(), {"host_ports": exact, "host_ports_any": everywhere, "hairpin": hairpin})
