"""A pod network in memory, for nodes without a kernel of their own (`--runtime fake`) and for tests.

It keeps the contract of the real one, addresses included: the leases are the same code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from minik8s.net.base import HostPort, NetworkError, PodAddress
from minik8s.net.ipam import Leases


class FakePodNetwork:
    """Set `failure` to make the next calls of `attach` and `detach` fail with that text."""

    def __init__(self, pod_cidr: str = "10.244.0.0/24") -> None:
        self._leases = Leases(pod_cidr, {})
        self.wired: dict[str, int] = {}  # pod uid -> pid of the process whose namespace it is
        self.host_ports: dict[str, tuple[HostPort, ...]] = {}
        self.failure = ""

    @property
    def pod_cidr(self) -> str:
        return self._leases.cidr

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to close; pods stay."""

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def reserve(self, pod_uid: str, *, ip: str | None = None) -> str:
        self._leases = self._leases.take(pod_uid, ip)
        return self._leases.held[pod_uid]

    async def attach(self, pod_uid: str, netns_pid: int, *, ip: str | None = None) -> PodAddress:
        self._fail()
        address = await self.reserve(pod_uid, ip=ip)
        self.wired[pod_uid] = netns_pid
        return PodAddress(address, "169.254.1.1", f"fake-{pod_uid}"[:15])

    async def detach(self, pod_uid: str) -> None:
        self._fail()
        self._leases = self._leases.release(pod_uid)
        self.wired.pop(pod_uid, None)

    async def known(self) -> dict[str, str]:
        return dict(self._leases.held)

    async def set_host_ports(self, ports: Mapping[str, Sequence[HostPort]]) -> None:
        self.host_ports = {uid: tuple(mappings) for uid, mappings in ports.items()}

    async def teardown(self) -> None:
        self._leases = Leases(self.pod_cidr, {})
        self.wired.clear()
        self.host_ports.clear()

    def _fail(self) -> None:
        if self.failure:
            raise NetworkError(self.failure)
