"""The whole life of a pod as decisions: from what should be, what is, and the time, to what to do now.

Pure. The worker performs the actions, looks again, and plans again, until nothing is left to do. An action names the
thing it is about (`key`); as long as one with this key is being performed it is not planned again, and each is safe to
repeat, so a crash between any two steps only means that the next look plans the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from minik8s.api.kinds.pod import Pod
from minik8s.clock import parse_time
from minik8s.kubelet.view import LABEL_CRASHES, LABEL_SANDBOX, Outcome, PodMemory, PodView, Record, is_dead, view
from minik8s.runtime.base import ContainerInfo

FIRST_BACKOFF = 10.0  # seconds; kubelet's container restart back-off: 10 s doubling to 5 min …
LAST_BACKOFF = 300.0
BACKOFF_RESET = 600.0  # … forgotten after a container has run for 10 minutes
DELETED_GRACE = 0.0  # seconds for containers whose pod is gone from the API: it was deleted by force


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    """Volumes, pause container, network: all that containers need before the first one starts.

    A StartContainer of the same plan is begun at once and waits for it at the last moment.
    """

    attempt: int
    established: bool = False  # containers were made in it already: only its network has to be looked after

    @property
    def key(self) -> str:
        return "sandbox"


@dataclass(frozen=True, slots=True)
class StartContainer:
    name: str
    attempt: int
    crashes: int  # failed attempts in a row before this one

    @property
    def key(self) -> str:
        return f"start:{self.name}"


@dataclass(frozen=True, slots=True)
class StopContainer:
    """preStop, SIGTERM, and SIGKILL at `deadline` (Unix seconds)."""

    id: str
    name: str
    deadline: float
    message: str  # for the Killing event

    @property
    def key(self) -> str:
        return f"stop:{self.id}"


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    id: str

    @property
    def key(self) -> str:
        return f"remove:{self.id}"


@dataclass(frozen=True, slots=True)
class Release:
    """The pod has ended: give back its network address and volumes; its dead containers stay for their logs."""

    @property
    def key(self) -> str:
        return "release"


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left of the pod on this node: clean up and let the API forget it."""

    @property
    def key(self) -> str:
        return "finish"


Action = CreateSandbox | StartContainer | StopContainer | RemoveContainer | Release | Finish


class Plan(NamedTuple):
    actions: tuple[Action, ...]
    requeue_after: float | None = None  # seconds until time alone changes the plan
    abandon: bool = False  # starts that are under way are pointless now: cancel them


def plan_pod(pod: Pod, seen: Sequence[ContainerInfo], now: float, memory: PodMemory) -> Plan:
    """What to do for `pod` now. `seen` are all its sandboxes and containers, the dead ones too."""
    sight = view(pod, seen)
    if pod.deleting or memory.gone:
        plan = _terminate(pod, sight, seen, now, memory)
    elif outcome(pod, sight, now, memory) is not None:
        plan = _wind_down(pod, sight, seen, now, memory)
    else:
        plan = _Living(pod, sight, now, memory).plan()
    return plan._replace(actions=tuple(action for action in plan.actions if _is_news(action, memory)))


def _is_news(action: Action, memory: PodMemory) -> bool:
    if action.key not in memory.busy:
        return True
    # A stop that is under way is begun anew only to make it shorter (`kubectl delete --grace-period=1` the 2nd time).
    return isinstance(action, StopContainer) and action.deadline < memory.stop_deadlines.get(action.id, 0) - 0.001


# -- the end of a pod


def outcome(pod: Pod, sight: PodView, now: float, memory: PodMemory) -> Outcome | None:
    """How the pod ends, if that is decided; once it is, it stays so."""
    if pod.status.phase in ("Succeeded", "Failed"):
        return Outcome(pod.status.phase, pod.status.reason, pod.status.message)  # type: ignore[arg-type]
    if memory.ended is not None:
        return memory.ended
    deadline = active_deadline(pod, memory)
    if deadline is not None and now >= deadline:
        message = "Pod was active on the node longer than the specified deadline"
        return Outcome("Failed", "DeadlineExceeded", message)
    if pod.spec.restartPolicy == "Always":
        return None
    never = pod.spec.restartPolicy == "Never"
    if never and not sight.initialized and any(r.dead and not r.succeeded for r in sight.of("init")):
        return Outcome("Failed")
    apps = sight.of("app")
    if all(record.dead and (never or record.succeeded) for record in apps):
        return Outcome("Succeeded" if all(record.succeeded for record in apps) else "Failed")
    if never and sight.sandbox is not None and not sight.sandbox_running and any(record.dead for record in apps):
        return Outcome("Failed")  # what has ended cannot be had again, and without its sandbox nor can the rest
    return None


def active_deadline(pod: Pod, memory: PodMemory) -> float | None:
    if pod.spec.activeDeadlineSeconds is None:
        return None
    begun = parse_time(pod.status.startTime) or memory.start_time
    return begun + pod.spec.activeDeadlineSeconds if begun else None


