"""What the API is told of a pod: phase, conditions and container states, from what is seen and remembered.

Pure. Words and rules are those of Kubernetes' kubelet (`getPhase`, `GeneratePodReadyCondition` and neighbours), because
`kubectl get`, `describe` and `wait` are read by people and scripts who know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from minik8s.api.kinds.pod import ContainerStatus, Pod, PodStatus
from minik8s.clock import rfc3339
from minik8s.kubelet.plan import backoff_delay, backoff_left, crashes_of, is_started, outcome
from minik8s.kubelet.view import PodMemory, PodView, Record, is_dead, lost_state, statuses_by_name, view
from minik8s.runtime.base import ContainerInfo

Json = dict[str, Any]
MESSAGE_LIMIT = 4096  # bytes of a termination message; MaxContainerTerminationMessageLength
FALLBACK_LINES = 80  # FallbackToLogsOnError takes at most 80 lines and 2048 bytes of log
FALLBACK_LIMIT = 2048
KUBELET_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def pod_status(
    pod: Pod, seen: Sequence[ContainerInfo], now: float, memory: PodMemory, *, host_ip: str, qos: str, engine: str
) -> Json:
    """The whole status that the kubelet owns. `engine` prefixes ids: `docker://…`; conditions of others are kept."""
    sight = view(pod, seen)
    known = statuses_by_name(pod)
    reporter = _Reporter(pod, sight, now, memory, engine, known)
    by_role = {
        "initContainerStatuses": [reporter.container(record) for record in sight.of("init", "sidecar")],
        "containerStatuses": [reporter.container(record) for record in sight.of("app")],
        "ephemeralContainerStatuses": [reporter.container(record) for record in sight.of("ephemeral")],
    }
    end = outcome(pod, sight, now, memory)
    phase = reporter.phase(by_role["containerStatuses"])
    status: Json = {"phase": phase, "conditions": reporter.conditions(phase, by_role)}
    if end is not None and phase == end.phase:
        status |= {key: value for key, value in (("reason", end.reason), ("message", end.message)) if value}
    if host_ip:
        status |= {"hostIP": host_ip, "hostIPs": [{"ip": host_ip}]}
    ip = host_ip if pod.spec.hostNetwork else memory.ip or pod.status.podIP
    if ip and (sight.sandbox is not None or pod.status.podIP):
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    status["startTime"] = pod.status.startTime or rfc3339(memory.start_time or now)
    status["qosClass"] = qos
    return status | {key: value for key, value in by_role.items() if value}


class _Reporter:
    """Says one pod's state in the API's words. An object only to spare passing six values around."""

    def __init__(
        self,
        pod: Pod,
        sight: PodView,
        now: float,
        memory: PodMemory,
        engine: str,
        known: dict[str, ContainerStatus],
    ) -> None:
        self.pod = pod
        self.sight = sight
        self.now = now
        self.memory = memory
        self.engine = engine
        self.known = known
        self.end = outcome(pod, sight, now, memory)
        self.over = self.end is not None or pod.deleting or memory.gone  # nothing is started again

    # -- containers

    def container(self, record: Record) -> Json:
        info = record.current
        known = self.known.get(record.spec.name)
        state, last = self._states(record, known)
        started = is_started(record, self.memory)
        status: Json = {
            "name": record.spec.name,
            "state": state,
            "lastState": last,
            "ready": self._ready(record, started),
            "started": started,
            "restartCount": info.attempt if info is not None else known.restartCount if known is not None else 0,
            "image": (info.image if info is not None else "") or record.spec.image,
            "imageID": f"{self.engine}://{info.image_id}" if info is not None and info.image_id else "",
        }
        if info is not None and info.id:
            status["containerID"] = f"{self.engine}://{info.id}"
        return status

    def _ready(self, record: Record, started: bool) -> bool:
        if record.role == "init":
            return record.succeeded
        if record.role == "ephemeral" or record.current is None or not started:
            return False
        return record.spec.readinessProbe is None or record.current.id in self.memory.ready

    def _states(self, record: Record, known: ContainerStatus | None) -> tuple[Json, Json]:
        """(state, lastState) of a container."""
        info, name = record.current, record.spec.name
        earlier = self._earlier(record, known)
        if info is not None and info.state == "running":
            return {"running": {"startedAt": rfc3339(info.started_at)}}, earlier
        failure = self.memory.failures.get(name)
        starting = f"start:{name}" in self.memory.busy
        if info is None or not is_dead(info):
            if self.over and info is None:
                return self._never_started(record), {}
            return {"waiting": self._waiting(failure)}, earlier
        ended = {"terminated": self._terminated(record, info, known)}
        if self.over or (record.role in ("init", "ephemeral") and record.succeeded):
            return ended, earlier
        if failure is not None and not starting:
            return {"waiting": self._waiting(failure)}, ended
        if backoff_left(record, self.sight, self.memory, self.now) > 0:
            return {"waiting": self._crash_loop(info, name)}, ended
        return ended, earlier

    def _earlier(self, record: Record, known: ContainerStatus | None) -> Json:
        if record.previous is not None and is_dead(record.previous):
            return {"terminated": self._terminated(record, record.previous, known)}
        if known is None or record.current is None:
            return {}
        # The engine has forgotten the attempt before: what we told of it still holds.
        told = known.lastState.terminated if known.restartCount == record.current.attempt else None
        if known.restartCount == record.current.attempt - 1:
            told = lost_state(known)
        return {"terminated": _plain(told)} if told is not None else {}

    def _waiting(self, failure: Any) -> Json:
        if failure is not None:
            return {"reason": failure.reason} | ({"message": failure.message} if failure.message else {})
        return {"reason": "PodInitializing" if self.pod.spec.initContainers else "ContainerCreating"}

    def _crash_loop(self, info: ContainerInfo, name: str) -> Json:
        delay = _go_duration(backoff_delay(crashes_of(info)))
        meta = self.pod.metadata
        message = f"back-off {delay} restarting failed container={name} pod={meta.name}_{meta.namespace}({meta.uid})"
        return {"reason": "CrashLoopBackOff", "message": message}

    @staticmethod
    def _never_started(record: Record) -> Json:
        """A container of an ended pod that did not get its turn."""
        reason = "PodInitializing" if record.role in ("init", "sidecar") else "ContainerCreating"
        return {"waiting": {"reason": reason}}

    def _terminated(self, record: Record, info: ContainerInfo, known: ContainerStatus | None) -> Json:
        full_id = f"{self.engine}://{info.id}"
        if record.remembered and known is not None and info is record.current:
            told = lost_state(known)
            if told is not None:
                return _plain(told)
        reason = "Completed" if info.exit_code == 0 else "Error"
        if info.error:
            reason = "ContainerCannotRun"
        if info.oom_killed:
            reason = "OOMKilled"
        message = self.memory.messages.get(info.id, "") or info.error or _told_message(known, full_id)
        ended: Json = {"exitCode": info.exit_code, "reason": reason, "containerID": full_id}
        ended["startedAt"] = rfc3339(info.started_at or info.created_at)
        ended["finishedAt"] = rfc3339(info.finished_at or info.created_at)
        return ended | ({"message": message} if message else {})

    # -- the pod

    def phase(self, statuses: list[Json]) -> str:
        if self.over and not any(record.running for record in self.sight.records):
            if self.end is not None:
                return self.end.phase
            # A pod that is deleted ends, too: who counts on its end (a Job) must see one.
            return "Succeeded" if all(record.succeeded for record in self.sight.of("app")) else "Failed"
        policy = self.pod.spec.restartPolicy
        if not self.sight.initialized and not any(self._was_up(status) for status in statuses):
            return "Pending"
        for record, status in zip(self.sight.of("app"), statuses, strict=True):
            if "waiting" in status["state"] and not status["lastState"]:
                return "Pending"
            if policy == "Never" and record.current is None:
                return "Pending"
        return "Running"

    @staticmethod
    def _was_up(status: Json) -> bool:
        return "running" in status["state"] or "terminated" in status["state"] or bool(status["lastState"])

    def conditions(self, phase: str, by_role: dict[str, list[Json]]) -> list[Json]:
        """The kubelet's conditions, each with the time it last changed, then those of others as they are."""
        containers = self._containers_ready(phase, by_role)
        found = {
            "PodReadyToStartContainers": self._sandbox_ready(),
            "Initialized": self._initialized(phase),
            "Ready": self._gates(containers),
            "ContainersReady": containers,
            "PodScheduled": ("True", "", ""),
        }
        before = {known.type: known for known in self.pod.status.conditions}
        conditions: list[Json] = []
        for kind in KUBELET_CONDITIONS:
            status, reason, message = found[kind]
            was = before.pop(kind, None)
            same = was is not None and was.status == status and bool(was.lastTransitionTime)
            condition = {"type": kind, "status": status}
            condition |= {key: value for key, value in (("reason", reason), ("message", message)) if value}
            condition["lastTransitionTime"] = was.lastTransitionTime if same and was is not None else rfc3339(self.now)
            conditions.append(condition)
        return conditions + [_plain(other) for other in before.values()]

    def _sandbox_ready(self) -> tuple[str, str, str]:
        sandbox = self.sight.sandbox
        up = sandbox is not None and sandbox.state == "running" and sandbox.id == self.memory.wired
        return ("True" if up else "False", "", "")

    def _initialized(self, phase: str) -> tuple[str, str, str]:
        if phase == "Succeeded":
            return "True", "PodCompleted", ""
        missing = []
        for record in self.sight.of("init", "sidecar"):
            sidecar_up = record.role == "sidecar" and (is_started(record, self.memory) or self.sight.initialized)
            if not sidecar_up and not (record.role == "init" and (record.succeeded or self._past(record))):
                missing.append(record.spec.name)
        if not missing:
            return "True", "", ""
        return "False", "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(missing)}]"

    def _past(self, record: Record) -> bool:
        """Its work is done although it is not to be seen any more: the app containers have begun."""
        return record.current is None and self.sight.initialized

    def _containers_ready(self, phase: str, by_role: dict[str, list[Json]]) -> tuple[str, str, str]:
        if phase == "Succeeded":
            return "False", "PodCompleted", ""
        if phase == "Failed":
            return "False", "PodFailed", ""
        sidecars = {record.spec.name for record in self.sight.of("sidecar")}
        every = [s for s in by_role["initContainerStatuses"] if s["name"] in sidecars] + by_role["containerStatuses"]
        unready = [status["name"] for status in every if not status["ready"]]
        if not unready:
            return "True", "", ""
        return "False", "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"

    def _gates(self, containers: tuple[str, str, str]) -> tuple[str, str, str]:
        if containers[0] != "True":
            return containers
        known = {condition.type: condition.status for condition in self.pod.status.conditions}
        faults = []
        for gate in self.pod.spec.readinessGates:
            kind = gate.conditionType
            if kind not in known:
                faults.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
            elif known[kind] != "True":
                faults.append(f'the status of pod readiness gate "{kind}" is not "True", but {known[kind]}')
        return ("False", "ReadinessGatesNotReady", ", ".join(faults)) if faults else containers


