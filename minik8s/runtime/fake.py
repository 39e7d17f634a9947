"""A container engine without containers: for tests, demonstrations, and simulating many nodes in one process.

It keeps the same state and makes the same events as a real engine, and fails when it is told to. Containers do what
their command says in a few words (`fake_program.py`); `exit`, `oom_kill` and `write_log` move them by hand. A container
costs one object, and one timer if its program ends by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from minik8s.clock import Clock, rfc3339_micro, system_clock
from minik8s.runtime.base import (
    LABEL_IMAGE,
    ContainerInfo,
    ContainerSpec,
    CreateFailed,
    EngineInfo,
    EngineUnavailable,
    ExecResult,
    ImageInfo,
    ImagePullFailed,
    LogLine,
    NoSuchContainer,
    PortStream,
    ProcessStats,
    RegistryAuth,
    RuntimeEvent,
    RuntimeFailure,
    Sandbox,
    SandboxSpec,
    StartFailed,
    Streams,
)
from minik8s.runtime.fake_program import Program, program
from minik8s.runtime.reference import parse_reference

SIGKILLED, TERMINATED = 137, 143
_STOPPED = "the fake engine has been stopped"


@dataclass(slots=True)
class _Container:
    info: ContainerInfo
    spec: ContainerSpec | SandboxSpec
    program: Program = Program(None)
    log: list[tuple[float, int, bytes]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    waiting: list[asyncio.Event] = field(default_factory=list)  # who wants to hear of a line or of the end

    def wake(self) -> None:
        for event in self.waiting:
            event.set()


class FakeRuntime:
    """`images` are present from the start; None: every image is.

    Pulls take `pull_seconds` and succeed, but for `fake/missing` and what `missing_images` holds.
    """

    def __init__(
        self, *, images: Iterable[str] | None = None, pull_seconds: float = 0, clock: Clock = system_clock
    ) -> None:
        self._clock = clock
        self._containers: dict[str, _Container] = {}
        self._by_pod: dict[str, set[str]] = defaultdict(set)
        self._listeners: list[asyncio.Queue[RuntimeEvent]] = []
        self._failures: dict[str, deque[Exception]] = defaultdict(deque)
        self._ports: dict[tuple[str, int], Callable[[bytes], bytes]] = {}
        self._exec: dict[str, ExecResult] = {}
        self._images: dict[str, ImageInfo] = {}
        self._any_image = images is None
        self._down = False
        self._made = 0
        self.pull_seconds = pull_seconds
        self.missing_images: set[str] = set()
        self.usage: dict[str, tuple[float, int]] = {}  # container id → (cores, bytes) that stats() tells
        for reference in images or ():
            self.add_image(reference)

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

    def write_log(self, container_id: str, text: str, *, stream: int = 1) -> None:
        self._write(self._get(container_id), stream, text.encode() + b"\n")

    def answer_exec(self, container_id: str, result: ExecResult | None) -> None:
        """What every exec in it answers from now on, such as a failing probe; None = what the command says."""
        if result is None:
            self._exec.pop(container_id, None)
        else:
            self._exec[container_id] = result

    def listen(self, sandbox_id: str, port: int, answer: Callable[[bytes], bytes]) -> None:
        """`dial` of this port gets `answer(what it wrote)`; ports that nobody listens on refuse."""
        self._ports[sandbox_id, port] = answer

    def add_image(self, reference: str) -> ImageInfo:
        name = str(parse_reference(reference))
        image = ImageInfo(f"sha256:{hashlib.sha256(name.encode()).hexdigest()}", (name,), 5 << 20)
        self._images[image.id] = image
        return image

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

    def _get(self, container_id: str) -> _Container:
        container = self._containers.get(container_id)
        if container is None:
            raise NoSuchContainer(f"No such container: {container_id}")
        return container

    async def containers(self, pod_uid: str | None = None) -> list[ContainerInfo]:
        self._check("containers")
        ids: Iterable[str] = self._containers if pod_uid is None else self._by_pod.get(pod_uid, ())
        return [self._containers[each].info for each in ids]

    async def create_sandbox(self, spec: SandboxSpec) -> Sandbox:
        self._check("create_sandbox")
        existing = self._find(spec, "POD")
        if existing is not None and existing.info.state == "running":
            return Sandbox(existing.info.id, 0, spec.attempt)
        container = self._add(spec, "POD", "")
        self._run(container)
        return Sandbox(container.info.id, 0, spec.attempt)

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

    def _find(self, spec: ContainerSpec | SandboxSpec, name: str) -> _Container | None:
        same_pod = (self._containers[each] for each in self._by_pod.get(spec.pod_uid, ()))
        return next((c for c in same_pod if (c.info.name, c.info.attempt) == (name, spec.attempt)), None)

    def _add(self, spec: ContainerSpec | SandboxSpec, name: str, image_id: str) -> _Container:
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
        container = self._containers[info.id] = _Container(info, spec)
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

    def _run(self, container: _Container) -> None:
        container.info = replace(container.info, state="running", started_at=self._clock(), exit_code=0, finished_at=0)
        self._emit(container, "start")
        for stream, line in container.program.output:
            self._write(container, stream, line)
        if container.program.seconds is not None:
            loop, code = asyncio.get_running_loop(), container.program.code
            container.timer = loop.call_later(container.program.seconds, self._end, container, code)

    def _end(self, container: _Container, code: int) -> None:
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

    async def _ended(self, container: _Container, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while container.info.state == "running":
                    await self._news(container)
        except TimeoutError:
            return

    async def _news(self, container: _Container) -> None:
        event = asyncio.Event()
        container.waiting.append(event)
        try:
            await event.wait()
        finally:
            container.waiting.remove(event)

    async def remove(self, container_id: str) -> None:
        self._check("remove")
        if (container := self._containers.get(container_id)) is not None:
            self._drop(container)

    def _drop(self, container: _Container) -> None:
        self._end(container, SIGKILLED)
        info = container.info
        del self._containers[info.id]
        self._by_pod[info.pod_uid].discard(info.id)
        if not self._by_pod[info.pod_uid]:
            del self._by_pod[info.pod_uid]
        self._exec.pop(info.id, None)
        self.usage.pop(info.id, None)
        self._emit(container, "destroy")

    def _emit(self, container: _Container, action: Literal["create", "start", "die", "oom", "destroy"]) -> None:
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

    # -- streams

    def _write(self, container: _Container, stream: int, line: bytes) -> None:
        container.log.append((self._clock(), stream, line))
        container.wake()

    def _running(self, container_id: str) -> _Container:
        container = self._get(container_id)
        if container.info.state != "running":
            raise RuntimeFailure(f"Container {container_id} is not running")
        return container

    def _answer(self, container: _Container, command: Sequence[str]) -> Program:
        if (fixed := self._exec.get(container.info.id)) is not None:
            return Program(0, fixed.exit_code, ((1, fixed.output),) if fixed.output else ())
        spec = container.spec
        env, sandbox = (dict(spec.env), spec.sandbox) if isinstance(spec, ContainerSpec) else ({}, spec)
        found = program(command, env, sandbox.hostname)
        return found if found.seconds is not None or found.echoes else found._replace(seconds=0.0)

    @asynccontextmanager
    async def exec(
        self,
        container_id: str,
        command: Sequence[str],
        *,
        stdin: bool,
        tty: bool,
        stdout: bool = True,
        stderr: bool = True,
    ) -> AsyncIterator[Streams]:
        self._check("exec")
        yield _ExecStreams(self._answer(self._running(container_id), command), stdin=stdin)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        self._check("exec_sync")
        found = self._answer(self._running(container_id), command)
        if (found.seconds or 0) > timeout:
            await asyncio.sleep(timeout)
            raise TimeoutError(f"command {' '.join(command)!r} timed out after {timeout:g}s")
        await asyncio.sleep(found.seconds or 0)
        return ExecResult(found.code, b"".join(line for _, line in found.output))

    @asynccontextmanager
    async def attach(
        self, container_id: str, *, stdin: bool, tty: bool, stdout: bool = True, stderr: bool = True
    ) -> AsyncIterator[Streams]:
        self._check("attach")
        container = self._running(container_id)
        lines = self._follow(container, follow=True, first=len(container.log))
        try:
            yield _AttachStreams(lines, lambda data: self._input(container, data))
        finally:
            await lines.aclose()

    def _input(self, container: _Container, data: bytes) -> None:
        if container.program.echoes:
            self._write(container, 1, data)

    @asynccontextmanager
    async def logs(
        self,
        container_id: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float = 0,
        timestamps: bool = False,
    ) -> AsyncIterator[AsyncIterator[LogLine]]:
        self._check("logs")
        container = self._get(container_id)
        first = next((i for i, (at, _, _) in enumerate(container.log) if at >= since), len(container.log))
        if tail is not None:
            first = max(first, len(container.log) - tail)
        lines = self._follow(container, follow=follow, first=first, timestamps=timestamps)
        try:
            yield lines
        finally:
            await lines.aclose()

    async def _follow(
        self, container: _Container, *, follow: bool, first: int, timestamps: bool = False
    ) -> AsyncGenerator[LogLine, None]:
        while True:
            while first < len(container.log):
                at, stream, line = container.log[first]
                first += 1
                yield LogLine(stream, _stamp(at) + line if timestamps else line)
            if not follow or container.info.state == "exited":
                return
            await self._news(container)

    @asynccontextmanager
    async def dial(self, sandbox_id: str, port: int) -> AsyncIterator[PortStream]:
        self._check("dial")
        self._get(sandbox_id)
        if (sandbox_id, port) not in self._ports:
            raise ConnectionRefusedError(f"connect to localhost:{port}: connection refused")
        yield _FakePort(self._ports[sandbox_id, port])

    async def stats(self, container_id: str) -> ProcessStats | None:
        self._check("stats")
        info = self._get(container_id).info
        if info.state != "running":
            return None
        cores, memory = self.usage.get(container_id, (0.001, 1 << 20))
        return ProcessStats(cores * (self._clock() - info.started_at), memory)

    # -- images

    async def image(self, reference: str) -> ImageInfo | None:
        self._check("image")
        if reference in self._images:
            return self._images[reference]
        name = str(parse_reference(reference))
        for image in self._images.values():
            if name in image.names:
                return image
        return self.add_image(reference) if self._any_image and not self._is_missing(reference) else None

    def _is_missing(self, reference: str) -> bool:
        return reference in self.missing_images or parse_reference(reference).name.endswith("fake/missing")

    async def images(self) -> list[ImageInfo]:
        self._check("images")
        return list(self._images.values())

    async def pull(self, reference: str, auth: Sequence[RegistryAuth] = ()) -> ImageInfo:
        self._check("pull")
        parsed = parse_reference(reference)
        await asyncio.sleep(self.pull_seconds)
        if self._is_missing(reference):
            raise ImagePullFailed(f"manifest for {parsed} not found: manifest unknown: manifest unknown")
        return self.add_image(reference)

    async def remove_image(self, image_id: str) -> int:
        self._check("remove_image")
        if any(container.info.image_id == image_id for container in self._containers.values()):
            return 0
        image = self._images.pop(image_id, None)
        return image.size if image else 0


def _stamp(at: float) -> bytes:
    """Docker's: nanoseconds, of which a float holds only the micros."""
    return f"{rfc3339_micro(at)[:-1]}000Z ".encode()


