"""The pod network as the kubelet sees it: a pod's network namespace goes in, a wired address comes out.

Two implementations keep one contract (tests/net/test_contract.py): `RoutedPodNetwork` on the real kernel and
`FakePodNetwork` in memory. What the kernel holds is the truth: whoever opens the network after a crash or a
restart finds the pods that are wired, with their addresses, and touches none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from minik8s.api.errors import InternalError


class NetworkError(InternalError):
    """The node's network could not be brought to the wanted state; the text says what failed and the remedy."""


class AddressesExhausted(NetworkError):
    """Every address of the node's pod range is in use."""


class PodAddress(NamedTuple):
    """Where a pod is reached: its address, its gateway (link-local), and the host's end of its link."""

    ip: str
    gateway: str
    interface: str


class HostPort(NamedTuple):
    """One port of the node that leads into a pod: `hostPort` of a container.

    `protocol` is "TCP" or "UDP" as in the API; `host_ip` is "" or "0.0.0.0" for every address of the node.
    """

    protocol: str
    host_ip: str
    host_port: int
    pod_ip: str
    container_port: int


class PodNetwork(Protocol):
    """Wires pods of one node. `async with` prepares the host and leaves the pods wired at exit."""

    @property
    def pod_cidr(self) -> str:
        """This node's range, such as 10.244.0.0/24."""
        ...

    async def __aenter__(self) -> Self:
        """Make the host ready (forwarding, tables, Docker's FORWARD policy); idempotent."""
        ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close sockets; pods stay wired and reachable."""
        ...

    async def run(self) -> None:
        """Keep the host's part as it was made, for ever: heals what others flush. Ends by cancellation."""
        ...

    async def reserve(self, pod_uid: str, *, ip: str | None = None) -> str:
        """The address that `attach` will give the pod, held from now until `detach`; errors as there. Idempotent."""
        ...

    async def attach(self, pod_uid: str, netns_pid: int, *, ip: str | None = None) -> PodAddress:
        """Wire the network namespace of process `netns_pid` as the pod `pod_uid`; idempotent.

        A pod keeps its address until `detach`, so a restarted sandbox is wired with the same one. `ip` asks for a
        certain address (the one in the pod's status after the lease was lost); one that is outside the node's range,
        which was another when the pod got it, is no wish: no other host would find it here any more.
        Raises AddressesExhausted, or NetworkError when the process is gone or `ip` belongs to another pod.
        """
        ...

    async def detach(self, pod_uid: str) -> None:
        """Remove the pod's link and free its address; idempotent, also when the namespace is gone already."""
        ...

    async def known(self) -> dict[str, str]:
        """pod uid -> address of every pod that holds one, from the kernel and the leases file."""
        ...

    async def set_host_ports(self, ports: Mapping[str, Sequence[HostPort]]) -> None:
        """All hostPort mappings of this node by pod uid; replaces those that were set before."""
        ...

    async def teardown(self) -> None:
        """Remove everything that was made on the host, links of pods included (`minik8s reset`); idempotent."""
        ...
