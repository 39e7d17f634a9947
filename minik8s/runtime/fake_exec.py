"""What goes on inside a fake container: its log, commands, attaching, ports; all as its program says."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from minik8s.clock import Clock, rfc3339_micro
from minik8s.runtime.base import (
    ContainerInfo,
    ContainerSpec,
    ExecResult,
    LogLine,
    PortStream,
    RuntimeFailure,
    SandboxSpec,
    Streams,
)
from minik8s.runtime.fake_program import Program, program


@dataclass(slots=True)
class FakeContainer:
    info: ContainerInfo
    spec: ContainerSpec | SandboxSpec
    program: Program = Program(None)
    log: list[tuple[float, int, bytes]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    waiting: list[asyncio.Event] = field(default_factory=list)  # who wants to hear of a line or of the end

    def wake(self) -> None:
        for event in self.waiting:
            event.set()


class FakeStreams(ABC):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ports: dict[tuple[str, int], Callable[[bytes], bytes]] = {}
        self._exec: dict[str, ExecResult] = {}

    @abstractmethod
    def _check(self, method: str) -> None:
        """Raise what the engine is to fail with."""

    @abstractmethod
    def _get(self, container_id: str) -> FakeContainer:
        """NoSuchContainer if there is none."""

    # -- what tests and demonstrations turn

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

    # -- streams

    def _write(self, container: FakeContainer, stream: int, line: bytes) -> None:
        container.log.append((self._clock(), stream, line))
        container.wake()

    def _running(self, container_id: str) -> FakeContainer:
        container = self._get(container_id)
        if container.info.state != "running":
            raise RuntimeFailure(f"Container {container_id} is not running")
        return container

    def _answer(self, container: FakeContainer, command: Sequence[str]) -> Program:
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

    def _input(self, container: FakeContainer, data: bytes) -> None:
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
        self, container: FakeContainer, *, follow: bool, first: int, timestamps: bool = False
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

    async def _news(self, container: FakeContainer) -> None:
        event = asyncio.Event()
        container.waiting.append(event)
        try:
            await event.wait()
        finally:
            container.waiting.remove(event)


def _stamp(at: float) -> bytes:
    """Docker's: nanoseconds, of which a float holds only the micros."""
    return f"{rfc3339_micro(at)[:-1]}000Z ".encode()


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
