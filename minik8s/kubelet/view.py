"""A pod as its kubelet sees it: the engine's containers laid beside the spec, newest attempt first.

The engine is the truth. Where it knows nothing of a container that the pod's status tells of (somebody pruned it, or
removed it behind our back), the status stands in, so that a finished init container is not run twice and a lost one
counts as ended with code 137.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from minik8s.api.kinds.pod import Container, ContainerStateTerminated, ContainerStatus, Pod
from minik8s.clock import parse_time
from minik8s.runtime.base import ContainerInfo

LABEL_SANDBOX = "io.kubernetes.sandbox.id"  # the sandbox that a container was made for, as dockershim had it
LABEL_CRASHES = "io.minik8s.crashes"  # how many attempts in a row had failed before this one

LOST_CODE = 137
LOST_REASON = "ContainerStatusUnknown"
LOST_MESSAGE = "The container could not be located when the pod was looked at; it was removed from outside."

Role = Literal["init", "sidecar", "app", "ephemeral"]


class Failure(NamedTuple):
    """Why a container (or the sandbox, name "") could not be started; not tried again before `retry_at`."""

    reason: str
    message: str
    retry_at: float


class Unhealthy(NamedTuple):
    """A container that a liveness or startup probe has condemned."""

    message: str
    grace: float | None = None  # the probe's own terminationGracePeriodSeconds


class Outcome(NamedTuple):
    """The pod's end is decided: no container is started again, those that run are stopped."""

    phase: Literal["Succeeded", "Failed"]
    reason: str = ""
    message: str = ""


@dataclass(slots=True)
class PodMemory:
    """What a worker knows of its pod beyond the API and the engine; losing it with the agent costs nothing but time."""

    hashes: Mapping[str, str] = field(default_factory=dict)  # container name -> hash of its spec
    busy: AbstractSet[str] = frozenset()  # keys of actions that are being performed
    stop_deadlines: Mapping[str, float] = field(default_factory=dict)  # container id -> when its stop will kill
    stopping_since: float = 0  # when the pod's termination began, 0 = it has not
    failures: Mapping[str, Failure] = field(default_factory=dict)
    unhealthy: Mapping[str, Unhealthy] = field(default_factory=dict)  # by container id
    started: AbstractSet[str] = frozenset()  # ids of containers whose startup probe has succeeded
    ready: AbstractSet[str] = frozenset()  # ids of containers whose readiness probe succeeds
    attempts: Mapping[str, int] = field(default_factory=dict)  # highest attempt that was ever begun, by name
    messages: Mapping[str, str] = field(default_factory=dict)  # termination messages by container id
    wired: str = ""  # id of the sandbox whose network is attached
    ip: str = ""
    start_time: float = 0  # when this kubelet first saw the pod
    gone: bool = False  # the API has forgotten the pod
    released: bool = False  # network and volumes of an ended pod are given back
    ended: Outcome | None = None  # the pod's end, once it was decided: what decided it may be gone by the next look


class Record(NamedTuple):
    """One container of the spec with what is known of its newest attempts."""

    spec: Container
    role: Role
    current: ContainerInfo | None
    previous: ContainerInfo | None
    surplus: tuple[ContainerInfo, ...]  # older ones, and doubles
    remembered: bool = False  # `current` was made from the pod's status: the engine does not know it

    @property
    def running(self) -> bool:
        return self.current is not None and self.current.state == "running"

    @property
    def dead(self) -> bool:
        """It ran (or could not be started) and is over. A container that was merely created is not."""
        return self.current is not None and is_dead(self.current)

    @property
    def succeeded(self) -> bool:
        return self.dead and self.current is not None and self.current.exit_code == 0 and not self.current.error