def grace_seconds(pod: Pod, memory: PodMemory) -> float:
    """The pod's grace period: the deletion's own, else the spec's."""
    if pod.metadata.deletionGracePeriodSeconds is not None:
        return float(pod.metadata.deletionGracePeriodSeconds)
    return DELETED_GRACE if memory.gone else float(pod.spec.terminationGracePeriodSeconds)


def _terminate(pod: Pod, sight: PodView, seen: Sequence[ContainerInfo], now: float, memory: PodMemory) -> Plan:
    deadline = (memory.stopping_since or now) + grace_seconds(pod, memory)
    stops = _stop_everything(pod, sight, seen, deadline)
    if stops:
        return Plan(tuple(stops), abandon=True)
    if seen:
        return Plan(tuple(RemoveContainer(info.id) for info in seen), abandon=True)
    return Plan((Finish(),) if not memory.busy else (), abandon=True)


def _wind_down(pod: Pod, sight: PodView, seen: Sequence[ContainerInfo], now: float, memory: PodMemory) -> Plan:
    deadline = (memory.stopping_since or now) + grace_seconds(pod, memory)
    stops = _stop_everything(pod, sight, seen, deadline)
    if stops:
        return Plan(tuple(stops), abandon=True)
    sandboxes = [info for info in (sight.sandbox, *sight.old_sandboxes) if info is not None]
    leftovers = [*sandboxes, *sight.strays, *(info for record in sight.records for info in record.surplus)]
    if leftovers:
        return Plan(tuple(RemoveContainer(info.id) for info in leftovers), abandon=True)
    return Plan(() if memory.released or memory.busy else (Release(),), abandon=True)


def _stop_everything(pod: Pod, sight: PodView, seen: Sequence[ContainerInfo], deadline: float) -> list[Action]:
    """Stops for all that runs: first everything but sidecars, then those one by one, the last one first."""
    sidecars = [record.spec.name for record in sight.of("sidecar")]
    running = [info for info in seen if info.state == "running" and not info.is_sandbox]
    first = [info for info in running if info.name not in sidecars]
    if not first and running:
        last = max(sidecars.index(info.name) for info in running)
        first = [info for info in running if info.name == sidecars[last]]
    return [StopContainer(i.id, i.name, deadline, f"Stopping container {i.name}") for i in first]


# -- the life of a pod


