"""Pods' containers on Docker Engine: the one file that speaks to it.

Decisions are elsewhere (`spec.py`, `docker_json.py`); this performs them. Nothing is remembered that the engine does
not know: an agent that was killed finds everything again by names and labels. Foreign errors end in `_translated`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
import secrets
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError

from minik8s.aio import background, backoff
from minik8s.runtime.base import (
    LABEL_MANAGED,
    ContainerConfigInvalid,
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
from minik8s.runtime.cgroup import CgroupFiles, cgroup_files, read_stats
from minik8s.runtime.docker_json import (
    WARM_PREFIX,
    Identity,
    Json,
    Limits,
    container_info,
    docker_create,
    event_identity,
    identity,
    image_references,
    is_poolable,
    warm_sandbox,
)
from minik8s.runtime.docker_streams import RawStreams, Refused, close, json_lines, log_lines, parse_address, upgrade
from minik8s.runtime.linux import own_limits
from minik8s.runtime.netns import Port, connect_in
from minik8s.runtime.pause import image_name, layer
from minik8s.runtime.reference import parse_reference
from minik8s.runtime.warm import WarmPool

DEFAULT_HOST = "unix:///var/run/docker.sock"
EXEC_OUTPUT_LIMIT = 16 << 10  # bytes that exec_sync keeps; the rest is read and dropped
_ACTIONS = ("create", "start", "die", "oom", "destroy")
_MISSING = re.compile("[Nn]o such (container|image|exec)")
_UNREACHABLE = 900  # aiodocker's status for 'no connection'


class DockerRuntime:
    """`node_uid` marks what belongs to this agent; `warm` sandboxes are kept ready for pods that can use them."""

    def __init__(self, node_uid: str, *, docker_host: str = "", warm: int = 0, limits: Limits | None = None) -> None:
        self._node_uid = node_uid
        self._host = docker_host or os.environ.get("DOCKER_HOST", "") or DEFAULT_HOST
        self._address = parse_address(self._host)
        self.limits = limits if limits is not None else own_limits()
        self._heavy = asyncio.Semaphore(4 * (os.cpu_count() or 1))
        self._pool = WarmPool(warm, self._make_warm)
        self._warm = warm
        self._stack = AsyncExitStack()
        self._cgroups: dict[str, CgroupFiles] = {}  # of running containers, by id; only saves an inspect
        self._architecture = "amd64"

    async def __aenter__(self) -> DockerRuntime:
        async with AsyncExitStack() as stack:
            self._docker = await stack.enter_async_context(self._connect())
            with _translated():
                version = await self._docker.version()
            self._docker.api_version = _oldest_spoken(version)
            self._architecture = version["Arch"]
            await self._ensure_pause_image()
            if self._warm:
                self._pool.adopt(await self._warm_left_over())
                await stack.enter_async_context(background(self._pool.run()))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Docker]:
        # No limit: every followed log, wait and event stream holds a connection of its own.
        connector = (
            aiohttp.UnixConnector(self._address.path, limit=0) if self._address.path else aiohttp.TCPConnector(limit=0)
        )
        async with connector, Docker(url=self._address.url, connector=connector) as docker:
            yield docker

    async def info(self) -> EngineInfo:
        with _translated():
            version, system = await self._docker.version(), await self._docker.system.info()
        driver, root = system["CgroupDriver"], system["DockerRootDir"]
        return EngineInfo("docker", version["Version"], version["ApiVersion"], driver, root)

    # -- containers

    async def containers(self, pod_uid: str | None = None) -> list[ContainerInfo]:
        listed = await self._listed("" if pod_uid is None else f"^/k8s_.*_{pod_uid}_[0-9]+$")
        infos = await asyncio.gather(*(self._inspect(c.id) for c in listed if not _is_warm(c["Names"])))
        known = (container_info(answer) for answer in infos if answer is not None)
        return [info for info in known if info is not None and pod_uid in (None, info.pod_uid)]

    async def _inspect(self, container_id: str) -> dict[str, Any] | None:
        async with self._heavy:
            with suppress(NoSuchContainer), _translated():
                return await self._docker.containers.container(container_id).show()
        return None

    async def _show(self, container_id: str) -> dict[str, Any]:
        answer = await self._inspect(container_id)
        if answer is None:
            raise NoSuchContainer(f"No such container: {container_id}")
        return answer

    async def create_sandbox(self, spec: SandboxSpec) -> Sandbox:
        if is_poolable(spec) and (claimed := await self._claim(spec)):
            return claimed
        body = {**docker_create(spec, self._node_uid, self.limits), "Image": self._pause}
        existing = await self._running_sandbox(identity(spec))
        if existing:
            return existing
        async with self._heavy:
            container_id = await self._create(body, str(identity(spec)))
            try:
                with _translated(CreateFailed):
                    await self._docker.containers.container(container_id).start()
            except RuntimeFailure:
                await self._remove(container_id)
                raise
        return Sandbox(container_id, (await self._show(container_id))["State"]["Pid"], spec.attempt)

    async def _running_sandbox(self, who: Identity) -> Sandbox | None:
        answer = await self._inspect(str(who))
        if answer is None or not answer["State"]["Running"]:
            return None
        return Sandbox(answer["Id"], answer["State"]["Pid"], who.attempt)

    async def create_container(self, spec: ContainerSpec) -> str:
        profile = await _read_profile(spec.seccomp)
        async with self._heavy:
            return await self._create(
                docker_create(spec, self._node_uid, self.limits, seccomp=profile), str(identity(spec))
            )

    async def _create(self, body: dict[str, Any], name: str) -> str:
        """Create; what has the name already is replaced, a pause image that somebody pruned is made again."""
        for attempt in range(3):
            try:
                return (await self._docker.containers.create(body, name=name)).id
            except DockerError as error:
                if error.status == 409 and attempt < 2:
                    await self._remove(name)
                elif error.status == 404 and body["Image"] == self._pause and attempt < 2:
                    await self._ensure_pause_image()
                else:
                    raise _failure(error, CreateFailed, missing=CreateFailed) from error
            except (aiohttp.ClientError, OSError) as error:
                raise EngineUnavailable(f"Docker Engine at {self._host}: {error}") from error
        raise AssertionError("unreachable")

    async def start(self, container_id: str) -> None:
        async with self._heavy:
            with _translated(StartFailed):
                await self._docker.containers.container(container_id).start()

    async def stop(self, container_id: str, grace: float) -> None:
        container = self._docker.containers.container(container_id)
        with _translated():
            if grace > 0:
                await container.stop(t=math.ceil(grace))
                return
            try:
                await container.kill(signal="SIGKILL")
            except DockerError as error:
                if error.status != 409:  # 409: it does not run
                    raise
                return
            await container.wait()

    async def remove(self, container_id: str) -> None:
        async with self._heavy:
            await self._remove(container_id)

    async def _remove(self, container_id: str) -> None:
        self._cgroups.pop(container_id, None)
        container = self._docker.containers.container(container_id)
        with suppress(NoSuchContainer), _translated():
            try:
                await container.delete(force=True, v=True)
            except DockerError as error:
                if error.status != 409:  # 409: somebody else is removing it
                    raise
                await container.wait(condition="removed")

    async def names(self) -> list[str]:
        """Names of all that this agent has made on the engine, warm sandboxes included; for `reset`."""
        return sorted(name.removeprefix("/") for c in await self._listed() for name in c["Names"])

    async def remove_all(self) -> None:
        """Remove all that `names` tells of, and the pause image if no other agent uses it."""
        async with asyncio.TaskGroup() as tasks:
            for container in await self._listed():
                tasks.create_task(self.remove(container.id))
        await self.remove_image(self._pause)

    async def _listed(self, name: str = "") -> list[Any]:
        """This agent's containers, running or not, whose name fits a pattern."""
        filters = {"label": [f"{LABEL_MANAGED}={self._node_uid}"]} | ({"name": [name]} if name else {})
        with _translated():
            return await self._docker.containers.list(all=True, filters=json.dumps(filters))

    # -- sandboxes: the pause image and the pool

    @property
    def _pause(self) -> str:
        return image_name(self._architecture)

    async def _ensure_pause_image(self) -> None:
        if await self.image(self._pause) is not None:
            return
        repository, tag = self._pause.split(":")
        query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": 'ENTRYPOINT ["/pause"]'}
        content = {"Content-Type": "application/x-tar"}
        with _translated():
            async with self._request("POST", "images/create", query, data=layer(self._architecture), headers=content):
                pass

    async def _make_warm(self) -> str:
        body = {**warm_sandbox(self._node_uid, self.limits), "Image": self._pause}
        async with self._heavy:
            container_id = await self._create(body, f"{WARM_PREFIX}{secrets.token_hex(8)}")
            with _translated(CreateFailed):
                await self._docker.containers.container(container_id).start()
        return container_id

    async def _claim(self, spec: SandboxSpec) -> Sandbox | None:
        """A warm sandbox under the pod's name; None if there is none, or the pod has one already."""
        while (container_id := self._pool.take()) is not None:
            answer = await self._inspect(container_id)
            if answer is None or not answer["State"]["Running"]:
                await self._remove(container_id)  # it died with a restart of the engine
                continue
            try:
                with _translated():
                    await self._docker.containers.container(container_id).rename(str(identity(spec)))
            except NoSuchContainer:
                continue
            except RuntimeFailure:
                self._pool.adopt([container_id])
                return None
            return Sandbox(container_id, answer["State"]["Pid"], spec.attempt)
        return None

    async def _warm_left_over(self) -> list[str]:
        listed = await self._listed(f"^/{WARM_PREFIX}")
        for dead in (c for c in listed if c["State"] != "running"):
            await self._remove(dead.id)
        return [c.id for c in listed if c["State"] == "running"]

    # -- events

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
        stream = self._events(time.time_ns())
        try:
            yield stream
        finally:
            await stream.aclose()

    async def _events(self, since: int) -> AsyncGenerator[RuntimeEvent, None]:
        """What happens after `since` (Unix nanoseconds). The engine keeps few old events: `relist` after a break."""
        filters = json.dumps({
            "type": ["container"], "event": list(_ACTIONS), "label": [f"{LABEL_MANAGED}={self._node_uid}"]
        })  # fmt: skip
        delays, broken = backoff(), False
        while True:
            with suppress(EngineUnavailable):
                query = {"filters": filters, "since": f"{since // 10**9}.{since % 10**9:09d}"}
                with _translated():
                    async with self._request("GET", "events", query) as answer:
                        if broken:
                            yield RuntimeEvent("", "", "relist")
                        delays, broken = backoff(), True
                        async for event in json_lines(answer.content.iter_any()):
                            since = event["timeNano"] + 1
                            who = event_identity(event)
                            if who is not None:
                                yield RuntimeEvent(who.uid, event["Actor"]["ID"], event["Action"])
            broken = True
            await asyncio.sleep(next(delays))

    # -- streams

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
        container = self._docker.containers.container(container_id)
        with _translated():
            made = await container.exec(list(command), stdin=stdin, tty=tty, stdout=stdout, stderr=stderr)
        return str(made.id)

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
            with _translated():
                state = await self._docker.containers.exec(exec_id).inspect()
            if not state["Running"] and state["ExitCode"] is not None:
                break
        return state

    def _resizer(self, path: str) -> Callable[[int, int], Awaitable[None]]:
        async def resize(width: int, height: int) -> None:
            for _ in range(10):  # the first size often comes before the process has its terminal
                with suppress(RuntimeFailure), _translated():
                    async with self._request("POST", f"{path}/resize", {"w": str(width), "h": str(height)}):
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
            reader, writer = await upgrade(self._address, f"/{self._docker.api_version}/{path}", body)
        except Refused as error:
            raise _failure(DockerError(error.status, error.message), RuntimeFailure) from error
        except OSError as error:
            raise EngineUnavailable(f"Docker Engine at {self._host}: {error}") from error
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
        with suppress(RuntimeFailure, OSError), _translated():
            pid = (await self._docker.containers.exec(exec_id).inspect())["Pid"]
            if self._address.path and pid and container_id in _cgroup_of(pid):
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
        tty = (await self._show(container_id))["Config"]["Tty"]
        query = {
            "stdout": "1",
            "stderr": "1",
            "follow": str(int(follow)),
            "timestamps": str(int(timestamps)),
            "tail": "all" if tail is None else str(tail),
            "since": f"{since:.9f}" if since else "0",
        }
        async with AsyncExitStack() as stack:
            with _translated():
                answer = await stack.enter_async_context(self._request("GET", f"containers/{container_id}/logs", query))
            yield log_lines(_chunks(answer), framed=not tty, timestamps=timestamps)

    @asynccontextmanager
    async def dial(self, sandbox_id: str, port: int) -> AsyncIterator[PortStream]:
        pid = (await self._show(sandbox_id))["State"]["Pid"]
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

    async def stats(self, container_id: str) -> ProcessStats | None:
        for _ in range(2):
            files = self._cgroups.get(container_id) or await self._find_cgroup(container_id)
            if files is None:
                return None
            self._cgroups[container_id] = files
            try:
                return read_stats(files)
            except OSError:  # the group is gone: look again whether the container still runs
                del self._cgroups[container_id]
        return None

    async def _find_cgroup(self, container_id: str) -> CgroupFiles | None:
        pid = (await self._show(container_id))["State"]["Pid"]
        with suppress(OSError):
            return cgroup_files(_cgroup_of(pid)) if pid else None
        return None

    # -- images

    async def image(self, reference: str) -> ImageInfo | None:
        try:
            with _translated():
                answer = await self._docker.images.inspect(reference)
        except NoSuchContainer:
            return None
        config = answer.get("Config") or {}
        return ImageInfo(
            id=answer["Id"],
            names=(*image_references(answer.get("RepoTags")), *image_references(answer.get("RepoDigests"))),
            size=answer["Size"],
            user=config.get("User") or "",
            entrypoint=tuple(config.get("Entrypoint") or ()),
            command=tuple(config.get("Cmd") or ()),
            stop_signal=config.get("StopSignal") or "",
        )

    async def images(self) -> list[ImageInfo]:
        with _translated():
            listed = await self._docker.images.list()
        return [
            ImageInfo(i["Id"], (*image_references(i["RepoTags"]), *image_references(i["RepoDigests"])), i["Size"])
            for i in listed
        ]

    async def pull(self, reference: str, auth: Sequence[RegistryAuth] = ()) -> ImageInfo:
        wanted = parse_reference(reference)
        attempts: list[RegistryAuth | None] = [*auth] or [None]
        for number, credentials in enumerate(attempts, 1):
            try:
                await self._pull(wanted.name, wanted.version, credentials)
                break
            except ImagePullFailed:
                if number == len(attempts):
                    raise
        image = await self.image(str(wanted))
        if image is None:
            raise ImagePullFailed(f"the engine pulled {reference} and does not have it")
        return image

    async def _pull(self, name: str, version: str, credentials: RegistryAuth | None) -> None:
        headers = {}
        if credentials is not None:
            said = {"username": credentials.username, "password": credentials.password}
            text = json.dumps(said | {"serveraddress": credentials.server})
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(text.encode()).decode()
        query = {"fromImage": name, "tag": version}
        with _translated(ImagePullFailed, missing=ImagePullFailed):
            async with self._request("POST", "images/create", query, headers=headers) as answer:
                async for progress in json_lines(answer.content.iter_any()):
                    if "error" in progress:
                        raise ImagePullFailed(progress["error"])

    async def remove_image(self, image_id: str) -> int:
        image = await self.image(image_id)
        if image is None:
            return 0
        with _translated():
            users = await self._docker.containers.list(all=True, filters=json.dumps({"ancestor": [image.id]}))
            if users:
                return 0
            freed = 0
            for name in image.names or (image.id,):
                try:
                    done = await self._docker.images.delete(name)
                except DockerError as error:
                    if error.status not in (404, 409):  # gone with the name before it, or used since we looked
                        raise
                    continue
                freed = image.size if any("Deleted" in step for step in done) else freed
        return freed

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        *,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request that aiodocker has no method for, or only one that loses what we need."""
        url = f"{self._address.url}/{self._docker.api_version}/{path}"
        async with self._docker.session.request(method, url, params=query, data=data, headers=headers) as answer:
            if answer.status >= 400:
                text = await answer.text()
                with suppress(ValueError, KeyError, TypeError):
                    text = json.loads(text)["message"]
                raise DockerError(answer.status, text)
            yield answer


def _cgroup_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def _oldest_spoken(version: Json) -> str:
    """The oldest API that this engine still speaks, not below 1.41: what stays the same from release to release."""
    oldest = max((1, 41), tuple(int(part) for part in version["MinAPIVersion"].split(".")))
    return f"v{oldest[0]}.{oldest[1]}"


def _is_warm(names: Sequence[str] | None) -> bool:
    return any(name.startswith(f"/{WARM_PREFIX}") for name in names or ())


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    with _translated():
        async for chunk in answer.content.iter_any():
            yield chunk


async def _read_profile(seccomp: str) -> str:
    """The text of a seccomp profile, for the engine takes no paths."""
    if seccomp in ("", "unconfined"):
        return ""
    try:
        return await asyncio.to_thread(Path(seccomp).read_text)
    except OSError as error:
        raise ContainerConfigInvalid(f"cannot read seccomp profile {seccomp}: {error.strerror}") from error


@contextmanager
def _translated(
    failure: type[RuntimeFailure] = RuntimeFailure, *, missing: type[RuntimeFailure] = NoSuchContainer
) -> Iterator[None]:
    """The engine's errors as ours: unreachable, no such thing (`missing`), else `failure` with the engine's words."""
    try:
        yield
    except DockerError as error:
        raise _failure(error, failure, missing) from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise EngineUnavailable(f"Docker Engine does not answer: {error}") from error


def _failure(
    error: DockerError, failure: type[RuntimeFailure], missing: type[RuntimeFailure] = NoSuchContainer
) -> RuntimeFailure:
    message = error.message.strip()
    if error.status in (_UNREACHABLE, 503):
        return EngineUnavailable(message)
    # A start of a container whose program does not exist is answered with 404 too, in runc's words.
    if error.status == 404 and _MISSING.search(message):
        return missing(message)
    return failure(message)