async def _drain(queue: asyncio.Queue[RuntimeEvent]) -> AsyncGenerator[RuntimeEvent, None]:
    while True:
        yield await queue.get()


class _ExecStreams:
    def __init__(self, what: Program, *, stdin: bool) -> None:
        self._program = what
        self._output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._ends_by_itself = not (what.echoes and stdin)
        for piece in what.output:
            self._output.put_nowait(piece)

    async def read(self) -> tuple[int, bytes] | None:
        if not self._output.empty() or not self._ends_by_itself:
            return await self._output.get()
        await asyncio.sleep(self._program.seconds or 0)
        return None

    async def write(self, data: bytes) -> None:
        if self._program.echoes:
            self._output.put_nowait((1, data))

    async def close_stdin(self) -> None:
        self._output.put_nowait(None)

    async def resize(self, width: int, height: int) -> None:
        """There is no terminal."""

    async def exit_code(self) -> int | None:
        return self._program.code


class _AttachStreams:
    def __init__(self, lines: AsyncGenerator[LogLine, None], write: Callable[[bytes], None]) -> None:
        self._lines = lines
        self._write = write

    async def read(self) -> tuple[int, bytes] | None:
        async for line in self._lines:
            return line.stream, line.data
        return None

    async def write(self, data: bytes) -> None:
        self._write(data)

    async def close_stdin(self) -> None:
        """Nobody waits for it."""

    async def resize(self, width: int, height: int) -> None:
        """There is no terminal."""

    async def exit_code(self) -> int | None:
        return None


class _FakePort:
    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._replies: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self._replies.get()

    async def write(self, data: bytes) -> None:
        self._replies.put_nowait(self._answer(data))

    async def close_write(self) -> None:
        self._replies.put_nowait(b"")