def _plain(struct: Any) -> Json:
    """A struct as the JSON object it came from; an exit code of 0 is told, though it is the default."""
    plain: Json = msgspec.to_builtins(struct)
    if hasattr(struct, "exitCode"):
        plain.setdefault("exitCode", 0)
    return plain


def _told_message(known: ContainerStatus | None, full_id: str) -> str:
    """The termination message that the API already has, for when its file is gone with the agent's memory."""
    if known is None:
        return ""
    for ended in (known.state.terminated, known.lastState.terminated):
        if ended is not None and ended.containerID == full_id:
            return ended.message
    return ""


def _go_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def termination_message(policy: str, file: bytes, log_tail: bytes, *, failed: bool) -> str:
    """The message of an ended container: its file's end, or with FallbackToLogsOnError its last log lines."""
    if file or policy != "FallbackToLogsOnError" or not failed:
        return file[:MESSAGE_LIMIT].decode(errors="replace")
    return b"".join(log_tail.splitlines(keepends=True)[-FALLBACK_LINES:])[-FALLBACK_LIMIT:].decode(errors="replace")


def status_patch(told: Json, status: Json) -> Json:
    """What of `status` differs from what was `told`, as a patch by merge keys; {} if nothing does.

    Conditions are merged by type, so those that others write meanwhile stay; lists merged by address are replaced.
    """
    patch: Json = {key: value for key, value in status.items() if told.get(key) != value}
    patch |= {key: None for key in told if key not in status}
    for key in ("podIPs", "hostIPs"):
        if patch.get(key) and told.get(key):
            patch[key] = [{"$patch": "replace"}, *patch[key]]
    if patch.get("conditions"):
        before = {condition["type"]: condition for condition in told.get("conditions", ())}
        own = [c for c in status["conditions"] if c["type"] in KUBELET_CONDITIONS]
        patch["conditions"] = [c for c in own if before.get(c["type"]) != c]
        patch["conditions"] = [c | _forgotten(before.get(c["type"], {}), c) for c in patch["conditions"]]
        if not patch["conditions"]:
            del patch["conditions"]
    return patch


def known_status(api: PodStatus, told: Json | None) -> PodStatus:
    """The status to go on from: what was last told, which the copy of the API may not show yet, and others' part."""
    if told is None or api.phase in ("Succeeded", "Failed"):
        return api
    own = msgspec.convert(told, PodStatus)
    others = tuple(c for c in api.conditions if c.type not in KUBELET_CONDITIONS)
    mine = tuple(c for c in own.conditions if c.type in KUBELET_CONDITIONS)
    return msgspec.structs.replace(own, conditions=mine + others)


def _forgotten(before: Json, after: Json) -> Json:
    return {key: None for key in before if key not in after}
