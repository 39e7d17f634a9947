"""What a kubelet needs of a container engine: sandboxes, containers, images, streams, events.

A *sandbox* is the pause container that holds a pod's network, IPC and (if asked) PID namespaces; the pod's containers
run inside it. Everything that must survive an agent's restart is on the containers as labels, so `containers()` alone
tells all there is to know. Two implementations pass one contract test: Docker Engine and the fake.
Failures are `RuntimeFailure`; its subclasses say what the kubelet must tell the user.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from minik8s.runtime.inventory import Inventory, Kind

# Labels that the Docker implementation puts on what it creates; `reset` and the stray check go by the first one.
LABEL_MANAGED = "io.minik8s.managed"  # the data folder's node uid, so that two agents on one engine do not mix
LABEL_POD_UID = "io.kubernetes.pod.uid"
LABEL_POD_NAME = "io.kubernetes.pod.name"
LABEL_POD_NAMESPACE = "io.kubernetes.pod.namespace"
LABEL_CONTAINER = "io.kubernetes.container.name"  # POD for a sandbox, as dockershim had it
LABEL_ATTEMPT = "io.kubernetes.container.restartCount"
LABEL_HASH = "io.kubernetes.container.hash"
LABEL_IMAGE = "io.minik8s.image"  # the reference as the pod's spec has it; the engine is given an id


class RuntimeFailure(Exception):
    """The engine refused or failed; `reason` is the word for a container's waiting state or an event."""

    reason = "RuntimeError"

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or self.reason


class EngineUnavailable(RuntimeFailure):
    """The engine does not answer; nothing is known about its containers."""

    reason = "ContainerRuntimeNotReady"


class NoSuchContainer(RuntimeFailure):
    reason = "ContainerNotFound"


class EngineConflict(RuntimeFailure):
    """What was asked for does not go with the state that the thing is in: an image in use, a container that runs."""


class ImagePullFailed(RuntimeFailure):
    reason = "ErrImagePull"


class InvalidImageName(RuntimeFailure):
    reason = "InvalidImageName"


class CreateFailed(RuntimeFailure):
    reason = "CreateContainerError"


class ContainerConfigInvalid(RuntimeFailure):
    """The pod asks for what cannot be made: a missing ConfigMap or key, root where root is forbidden."""

    reason = "CreateContainerConfigError"


class StartFailed(RuntimeFailure):
    """Docker made the container but its program could not be started (no such file, not executable …)."""

    reason = "RunContainerError"


class Mount(NamedTuple):
    source: str  # absolute path on the host
    target: str  # absolute path in the container
    read_only: bool = False
    propagation: str = ""  # "" = private | rslave | rshared


class Device(NamedTuple):
    host_path: str
    container_path: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    pod_uid: str
    pod_name: str
    pod_namespace: str
    hostname: str  # of all the pod's containers
    attempt: int = 0
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_pid: bool = False  # containers join the sandbox's PID namespace
    sysctls: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """All that the engine needs; made by the pure `runtime/spec.py` from a pod and its resolved environment."""

    pod_uid: str
    pod_name: str
    pod_namespace: str
    name: str
    attempt: int
    hash: str  # of the container's spec; a change restarts it
    image: str  # what to run: an image id or reference that is present
    sandbox: SandboxSpec
    sandbox_id: str
    command: tuple[str, ...] = ()  # replaces the image's ENTRYPOINT if not empty
    args: tuple[str, ...] = ()  # replaces the image's CMD if not empty
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""  # "uid[:gid]", "" = the image's
    groups: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    gpus: tuple[str, ...] = ()  # ids that an engine with the NVIDIA runtime gives by itself
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    privileged: bool = False
    read_only_root: bool = False
    no_new_privileges: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: str = ""  # "" = engine's default | unconfined | path of a profile
    cpu_shares: int = 0
    cpu_period: int = 0  # microseconds
    cpu_quota: int = 0  # microseconds per period, 0 = no limit
    memory: int = 0  # bytes, 0 = no limit
    oom_score_adj: int = 0
    cgroup_parent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    pid_target: str = ""  # container id whose PID namespace is joined (ephemeral containers' targetContainerName)


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """One container as the engine sees it. Times are Unix seconds, 0 = not yet."""

    id: str
    pod_uid: str
    pod_name: str
    pod_namespace: str
    name: str  # "POD" for the sandbox
    attempt: int
    state: Literal["created", "running", "exited"]
    hash: str = ""
    pid: int = 0
    created_at: float = 0
    started_at: float = 0
    finished_at: float = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""  # the engine's own words when it could not start it
    image: str = ""  # reference as in the pod's spec
    image_id: str = ""
    host_network: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_sandbox(self) -> bool:
        return self.name == "POD"