class PodView(NamedTuple):
    sandbox: ContainerInfo | None  # newest attempt
    old_sandboxes: tuple[ContainerInfo, ...]
    records: tuple[Record, ...]  # init containers, containers, ephemeral containers, in the spec's order
    strays: tuple[ContainerInfo, ...]  # containers of this pod that its spec does not know

    def of(self, *roles: Role) -> list[Record]:
        return [record for record in self.records if record.role in roles]

    @property
    def sandbox_running(self) -> bool:
        return self.sandbox is not None and self.sandbox.state == "running"

    def in_sandbox(self, record: Record) -> bool:
        """Whether its newest attempt belongs to the newest sandbox; init containers run once per sandbox."""
        if record.current is None:
            return False
        label = record.current.labels.get(LABEL_SANDBOX, "")
        return not label or self.sandbox is None or label == self.sandbox.id

    @property
    def initialized(self) -> bool:
        """All init containers have done their part for this sandbox; sure once an app container was begun in it."""
        if any(self.in_sandbox(record) and not record.remembered for record in self.of("app")):
            return True
        return all(self.in_sandbox(record) and record.succeeded for record in self.of("init"))


def is_dead(info: ContainerInfo) -> bool:
    return info.state == "exited" or (info.state == "created" and bool(info.error))


def is_sidecar(container: Container) -> bool:
    """An init container that goes on beside the app: `restartPolicy: Always`."""
    return container.restartPolicy == "Always"


def view(pod: Pod, seen: Sequence[ContainerInfo]) -> PodView:
    by_name: dict[str, list[ContainerInfo]] = {}
    for info in sorted(seen, key=lambda info: (info.attempt, info.created_at), reverse=True):
        by_name.setdefault(info.name, []).append(info)
    sandboxes = by_name.pop("POD", [])
    spec = pod.spec
    known: list[tuple[Container, Role]] = [(c, "sidecar" if is_sidecar(c) else "init") for c in spec.initContainers]
    known += [(c, "app") for c in spec.containers] + [(c, "ephemeral") for c in spec.ephemeralContainers]
    statuses = statuses_by_name(pod)
    records = [_record(c, role, by_name.pop(c.name, []), statuses.get(c.name), pod) for c, role in known]
    strays = tuple(info for infos in by_name.values() for info in infos)
    return PodView(sandboxes[0] if sandboxes else None, tuple(sandboxes[1:]), tuple(records), strays)


def statuses_by_name(pod: Pod) -> dict[str, ContainerStatus]:
    status = pod.status
    every = (*status.initContainerStatuses, *status.containerStatuses, *status.ephemeralContainerStatuses)
    return {known.name: known for known in every}


def _record(
    spec: Container, role: Role, infos: list[ContainerInfo], status: ContainerStatus | None, pod: Pod
) -> Record:
    if not infos:
        remembered = _from_status(status, pod) if status is not None else None
        return Record(spec, role, remembered, None, (), remembered is not None)
    # Of two that run, the newest stays; a dead one is kept for `logs --previous`.
    current, rest = infos[0], infos[1:]
    previous = rest[0] if rest and rest[0].state != "running" else None
    return Record(spec, role, current, previous, tuple(rest[1:] if previous else rest))


def _from_status(status: ContainerStatus, pod: Pod) -> ContainerInfo | None:
    ended = lost_state(status)
    if ended is None:
        return None
    return ContainerInfo(
        id=ended.containerID.partition("://")[2],
        pod_uid=pod.metadata.uid,
        pod_name=pod.metadata.name,
        pod_namespace=pod.metadata.namespace,
        name=status.name,
        attempt=status.restartCount,
        state="exited",
        started_at=parse_time(ended.startedAt),
        finished_at=parse_time(ended.finishedAt),
        exit_code=ended.exitCode,
        image=status.image,
        image_id=status.imageID.partition("://")[2],
    )


def lost_state(status: ContainerStatus) -> ContainerStateTerminated | None:
    """How a container ended that the engine no longer knows, as far as the pod's status tells; None: it never ran."""
    if status.state.terminated is not None:
        return status.state.terminated
    if status.state.running is not None:
        return ContainerStateTerminated(
            exitCode=LOST_CODE,
            reason=LOST_REASON,
            message=LOST_MESSAGE,
            startedAt=status.state.running.startedAt,
            containerID=status.containerID,
        )
    return status.lastState.terminated
