"""What goes on inside a container on Docker Engine: commands, attaching, logs, connections to its ports."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from minik8s.runtime.base import (
    EngineUnavailable,
    ExecResult,
    LogLine,
    NoSuchContainer,
    PortStream,
    RuntimeFailure,
    Streams,
)
from minik8s.runtime.cgroup import cgroup_of
from minik8s.runtime.docker_api import DockerApi, chunks, failure_of
from minik8s.runtime.docker_streams import RawStreams, Refused, close, log_lines, upgrade
from minik8s.runtime.netns import Port, connect_in

EXEC_OUTPUT_LIMIT = 16 << 10  # bytes that exec_sync keeps; the rest is read and dropped


class DockerStreams(DockerApi):
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
        exec_id = await self._create_exec(container_id, command, stdin=stdin, tty=tty, stdout=stdout, stderr=stderr)
        async with self._exec_streams(exec_id, tty=tty) as streams:
            yield streams

    async def _create_exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool, stdout: bool, stderr: bool
    ) -> str:
        attached = {"AttachStdin": stdin, "AttachStdout": stdout, "AttachStderr": stderr, "Tty": tty}
        made = await self.json("POST", f"containers/{container_id}/exec", body={"Cmd": list(command), **attached})
        return str(made["Id"])

    @asynccontextmanager
    async def _exec_streams(self, exec_id: str, *, tty: bool) -> AsyncIterator[Streams]:
        async def exit_code() -> int | None:
            return (await self._exec_ended(exec_id))["ExitCode"]  # type: ignore[no-any-return]

        resize = self._resizer(f"exec/{exec_id}")
        body = {"Detach": False, "Tty": tty}
        async with self._upgraded(f"exec/{exec_id}/start", body) as (reader, writer):
            yield RawStreams(reader, writer, framed=not tty, resize=resize, exit_code=exit_code)

    async def _exec_ended(self, exec_id: str) -> dict[str, Any]:
        """The exec's state once its process is gone, which the engine notices a moment after the output's end."""
        for pause in (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0):
            await asyncio.sleep(pause)
            state: dict[str, Any] = await self.json("GET", f"exec/{exec_id}/json")
            if not state["Running"] and state["ExitCode"] is not None:
                break
        return state

    def _resizer(self, path: str) -> Callable[[int, int], Awaitable[None]]:
        async def resize(width: int, height: int) -> None:
            for _ in range(10):  # the first size often comes before the process has its terminal
                with suppress(RuntimeFailure):
                    await self.json("POST", f"{path}/resize", {"w": str(width), "h": str(height)})
                    return
                await asyncio.sleep(0.02)

        return resize

    @asynccontextmanager
    async def attach(
        self, container_id: str, *, stdin: bool, tty: bool, stdout: bool = True, stderr: bool = True
    ) -> AsyncIterator[Streams]:
        async def no_exit_code() -> int | None:
            return None

        wanted = {"stream": True, "stdin": stdin, "stdout": stdout, "stderr": stderr}
        query = "&".join(f"{name}=1" for name, on in wanted.items() if on)
        resize = self._resizer(f"containers/{container_id}")
        async with self._upgraded(f"containers/{container_id}/attach?{query}", {}) as (reader, writer):
            yield RawStreams(reader, writer, framed=not tty, resize=resize, exit_code=no_exit_code)

    @asynccontextmanager
    async def _upgraded(
        self, path: str, body: object
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            reader, writer = await upgrade(self.address, f"/{self.version}/{path}", body)
        except Refused as error:
            raise failure_of(error.status, error.message) from error
        except OSError as error:
            raise EngineUnavailable(f"Docker Engine does not answer: {error}") from error
        try:
            yield reader, writer
        finally:
            await close(writer)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        exec_id = await self._create_exec(container_id, command, stdin=False, tty=False, stdout=True, stderr=True)
        output = bytearray()
        try:
            async with asyncio.timeout(timeout):
                async with self._exec_streams(exec_id, tty=False) as streams:
                    while (piece := await streams.read()) is not None:
                        output += piece[1][: EXEC_OUTPUT_LIMIT - len(output)]
                    code = await streams.exit_code()
        except TimeoutError:
            await self._kill_exec(container_id, exec_id)
            raise TimeoutError(f"command {' '.join(command)!r} timed out after {timeout:g}s") from None
        return ExecResult(-1 if code is None else code, bytes(output))

    async def _kill_exec(self, container_id: str, exec_id: str) -> None:
        """Docker cannot end an exec. Its process is ours to kill if it is on this host, in that container's group."""
        with suppress(RuntimeFailure, OSError):
            pid = (await self.json("GET", f"exec/{exec_id}/json"))["Pid"]
            if self.address.path and pid and container_id in cgroup_of(pid):
                os.kill(pid, signal.SIGKILL)

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
        tty = (await self.json("GET", f"containers/{container_id}/json"))["Config"]["Tty"]
        query = {
            "stdout": "1",
            "stderr": "1",
            "follow": str(int(follow)),
            "timestamps": str(int(timestamps)),
            "tail": "all" if tail is None else str(tail),
            "since": f"{since:.9f}" if since else "0",
        }
        async with self.request("GET", f"containers/{container_id}/logs", query) as answer:
            yield log_lines(chunks(answer), framed=not tty, timestamps=timestamps)

    @asynccontextmanager
    async def dial(self, sandbox_id: str, port: int) -> AsyncIterator[PortStream]:
        pid = (await self.json("GET", f"containers/{sandbox_id}/json"))["State"]["Pid"]
        if not pid:
            raise NoSuchContainer(f"sandbox {sandbox_id} is not running")
        try:
            reader, writer = await connect_in(pid, port)
        except FileNotFoundError as error:
            raise NoSuchContainer(f"process {pid} of sandbox {sandbox_id} is gone") from error
        try:
            yield Port(reader, writer)
        finally:
            await close(writer)
