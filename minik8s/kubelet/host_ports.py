"""Ports of the node that lead into pods: those that pods name, and free ones for pods that ask for any.

A pod with the annotation `minik8s.io/random-host-port: "true"` gets a free host port for each containerPort without
one; which, it finds in its annotation `minik8s.io/host-ports` as JSON (`{"80/TCP": 20017}`). The annotation is the
only record, so the ports stay the same through restarts of pod and agent.
"""

from __future__ import annotations

import json
import socket
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing

from minik8s.api.kinds.pod import Pod
from minik8s.net.base import HostPort, PodNetwork

RANDOM = "minik8s.io/random-host-port"
CHOSEN = "minik8s.io/host-ports"
# Below the usual range of outgoing connections (32768 and up) and of NodePorts (30000-32767).
FIRST, LAST = 20000, 29999


class NoFreePort(Exception):
    """Every port of the range is in use."""


def pod_host_ports(pod: Pod, ip: str) -> tuple[HostPort, ...]:
    """All mappings of a pod, given and chosen. Pure."""
    if pod.spec.hostNetwork:
        return ()
    chosen = chosen_ports(pod)
    found = []
    for container in (*pod.spec.initContainers, *pod.spec.containers):
        for port in container.ports:
            host = port.hostPort or chosen.get(f"{port.containerPort}/{port.protocol}", 0)
            if host:
                found.append(HostPort(port.protocol, port.hostIP, host, ip, port.containerPort))
    return tuple(found)


def chosen_ports(pod: Pod) -> dict[str, int]:
    try:
        document = json.loads(pod.metadata.annotations.get(CHOSEN, "{}"))
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    return {str(key): port for key, port in document.items() if isinstance(port, int) and 0 < port < 65536}


def missing_ports(pod: Pod) -> list[str]:
    """`port/protocol` of what still needs a free host port. Pure."""
    if pod.metadata.annotations.get(RANDOM) != "true" or pod.spec.hostNetwork:
        return []
    chosen = chosen_ports(pod)
    every = [f"{p.containerPort}/{p.protocol}" for c in pod.spec.containers for p in c.ports if not p.hostPort]
    return [key for key in dict.fromkeys(every) if key not in chosen]


def choose_ports(uid: str, keys: Iterable[str], is_free: Callable[[str, int], bool]) -> dict[str, int]:
    """A free port for each key; begins at a place drawn from the uid, so that pods seldom meet. NoFreePort."""
    size = LAST - FIRST + 1
    chosen: dict[str, int] = {}
    for key in keys:
        begin = zlib.crc32(f"{uid}/{key}".encode()) % size
        protocol = key.partition("/")[2]
        candidates = (FIRST + (begin + step) % size for step in range(size))
        port = next((p for p in candidates if p not in chosen.values() and is_free(protocol, p)), None)
        if port is None:
            raise NoFreePort(f"no free host port between {FIRST} and {LAST}")
        chosen[key] = port
    return chosen


class HostPorts:
    """All mappings of this node; each change is handed to the network as the whole."""

    def __init__(self, network: PodNetwork) -> None:
        self._network = network
        self._ports: dict[str, tuple[HostPort, ...]] = {}

    async def load(self, ports: Mapping[str, tuple[HostPort, ...]]) -> None:
        """What held before this agent started, so that the first change does not cut off the others."""
        self._ports = {uid: mapped for uid, mapped in ports.items() if mapped} | self._ports
        if self._ports:
            await self._network.set_host_ports(self._ports)

    async def set(self, uid: str, ports: tuple[HostPort, ...]) -> None:
        if self._ports.get(uid, ()) == ports:
            return
        if ports:
            self._ports[uid] = ports
        else:
            del self._ports[uid]
        await self._network.set_host_ports(self._ports)

    def is_free(self, protocol: str, port: int) -> bool:
        """Whether no pod of ours has it and nobody on the host listens on it."""
        if any(p.host_port == port and p.protocol == protocol for mapped in self._ports.values() for p in mapped):
            return False
        kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
        with closing(socket.socket(socket.AF_INET, kind)) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
        return True