class _Living:
    """Plans for a pod that should run. An object only to spare its steps the passing around of five values."""

    def __init__(self, pod: Pod, sight: PodView, now: float, memory: PodMemory) -> None:
        self.pod = pod
        self.sight = sight
        self.now = now
        self.memory = memory
        self.actions: list[Action] = []
        self.wake: list[float] = []

    def plan(self) -> Plan:
        deadline = active_deadline(self.pod, self.memory)
        if deadline is not None:
            self.wake.append(deadline)
        self._tidy()
        if self._sandbox():
            for record in self.sight.of("ephemeral"):
                if record.current is None or record.current.state == "created":
                    self._start(record)
            if self._init():
                self._apps()
        after = min(self.wake) - self.now if self.wake else None
        return Plan(tuple(self.actions), None if after is None else max(after, 0.0))

    def _tidy(self) -> None:
        surplus = [info for record in self.sight.records for info in record.surplus]
        for info in (*self.sight.old_sandboxes, *self.sight.strays, *surplus):
            self.actions.append(RemoveContainer(info.id))

    def _sandbox(self) -> bool:
        """True if containers may start, also together with their sandbox; else what must come first is planned."""
        sight = self.sight
        if sight.sandbox is not None and sight.sandbox_running:
            if sight.sandbox.id != self.memory.wired:
                mine = {r.current.labels.get(LABEL_SANDBOX) for r in sight.records if r.current is not None}
                self._create_sandbox(sight.sandbox.attempt, established=sight.sandbox.id in mine)
                return False
            stale = [r for r in sight.records if r.running and not sight.in_sandbox(r)]
            for record in stale:
                self._stop(record, "Pod sandbox changed, it will be killed and re-created.")
            return not stale
        running = [record for record in sight.records if record.running]
        for record in running:
            self._stop(record, "Pod sandbox changed, it will be killed and re-created.")
        if running:
            return False
        last = sight.sandbox.attempt if sight.sandbox is not None else -1
        planned = self._create_sandbox(max(self.memory.attempts.get("", 0), last + 1))
        # The first sandbox of a pod takes its first containers with it; after that, what they did decides.
        return planned and sight.sandbox is None and all(record.current is None for record in sight.records)

    def _create_sandbox(self, attempt: int, *, established: bool = False) -> bool:
        if not self._may_try(""):
            return False
        self.actions.append(CreateSandbox(attempt, established))
        return True

    def _init(self) -> bool:
        """Init containers one after the other; True if the app containers may run."""
        initialized = self.sight.initialized
        for record in self.sight.of("init", "sidecar"):
            if record.role == "sidecar":
                self._keep_running(record)
                if not initialized and not is_started(record, self.memory):
                    return False
            elif not initialized and not (self.sight.in_sandbox(record) and record.succeeded):
                if not record.running:
                    self._start(record)
                elif not self._condemned(record):
                    self._check_hash(record)
                return False
        return True

    def _apps(self) -> None:
        policy = self.pod.spec.restartPolicy
        for record in self.sight.of("app"):
            if record.dead and (policy == "Never" or (policy == "OnFailure" and record.succeeded)):
                continue
            self._keep_running(record)
            hooked = record.spec.lifecycle is not None and record.spec.lifecycle.postStart is not None
            if hooked and (not record.running or f"start:{record.spec.name}" in self.memory.busy):
                return  # the next container waits for this one's postStart hook, which people rely on for proxies

    def _keep_running(self, record: Record) -> None:
        if not record.running:
            self._start(record)
        elif not self._condemned(record):
            self._check_hash(record)

    def _condemned(self, record: Record) -> bool:
        assert record.current is not None
        verdict = self.memory.unhealthy.get(record.current.id)
        if verdict is not None:
            self._stop(record, f"Container {record.spec.name} {verdict.message}, will be restarted", verdict.grace)
        return verdict is not None

    def _check_hash(self, record: Record) -> None:
        assert record.current is not None
        wanted = self.memory.hashes.get(record.spec.name, "")
        if wanted and record.current.hash and record.current.hash != wanted:
            self._stop(record, f"Container {record.spec.name} definition changed, will be restarted")

    def _stop(self, record: Record, message: str, grace: float | None = None) -> None:
        assert record.current is not None
        seconds = float(self.pod.spec.terminationGracePeriodSeconds) if grace is None else grace
        begun = self.memory.stop_deadlines.get(record.current.id, self.now + seconds)
        self.actions.append(StopContainer(record.current.id, record.spec.name, begun, message))

    def _start(self, record: Record) -> None:
        name = record.spec.name
        begun = self.memory.attempts.get(name, -1)
        if record.current is None:
            # Attempt 0 of a pod that was never started, or once more what did not get as far as the engine.
            self._start_attempt(record, max(begun, 0), 0)
            return
        if not is_dead(record.current):  # created and not started: we were cut between the two
            self._start_attempt(record, record.current.attempt, crashes_of(record.current))
            return
        wait = self._backoff(record)
        if wait > 0:
            self.wake.append(self.now + wait)
            return
        self._start_attempt(record, max(begun, record.current.attempt + 1), self._next_crashes(record))

    def _start_attempt(self, record: Record, attempt: int, crashes: int) -> None:
        if self._may_try(record.spec.name):
            self.actions.append(StartContainer(record.spec.name, attempt, crashes))

    def _backoff(self, record: Record) -> float:
        return backoff_left(record, self.sight, self.memory, self.now)

    def _next_crashes(self, record: Record) -> int:
        assert record.current is not None
        return 0 if _starts_fresh(record, self.sight, self.memory) else crashes_of(record.current) + 1

    def _may_try(self, name: str) -> bool:
        failure = self.memory.failures.get(name)
        if failure is None or failure.retry_at <= self.now:
            return True
        self.wake.append(failure.retry_at)
        return False


# -- rules that the status shares


def crashes_of(info: ContainerInfo) -> int:
    text = info.labels.get(LABEL_CRASHES, "0")
    return int(text) if text.isdigit() else 0


def backoff_delay(crashes: int) -> float:
    """Seconds to wait after the end of an attempt that `crashes` failed ones went before: 0, 10, 20, 40 … 300."""
    return 0.0 if crashes <= 0 else min(FIRST_BACKOFF * 2.0 ** min(crashes - 1, 10), LAST_BACKOFF)


def _starts_fresh(record: Record, sight: PodView, memory: PodMemory) -> bool:
    """No blame from earlier attempts: it ran long enough, its definition is new, or its sandbox died under it."""
    last = record.current
    if last is None or record.remembered or not sight.in_sandbox(record):
        return True
    wanted = memory.hashes.get(record.spec.name, "")
    if wanted and last.hash and last.hash != wanted:
        return True
    return bool(last.started_at) and last.finished_at - last.started_at >= BACKOFF_RESET


def backoff_left(record: Record, sight: PodView, memory: PodMemory, now: float) -> float:
    """Seconds for which a dead container is still left dead; 0 = it may start."""
    if record.current is None or not record.dead or _starts_fresh(record, sight, memory):
        return 0.0
    ended = record.current.finished_at or record.current.created_at
    return max(0.0, ended + backoff_delay(crashes_of(record.current)) - now)


def is_started(record: Record, memory: PodMemory) -> bool:
    """Running, its postStart hook done, its startup probe passed."""
    if record.current is None or not record.running or f"start:{record.spec.name}" in memory.busy:
        return False
    return record.spec.startupProbe is None or record.current.id in memory.started