class ImageInfo(NamedTuple):
    id: str  # sha256:…
    names: tuple[str, ...]  # tags and digests
    size: int  # bytes
    user: str = ""  # USER of the image's configuration: "" | name | uid | uid:gid
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    stop_signal: str = ""


class RegistryAuth(NamedTuple):
    username: str
    password: str
    server: str


class EngineInfo(NamedTuple):
    name: str  # "docker"
    version: str  # "20.10.24"
    api_version: str
    cgroup_driver: str = ""
    root: str = ""  # where images live, for disk figures
    runtimes: tuple[str, ...] = ()  # names of what it can run containers with, e.g. runc, nvidia


class RuntimeEvent(NamedTuple):
    """Something happened to a container of `pod_uid`. pod_uid "" = events may have been missed: list everything."""

    pod_uid: str
    container_id: str
    action: str  # create | start | die | oom | destroy | relist


class ExecResult(NamedTuple):
    exit_code: int
    output: bytes  # stdout and stderr together


class LogLine(NamedTuple):
    stream: int  # 1 stdout, 2 stderr
    data: bytes  # with its newline; begins with an RFC 3339 nano timestamp and a space if these were asked for


class LinkStats(NamedTuple):
    """A network interface: what it has received and sent since it was made."""

    name: str
    received_bytes: int = 0
    received_packets: int = 0
    receive_errors: int = 0
    receive_dropped: int = 0
    sent_bytes: int = 0
    sent_packets: int = 0
    send_errors: int = 0
    send_dropped: int = 0


class ProcessStats(NamedTuple):
    """What `stats` knows of one container now; for metrics, eviction and the schedulers by live utilisation.

    Seconds, bytes and counts since the container's start, or of now. The working set is what cannot be dropped: usage
    without inactive file pages, as kubelet counts it. `pid` is one of its processes, through which its network is seen.
    """

    cpu_seconds: float
    memory_bytes: int  # working set
    user_seconds: float = 0.0
    system_seconds: float = 0.0
    periods: int = 0  # of the CPU limit
    throttled_periods: int = 0
    throttled_seconds: float = 0.0
    memory_usage: int = 0
    memory_limit: int = 0  # 0 = none
    memory_failures: int = 0  # how often the limit was hit
    rss: int = 0
    cache: int = 0
    swap: int = 0
    mapped_file: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    read_bytes: int = 0  # from and to disks
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0
    processes: int = 0
    threads: int = 0
    pid: int = 0


class Streams(Protocol):
    """A running exec or attach: bytes both ways. Closing it ends the connection, not the process."""

    async def read(self) -> tuple[int, bytes] | None:
        """Next bytes as (1 stdout | 2 stderr, data); None at the end. With a tty all is 1."""

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, width: int, height: int) -> None: ...

    async def exit_code(self) -> int | None:
        """After the end: the exit code of an exec; None for attach."""


