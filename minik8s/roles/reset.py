"""The way back: everything that minik8s made on this machine is found by its marks and removed, and nothing else.

Marks are the label of containers, the prefix of links, the names of tables and chains, and the data folder. What is
found is listed first (`plan`), so that a dry run tells exactly what a real one does.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from minik8s.config import Config
from minik8s.kubelet.devices import sockets
from minik8s.net import nft, peers
from minik8s.net.base import NetworkError
from minik8s.net.host_resolver import HostResolver
from minik8s.net.netlink import Netlink
from minik8s.net.nftables import Nftables
from minik8s.net.routed import RoutedPodNetwork
from minik8s.roles.kept_socket import SOCKET, end_holder
from minik8s.roles.lock import LOCK_FILE
from minik8s.roles.process import UNIT_FILE, has_unit, remove_unit
from minik8s.runtime.base import RuntimeFailure
from minik8s.runtime.docker import DockerRuntime

NODE_UID = ("node", "uid")
# One of these is in every folder that an agent, or `init` or `join`, has used.
MARKS = (LOCK_FILE, "pki/ca.key", "node/uid")
MOUNT_ESCAPE = re.compile(r"\\([0-7]{3})")  # of spaces and the like in /proc/self/mounts


class NotOurs(Exception):
    """A folder that is to be removed bears no mark of minik8s."""


@dataclass
class Found:
    """What there is to remove."""

    containers: list[str] = field(default_factory=list)  # names
    links: list[str] = field(default_factory=list)
    routes: list[str] = field(default_factory=list)  # to other nodes' pods
    tables: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    sockets: list[Path] = field(default_factory=list)  # for device plugins, with nobody behind them
    resolver: list[Path] = field(default_factory=list)  # files by which this host resolves the cluster's names
    unit: bool = False
    notes: list[str] = field(default_factory=list)  # what could not be looked at, and why

    def lines(self) -> list[str]:
        """One line for each thing."""
        listed = [("container", name) for name in self.containers]
        listed += [("link", name) for name in self.links] + [("route", name) for name in self.routes]
        listed += [("nft table", name) for name in self.tables]
        listed += [("host DNS in", str(path)) for path in self.resolver]
        listed += [("socket", str(path)) for path in self.sockets]
        listed += [("mount", name) for name in self.mounts] + [("folder", str(path)) for path in self.folders]
        listed += [("systemd unit", str(UNIT_FILE))] * self.unit
        return [f"{what} {name}" for what, name in listed]


class Reset:
    """`async with Reset(config) as reset: found = await reset.plan(); await reset.perform(found)`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stack = AsyncExitStack()
        self._runtime: DockerRuntime | None = None
        self._network: RoutedPodNetwork | None = None
        self._netlink = Netlink()
        self._resolver = HostResolver(config.path("net"), config.dns_ip, ())

    async def __aenter__(self) -> Reset:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def plan(self) -> Found:
        """What there is. Raises NotOurs for a data folder that no agent has used."""
        found = Found(unit=has_unit(self._config.data_dir))
        if not self._config.data_dir.exists():
            # Links and tables do not say whose they are: those here may serve an agent of another data folder.
            found.notes.append(f"there is no data folder {self._config.data_dir}; what others use is left alone")
            return found
        check_ours(self._config.data_dir)
        found.folders = [self._config.data_dir]
        await self._plan_containers(found)
        await self._plan_network(found)
        found.resolver = self._resolver.taken()
        found.sockets = sockets.left(self._config.device_plugins)
        data = str(self._config.data_dir)
        found.mounts = [mount for mount in _mounts() if mount.startswith(data + "/")]
        return found

    async def _plan_containers(self, found: Found) -> None:
        uid = self._config.path(*NODE_UID)
        if self._config.runtime != "docker" or not uid.exists():
            return
        runtime = DockerRuntime(uid.read_text().strip(), docker_host=self._config.docker_host)
        try:
            self._runtime = await self._stack.enter_async_context(runtime)
            found.containers = await self._runtime.names()
        except RuntimeFailure as error:
            found.notes.append(f"the Docker Engine does not answer, its containers stay: {error}")

    async def _plan_network(self, found: Found) -> None:
        if self._config.runtime != "docker" or os.geteuid() != 0:
            return
        try:
            netlink = await self._stack.enter_async_context(self._netlink)
            nftables = await self._stack.enter_async_context(Nftables())
            found.links = [link.name for link in await netlink.links()]
            found.routes = [route.destination for route in await peers.routes_left(netlink)]
            found.tables = [name for name in (nft.PODS, nft.SERVICES) if await nftables.table(name) is not None]
        except NetworkError as error:
            found.notes.append(f"the network cannot be looked at: {error}")
            return
        # The ranges play no part in taking things away.
        self._network = RoutedPodNetwork(
            "10.244.0.0/24",
            self._config.path("net"),
            netlink,
            nftables,
            cluster_cidr=self._config.pod_cidr,
            service_cidr=self._config.service_cidr,
        )

    async def perform(self, found: Found) -> None:
        """Remove what was found. Raises RuntimeFailure, NetworkError, OSError for what would not go."""
        if found.resolver:
            await asyncio.to_thread(self._resolver.give_back)
        if self._runtime is not None:
            await self._runtime.remove_all()
        if self._network is not None:
            await self._network.teardown()
            await peers.withdraw(self._netlink)
        await asyncio.to_thread(sockets.tidy, self._config.device_plugins)
        end_holder(self._config.path(SOCKET))
        await asyncio.to_thread(_remove_files, found)


def _remove_files(found: Found) -> None:
    for mount in sorted(found.mounts, key=len, reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=True)
    if found.unit:
        remove_unit()
    for folder in found.folders:
        for child in folder.iterdir():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()
        with suppress(OSError):  # a mount point stays, empty
            folder.rmdir()


def check_ours(folder: Path) -> None:
    """A slip in --data-dir must not cost anybody their files. Raises NotOurs."""
    used = any((folder / mark).exists() for mark in MARKS)
    if not used and any(folder.iterdir()):
        raise NotOurs(f"{folder} is not a data folder of minik8s: none of {', '.join(MARKS)} is there")
    if folder in (Path("/"), Path.home()):
        raise NotOurs(f"{folder} holds more than minik8s' data: remove what is minik8s' in it by hand")


def _mounts() -> list[str]:
    """Mount points of this namespace; octal escapes of /proc/self/mounts undone."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [MOUNT_ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), line.split()[1]) for line in lines]
