"""The parts that every pod's worker of one node shares, and the settings that people may turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from minik8s.api.kinds.pod import Container, DownwardAPIFile, Pod
from minik8s.client.base import Client
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock
from minik8s.kubelet.handlers import Handlers
from minik8s.kubelet.host_ports import HostPorts
from minik8s.kubelet.images import Images
from minik8s.kubelet.objects import Objects
from minik8s.kubelet.volumes import Volumes
from minik8s.net.base import PodNetwork
from minik8s.net.host_resolver import read_resolv_conf
from minik8s.runtime.base import ContainerSpec, Device, ImageInfo, Mount, Runtime, SandboxSpec


@dataclass(slots=True)
class Settings:
    """`data_dir` None: nothing is kept on disk and pods have no volumes, for simulated nodes.

    Nothing here changes but `node_ip`, when the machine is given another address.
    """

    node_name: str
    node_ip: str
    data_dir: Path | None
    node_uid: str = ""  # unique to this agent's data folder; guards against two agents with one name
    node_key: str = ""  # the id of the key by which the master knows this machine again
    cluster_dns: str = ""
    cluster_domain: str = "cluster.local"
    host_resolv_conf: Callable[[], str] = read_resolv_conf  # its text, as pods with dnsPolicy Default are to have it
    kubelet_port: int = 10250
    max_pods: int = 110
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[dict[str, str], ...] = ()
    lease_seconds: float = 5.0  # between heartbeats, unless the master wants them more often
    status_seconds: float = 300.0  # between node statuses when nothing changes
    relist_seconds: float = 60.0
    image_gc_high: int = 85  # per cent of the image disk that starts a collection …
    image_gc_low: int = 80  # … and that ends it
    housekeeping_seconds: float = 300.0
    workers: int = 16


class Amount(NamedTuple):
    """Of an extended resource on this node."""

    capacity: int
    allocatable: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a container gets for the devices it holds, besides what its spec says."""

    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()  # ids that the engine is to give by itself
    left_out: tuple[str, ...] = ()  # what a device's CDI spec wants to be run and no engine of ours runs


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container is to run, and with what besides what its spec says."""

    sandbox: SandboxSpec
    sandbox_id: str
    ip: str
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    given: Allocation = Allocation()
    pid_target: str = ""


class Specs(Protocol):
    """Makes engine specs from pods. What cannot be made is ContainerConfigInvalid; objects out of reach Unavailable."""

    def hashes(self, pod: Pod) -> dict[str, str]:
        """Container name -> hash of what a change of must restart it."""

    def qos(self, pod: Pod) -> str: ...

    def field(self, pod: Pod, item: DownwardAPIFile) -> str:
        """The value of one item of a downward API volume."""

    def sandbox(self, pod: Pod, attempt: int) -> SandboxSpec: ...

    async def environment(self, pod: Pod, container: Container, ip: str) -> tuple[tuple[str, str], ...]: ...

    def container(
        self, pod: Pod, container: Container, image: ImageInfo, attempt: int, crashes: int, place: Place
    ) -> ContainerSpec: ...


class Devices(Protocol):
    """The seam for device plugins (`kubelet/devices/manager.py`)."""

    def on_change(self, changed: Callable[[], None], wake: Callable[[str], None]) -> None: ...

    def amounts(self) -> Mapping[str, Amount | None]:
        """Extended resources of this node; None: it has lost this one."""

    async def admit(self, pod: Pod) -> None:
        """Before a container is made: give all of them their devices. RuntimeFailure if that cannot be (yet)."""

    async def allocate(self, pod: Pod, container: Container) -> Allocation: ...

    def free(self, pod_uid: str) -> None: ...

    def retain(self, pod_uids: Collection[str]) -> None:
        """Free what any other pods hold."""


class NoDevices:
    def on_change(self, changed: Callable[[], None], wake: Callable[[str], None]) -> None:
        """Nothing changes."""

    def amounts(self) -> Mapping[str, Amount | None]:
        return {}

    async def admit(self, pod: Pod) -> None:
        """Nothing is asked for."""

    async def allocate(self, pod: Pod, container: Container) -> Allocation:
        return Allocation()

    def free(self, pod_uid: str) -> None:
        """Nothing was taken."""

    def retain(self, pod_uids: Collection[str]) -> None:
        """Nothing was taken."""


async def at_once(pod: Pod) -> None:
    """Nothing leads to the pods of a node without services."""


@dataclass(frozen=True, slots=True)
class Kit:
    client: Client
    runtime: Runtime
    network: PodNetwork
    recorder: Recorder
    images: Images
    objects: Objects
    volumes: Volumes | None
    handlers: Handlers
    host_ports: HostPorts
    specs: Specs
    devices: Devices
    clock: Clock
    settings: Settings
    engine: str = "docker"
    refresh_volumes: Callable[[str], None] = lambda uid: None  # ask for a pod's mounted objects to be looked at
    withdrawn: Callable[[Pod], Awaitable[None]] = at_once  # returns when no Service leads to a pod that is to end
