"""A world for the planner: containers that start, exit and vanish in memory, and the laws they must obey."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import msgspec

from minik8s.api.kinds.pod import Pod
from minik8s.kubelet.plan import (
    Action,
    CreateSandbox,
    Finish,
    Plan,
    Release,
    RemoveContainer,
    StartContainer,
    StopContainer,
    outcome,
    plan_pod,
)
from minik8s.kubelet.status import pod_status
from minik8s.kubelet.view import LABEL_CRASHES, LABEL_SANDBOX, PodMemory, view
from minik8s.runtime.base import ContainerInfo

NOW = 1_700_000_000.0


def make_pod(
    *containers: dict[str, Any],
    init: tuple[dict[str, Any], ...] = (),
    policy: str = "Always",
    meta: dict[str, Any] | None = None,
    **spec: Any,
) -> Pod:
    listed = [{"image": "app:1", **c} for c in containers or ({"name": "web"},)]
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "default", "uid": "u1"} | (meta or {}),
        "spec": {
            "containers": listed,
            "initContainers": [{"image": "app:1", **c} for c in init],
            "restartPolicy": policy,
        }
        | spec,
    }
    return msgspec.convert(document, Pod)


@dataclass
class World:
    """Performs plans at once; `now` moves only when told."""

    pod: Pod
    now: float = NOW
    memory: PodMemory = field(default_factory=lambda: PodMemory(start_time=NOW))
    infos: dict[str, ContainerInfo] = field(default_factory=dict)
    log: list[Action] = field(default_factory=list)
    serial: int = 0
    finished: bool = False
    status: dict[str, Any] = field(default_factory=dict)
    report: bool = True  # whether each step's status reaches the API

    @property
    def seen(self) -> list[ContainerInfo]:
        return list(self.infos.values())

    def plan(self) -> Plan:
        return plan_pod(self.pod, self.seen, self.now, self.memory)

    def step(self) -> Plan:
        self.memory.ended = outcome(self.pod, view(self.pod, self.seen), self.now, self.memory)
        plan = self.plan()
        assert len({action.key for action in plan.actions}) == len(plan.actions), "one action per thing"
        for action in plan.actions:
            self.perform(action)
        self.tell()
        return plan

    def up(self) -> None:
        """Only the sandbox is made; what was planned with it is still on its way."""
        for action in self.plan().actions:
            if isinstance(action, CreateSandbox):
                self.perform(action)
        self.tell()

    def tell(self) -> None:
        self.status = pod_status(
            self.pod, self.seen, self.now, self.memory, host_ip="10.0.0.1", qos="BestEffort", engine="docker"
        )
        if self.report:
            document = msgspec.to_builtins(self.pod) | {"status": self.status}
            self.pod = msgspec.convert(document, Pod)

    def settle(self, limit: int = 60) -> None:
        for _ in range(limit):
            if not self.step().actions or self.finished:
                return
        raise AssertionError(f"does not settle: {self.plan().actions}")

    def perform(self, action: Action) -> None:
        self.log.append(action)
        match action:
            case CreateSandbox(attempt):
                running = [i for i in self.seen if i.is_sandbox and i.state == "running" and i.attempt == attempt]
                sandbox = running[0] if running else self.add("POD", attempt)
                self.memory.wired, self.memory.ip = sandbox.id, "10.244.0.5"
                self.memory.attempts = {**self.memory.attempts, "": attempt}
            case StartContainer(name, attempt, crashes):
                assert not any(i.name == name and i.state == "running" for i in self.seen), f"two of {name}"
                assert not any(i.name == name and i.attempt > attempt for i in self.seen), "attempts go up"
                for info in [i for i in self.seen if i.name == name and i.attempt == attempt]:
                    del self.infos[info.id]
                self.add(name, attempt, {LABEL_CRASHES: str(crashes), LABEL_SANDBOX: self.memory.wired})
                self.memory.attempts = {**self.memory.attempts, name: attempt}
            case StopContainer(id):
                self.exit(id, 143)
            case RemoveContainer(id):
                self.infos.pop(id, None)
            case Release():
                self.memory.released = True
            case Finish():
                assert not self.infos
                self.finished = True
        if self.pod.deleting and not self.memory.stopping_since:
            self.memory.stopping_since = self.now

    def add(self, name: str, attempt: int, labels: dict[str, str] | None = None, **more: Any) -> ContainerInfo:
        self.serial += 1
        info = ContainerInfo(
            id=f"c{self.serial}",
            pod_uid="u1",
            pod_name="web-0",
            pod_namespace="default",
            name=name,
            attempt=attempt,
            state=more.pop("state", "running"),
            created_at=self.now,
            started_at=self.now,
            labels=labels or {},
            image="app:1",
            image_id="sha256:1",
            hash=self.memory.hashes.get(name, ""),
            **more,
        )
        self.infos[info.id] = info
        return info

    def exit(self, id: str, code: int = 0, **more: Any) -> None:
        self.infos[id] = dataclasses.replace(
            self.infos[id], state="exited", exit_code=code, finished_at=self.now, **more
        )

    def find(self, name: str) -> ContainerInfo:
        """The newest attempt."""
        return max((i for i in self.seen if i.name == name), key=lambda i: i.attempt)

    def names(self, state: str = "running") -> list[str]:
        return sorted(i.name for i in self.seen if i.state == state)

    def change(self, **meta: Any) -> None:
        document = msgspec.to_builtins(self.pod)
        document["metadata"] |= meta
        self.pod = msgspec.convert(document, Pod)

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    def container(self, name: str) -> dict[str, Any]:
        every = self.status.get("initContainerStatuses", []) + self.status["containerStatuses"]
        return next(c for c in every if c["name"] == name)
