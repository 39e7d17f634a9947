"""A container engine without containers: for tests, demonstrations, and simulating many nodes in one process.

It keeps the same state and makes the same events as a real engine, and fails when it is told to. Containers do what
their command says in a few words (`fake_program.py`); `exit`, `oom_kill` and `write_log` move them by hand. A container
costs one object, and one timer if its program ends by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

from minik8s.clock import Clock, system_clock
from minik8s.runtime.base import (
    LABEL_IMAGE,
    ContainerInfo,
    ContainerSpec,
    CreateFailed,
    EngineInfo,
    EngineUnavailable,
    LinkStats,
    NoSuchContainer,
    ProcessStats,
    RuntimeEvent,
    RuntimeFailure,
    SandboxSpec,
    StartFailed,
)
from minik8s.runtime.fake_exec import FakeContainer, FakeStreams
from minik8s.runtime.fake_inventory import FakeInventory
from minik8s.runtime.fake_program import program

SIGKILLED, TERMINATED = 137, 143
_STOPPED = "the fake engine has been stopped"


class FakeRuntime(FakeInventory, FakeStreams):
    """`images`, `pull_seconds`: see `FakeImages`."""

    def __init__(
        self, *, images: Iterable[str] | None = None, pull_seconds: float = 0, clock: Clock = system_clock
    ) -> None:
        self._containers: dict[str, FakeContainer] = {}
        self._by_pod: dict[str, set[str]] = defaultdict(set)
        self._listeners: list[asyncio.Queue[RuntimeEvent]] = []
        self._failures: dict[str, deque[Exception]] = defaultdict(deque)
        self._down = False
        self._made = 0
        self.usage: dict[str, tuple[float, int]] = {}  # container id → (cores, bytes) that stats() tells
        FakeStreams.__init__(self, clock)
        FakeInventory.__init__(self, images, pull_seconds)

    async def __aenter__(self) -> FakeRuntime:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for container in self._containers.values():
            if container.timer is not None:
                container.timer.cancel()

    async def info(self) -> EngineInfo:
        self._check("info")
        return EngineInfo("fake", "1.0.0", "1.41", "cgroupfs", "")

    # -- what tests and demonstrations turn

    def fail_next(self, method: str, error: Exception, *, times: int = 1) -> None:
        """The next calls of this method raise that error instead of doing anything."""
        self._failures[method].extend([error] * times)

    def exit(self, container_id: str, code: int) -> None:
        """Its program ends now."""
        self._end(self._get(container_id), code)

    def oom_kill(self, container_id: str) -> None:
        container = self._get(container_id)
        self._emit(container, "oom")
        container.info = replace(container.info, oom_killed=True)
        self._end(container, SIGKILLED)

    def stop_engine(self) -> None:
        """Nothing is answered until `start_engine`; containers go on, as with live-restore."""
        self._down = True

    def start_engine(self) -> None:
        self._down = False
        for listener in self._listeners:
            listener.put_nowait(RuntimeEvent("", "", "relist"))

    def _check(self, method: str) -> None:
        if self._down:
            raise EngineUnavailable(_STOPPED)
        if self._failures[method]:
            raise self._failures[method].popleft()

    # -- containers

    def _get(self, container_id: str) -> FakeContainer:
        container = self._containers.get(container_id)
        if container is None:
            raise NoSuchContainer(f"No such container: {container_id}")
        return container

    async def containers(self, pod_uid: str | None = None) -> list[ContainerInfo]:
        self._check("containers")
        ids: Iterable[str] = self._containers if pod_uid is None else self._by_pod.get(pod_uid, ())
        return [self._containers[each].info for each in ids]

    async def inspect(self, container_ids: Sequence[str]) -> list[ContainerInfo]:
        self._check("inspect")
        return [self._containers[each].info for each in container_ids if each in self._containers]

    async def create_sandbox(self, spec: SandboxSpec) -> str:
        self._check("create_sandbox")
        existing = self._find(spec, "POD")
        if existing is not None and existing.info.state == "running":
            return existing.info.id
        return self._add(spec, "POD", "").info.id

    async def start_sandbox(self, sandbox_id: str) -> int:
        container = self._get(sandbox_id)
        try:
            self._check("start_sandbox")
        except RuntimeFailure:
            self._drop(container)
            raise
        if container.info.state != "running":
            self._run(container)
        return 0

    def reductions(self, spec: ContainerSpec) -> tuple[str, ...]:
        return ()

    async def create_container(self, spec: ContainerSpec) -> str:
        self._check("create_container")
        image = await self.image(spec.image)
        if image is None:
            raise CreateFailed(f"No such image: {spec.image}")
        self._get(spec.sandbox_id)
        reference = spec.labels.get(LABEL_IMAGE, spec.image)
        container = self._add(spec, spec.name, image.id)
        container.info = replace(container.info, hash=spec.hash, image=reference)
        words = (*spec.command, *spec.args)
        container.program = program(words, dict(spec.env), spec.sandbox.hostname, reference)
        return container.info.id

    def _all(self) -> Iterable[FakeContainer]:
        return self._containers.values()

    def _uses(self, image_id: str) -> bool:
        return any(container.info.image_id == image_id for container in self._containers.values())

    def _find(self, spec: ContainerSpec | SandboxSpec, name: str) -> FakeContainer | None:
        same_pod = (self._containers[each] for each in self._by_pod.get(spec.pod_uid, ()))
        return next((c for c in same_pod if (c.info.name, c.info.attempt) == (name, spec.attempt)), None)

    def _add(self, spec: ContainerSpec | SandboxSpec, name: str, image_id: str) -> FakeContainer:
        if (old := self._find(spec, name)) is not None:
            self._drop(old)
        self._made += 1
        label = f"{spec.pod_uid}/{name}/{spec.attempt}/{self._made}"
        sandbox = spec if isinstance(spec, SandboxSpec) else spec.sandbox
        info = ContainerInfo(
            id=hashlib.sha256(label.encode()).hexdigest(),
            pod_uid=spec.pod_uid,
            pod_name=spec.pod_name,
            pod_namespace=spec.pod_namespace,
            name=name,
            attempt=spec.attempt,
            state="created",
            created_at=self._clock(),
            image_id=image_id,
            host_network=sandbox.host_network,
            labels=spec.labels,
        )
        container = self._containers[info.id] = FakeContainer(info, spec)
        self._by_pod[spec.pod_uid].add(info.id)
        self._emit(container, "create")
        return container

    async def start(self, container_id: str) -> None:
        container = self._get(container_id)
        try:
            self._check("start")
        except StartFailed as error:  # as with a real engine it stays, with the engine's words
            now = container.info.created_at
            container.info = replace(
                container.info, state="exited", exit_code=127, error=str(error), started_at=now, finished_at=now
            )
            raise
        if container.info.state != "running":
            self._run(container)

    def _run(self, container: FakeContainer) -> None:
        container.info = replace(container.info, state="running", started_at=self._clock(), exit_code=0, finished_at=0)
        self._emit(container, "start")
        for stream, line in container.program.output:
            self._write(container, stream, line)
        if container.program.seconds is not None:
            loop, code = asyncio.get_running_loop(), container.program.code
            container.timer = loop.call_later(container.program.seconds, self._end, container, code)

    def _end(self, container: FakeContainer, code: int) -> None:
        if container.timer is not None:
            container.timer.cancel()
            container.timer = None
        if container.info.state == "running":
            container.info = replace(container.info, state="exited", exit_code=code, finished_at=self._clock())
            container.wake()
            self._emit(container, "die")

    async def stop(self, container_id: str, grace: float) -> None:
        container = self._get(container_id)
        self._check("stop")
        if grace > 0 and container.program.ignores_term:
            await self._ended(container, grace)
        kills = grace <= 0 or container.program.ignores_term
        self._end(container, SIGKILLED if kills else 0 if container.info.is_sandbox else TERMINATED)

    async def _ended(self, container: FakeContainer, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while container.info.state == "running":
                    await self._news(container)
        except TimeoutError:
            return

    async def remove(self, container_id: str) -> None:
        self._check("remove")
        if (container := self._containers.get(container_id)) is not None:
            self._drop(container)

    def _drop(self, container: FakeContainer) -> None:
        self._end(container, SIGKILLED)
        info = container.info
        del self._containers[info.id]
        self._by_pod[info.pod_uid].discard(info.id)
        if not self._by_pod[info.pod_uid]:
            del self._by_pod[info.pod_uid]
        self._exec.pop(info.id, None)
        self.usage.pop(info.id, None)
        self._emit(container, "destroy")

    def _emit(self, container: FakeContainer, action: Literal["create", "start", "die", "oom", "destroy"]) -> None:
        for listener in self._listeners:
            listener.put_nowait(RuntimeEvent(container.info.pod_uid, container.info.id, action))

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._listeners.append(queue)
        stream = _drain(queue)
        try:
            yield stream
        finally:
            self._listeners.remove(queue)
            await stream.aclose()

    async def stats(self, container_id: str) -> ProcessStats | None:
        self._check("stats")
        info = self._get(container_id).info
        if info.state != "running":
            return None
        cores, memory = self.usage.get(container_id, (0.001, 1 << 20))
        seconds = cores * (self._clock() - info.started_at)
        return ProcessStats(
            seconds, memory, user_seconds=seconds, memory_usage=memory, rss=memory, processes=1, threads=1
        )

    def links(self, stats: ProcessStats) -> tuple[LinkStats, ...]:
        return (LinkStats("eth0"),)


async def _drain(queue: asyncio.Queue[RuntimeEvent]) -> AsyncGenerator[RuntimeEvent, None]:
    while True:
        yield await queue.get()