class Runtime(Protocol):
    """An async context manager; entering connects. Ids are the engine's; unknown ones raise NoSuchContainer."""

    async def __aenter__(self) -> Runtime: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def info(self) -> EngineInfo: ...

    # -- containers

    async def containers(self, pod_uid: str | None = None) -> list[ContainerInfo]:
        """All sandboxes and containers of this agent (of one pod), also those that have exited."""

    async def inspect(self, container_ids: Sequence[str]) -> list[ContainerInfo]:
        """Those of these that there are, without a look for others."""

    async def create_sandbox(self, spec: SandboxSpec) -> str:
        """Make (not start) a pod's sandbox; its id. If one with this uid and attempt runs already, that one's.

        Containers may be made for it before it runs. Unless it is the host's, its network is an empty namespace with
        `lo` alone, and the engine writes neither /etc/hosts nor /etc/resolv.conf for its containers: these come as
        mounts.
        """

    async def start_sandbox(self, sandbox_id: str) -> int:
        """Start it unless it runs; the process that holds its namespaces (0 with the fake). If it cannot be started
        it is removed, and CreateFailed tells why."""

    async def create_container(self, spec: ContainerSpec) -> str:
        """Make (not start) a container; one with the same pod, name and attempt that exists is replaced."""

    def reductions(self, spec: ContainerSpec) -> tuple[str, ...]:
        """What this host cannot give to a container although its pod asks for it, as sentences for events."""

    async def start(self, container_id: str) -> None: ...

    async def stop(self, container_id: str, grace: float) -> None:
        """SIGTERM (or the image's signal), after `grace` seconds SIGKILL; returns when it has exited. 0 = SIGKILL."""

    async def remove(self, container_id: str) -> None:
        """Remove, killing it if it runs; idempotent."""

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[RuntimeEvent]]:
        """For ever: reconnects by itself and then gives a relist event."""

    # -- streams

    def exec(
        self,
        container_id: str,
        command: Sequence[str],
        *,
        stdin: bool,
        tty: bool,
        stdout: bool = True,
        stderr: bool = True,
    ) -> AbstractAsyncContextManager[Streams]: ...

    def attach(
        self, container_id: str, *, stdin: bool, tty: bool, stdout: bool = True, stderr: bool = True
    ) -> AbstractAsyncContextManager[Streams]: ...

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        """Run and collect (at most 16 KiB of output); TimeoutError after `timeout` seconds."""

    def logs(
        self,
        container_id: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float = 0,
        timestamps: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[LogLine]]: ...

    def dial(self, sandbox_id: str, port: int) -> AbstractAsyncContextManager[PortStream]:
        """A TCP connection to `localhost:port` inside the sandbox's network namespace; ConnectionRefusedError …"""

    async def stats(self, container_id: str) -> ProcessStats | None:
        """What a container uses, without asking the engine more than once in its life; None if it does not run."""

    def links(self, stats: ProcessStats) -> tuple[LinkStats, ...]:
        """The interfaces, `lo` apart, of the network that a container just measured is in; none if it has ended."""

    # -- images

    async def image(self, reference: str) -> ImageInfo | None:
        """The image if it is present under this reference or id. Raises InvalidImageName."""

    async def images(self) -> list[ImageInfo]: ...

    async def pull(self, reference: str, auth: Sequence[RegistryAuth] = ()) -> ImageInfo:
        """Fetch an image; ImagePullFailed with the registry's words, InvalidImageName."""

    async def remove_image(self, image_id: str) -> int:
        """Bytes freed; 0 if it is in use or gone."""

    # -- the whole engine, others' things included: for people

    async def inventory(self, *, sizes: bool = False) -> Inventory:
        """`sizes` measures what containers and volumes hold, which takes an engine with many files its time."""

    async def restart(self, container_id: str, grace: float) -> None:
        """As `stop`, and start the same container again."""

    async def discard(self, kind: Kind, id: str) -> None:
        """Remove a stopped container with its anonymous volumes, or an image, volume or network that nobody uses.

        EngineConflict if it is in use, NoSuchContainer if it is not there.
        """


class PortStream(Protocol):
    async def read(self) -> bytes:
        """Some bytes; b"" at the end."""

    async def write(self, data: bytes) -> None: ...

    async def close_write(self) -> None: ...
