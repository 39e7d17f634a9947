"""Pods' containers on Docker Engine: the one file that uses its client. `docker_exec.py` and `docker_images.py` are
its other parts.

Decisions are elsewhere (`spec.py`, `docker_json.py`); this performs them. Nothing is remembered that the engine does
not know: an agent that was killed finds everything again by names and labels. Foreign errors end in `_translated`.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import aiohttp
from aiodocker import Docker, DockerError

from minik8s.aio import backoff
from minik8s.runtime.base import (
    LABEL_MANAGED,
    ContainerConfigInvalid,
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
from minik8s.runtime.cgroup import CgroupFiles, cgroup_files, cgroup_of, read_links, read_stats
from minik8s.runtime.docker_api import failure_of, reaching
from minik8s.runtime.docker_exec import DockerStreams
from minik8s.runtime.docker_inventory import DockerInventory
from minik8s.runtime.docker_json import (
    Json,
    Limits,
    container_info,
    docker_create,
    event_identity,
    identity,
    reductions,
)
from minik8s.runtime.docker_streams import json_lines, parse_address
from minik8s.runtime.linux import own_limits
from minik8s.runtime.pause import image_name

DEFAULT_HOST = "unix:///var/run/docker.sock"
SILENCE = 15.0  # seconds without an event after which they are asked for anew: a connection may hang and not end
_ACTIONS = ("create", "start", "die", "oom", "destroy")


class DockerRuntime(DockerInventory, DockerStreams):
    """`node_uid` marks what belongs to this agent. `silence`: see SILENCE. `made_images` are not pulled but made: by
    name the command that writes one to its output, in the form of `docker save`."""

    def __init__(
        self,
        node_uid: str,
        *,
        docker_host: str = "",
        limits: Limits | None = None,
        silence: float = SILENCE,
        made_images: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.made_images = made_images or {}
        self._node_uid = node_uid
        self._host = docker_host or os.environ.get("DOCKER_HOST", "") or DEFAULT_HOST
        self._silence = silence
        self.address = parse_address(self._host)
        self.limits = limits if limits is not None else own_limits()
        self._heavy = asyncio.Semaphore(4 * (os.cpu_count() or 1))
        self._stack = AsyncExitStack()
        self._cgroups: dict[str, CgroupFiles] = {}  # of running containers, by id; only saves an inspect
        self._architecture = "amd64"

    async def __aenter__(self) -> DockerRuntime:
        async with AsyncExitStack() as stack:
            self._docker = await stack.enter_async_context(self._connect())
            with _translated():
                version = await self._docker.version()
            self.version = self._docker.api_version = _oldest_spoken(version)
            self._architecture = version["Arch"]
            await self.ensure_pause_image(self._pause, self._architecture)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Docker]:
        # No limit: every followed log, wait and event stream holds a connection of its own.
        connector = (
            aiohttp.UnixConnector(self.address.path, limit=0) if self.address.path else aiohttp.TCPConnector(limit=0)
        )
        async with connector, Docker(url=self.address.url, connector=connector) as docker:
            yield docker

    async def info(self) -> EngineInfo:
        with _translated():
            version, system = await self._docker.version(), await self._docker.system.info()
        driver, root = system["CgroupDriver"], system["DockerRootDir"]
        runtimes = tuple(sorted(system.get("Runtimes") or ()))
        return EngineInfo("docker", version["Version"], version["ApiVersion"], driver, root, runtimes)

    # -- containers

    async def containers(self, pod_uid: str | None = None) -> list[ContainerInfo]:
        listed = await self._listed("" if pod_uid is None else f"^/k8s_.*_{pod_uid}_[0-9]+$")
        # The list's own words on a container's state come later than its events; an inspect waits for the truth.
        return [info for info in await self.inspect([c.id for c in listed]) if pod_uid in (None, info.pod_uid)]

    async def inspect(self, container_ids: Sequence[str]) -> list[ContainerInfo]:
        answers = await asyncio.gather(*(self._inspect(each) for each in container_ids))
        known = (container_info(answer) for answer in answers if answer is not None)
        return [info for info in known if info is not None]

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

    async def create_sandbox(self, spec: SandboxSpec) -> str:
        body = {**docker_create(spec, self._node_uid, self.limits), "Image": self._pause}
        async with self._heavy:
            return await self._create(body, str(identity(spec)), keep_running=True)

    async def start_sandbox(self, sandbox_id: str) -> int:
        try:
            await self.start(sandbox_id, failure=CreateFailed)
        except RuntimeFailure:
            await self.remove(sandbox_id)
            raise
        return int((await self._show(sandbox_id))["State"]["Pid"])

    def reductions(self, spec: ContainerSpec) -> tuple[str, ...]:
        return reductions(spec, self.limits)

    async def create_container(self, spec: ContainerSpec) -> str:
        profile = await _read_profile(spec.seccomp)
        body = docker_create(spec, self._node_uid, self.limits, seccomp=profile)
        async with self._heavy:
            return await self._create(body, str(identity(spec)))

    async def _create(self, body: dict[str, Any], name: str, *, keep_running: bool = False) -> str:
        """Create; what has the name already is replaced (or kept if it runs), a pause image that somebody pruned is
        made again."""
        for attempt in range(3):
            try:
                return str((await self._docker.containers.create(body, name=name)).id)
            except DockerError as error:
                if error.status == 409 and attempt < 2:
                    if keep_running and (running := await self._running(name)):
                        return running
                    await self._remove(name)
                elif error.status == 404 and body["Image"] == self._pause and attempt < 2:
                    await self.ensure_pause_image(self._pause, self._architecture)
                else:
                    raise failure_of(error.status, error.message, CreateFailed, CreateFailed) from error
            except (aiohttp.ClientError, OSError) as error:
                raise EngineUnavailable(f"Docker Engine at {self._host}: {error}") from error
        raise AssertionError("unreachable")

    async def _running(self, name: str) -> str:
        """The id of the container of that name if it runs, else ""."""
        with suppress(NoSuchContainer), _translated():
            answer = await self._docker.containers.container(name).show()
            return str(answer["Id"]) if answer["State"]["Running"] else ""
        return ""

    async def start(self, container_id: str, *, failure: type[RuntimeFailure] = StartFailed) -> None:
        async with self._heavy:
            with _translated(failure):
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
        """Names of all that this agent has made on the engine; for `reset`."""
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

    @property
    def _pause(self) -> str:
        return image_name(self._architecture)

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

    def links(self, stats: ProcessStats) -> tuple[LinkStats, ...]:
        return read_links(stats.pid)

    async def _find_cgroup(self, container_id: str) -> CgroupFiles | None:
        pid = (await self._show(container_id))["State"]["Pid"]
        with suppress(OSError):
            return cgroup_files(cgroup_of(pid)) if pid else None
        return None

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
            query = {"filters": filters, "since": f"{since // 10**9}.{since % 10**9:09d}"}
            try:
                async with self.request("GET", "events", query, silence=self._silence) as answer:
                    if broken:
                        yield RuntimeEvent("", "", "relist")
                    delays, broken = backoff(), True
                    async for event in json_lines(answer.content.iter_any()):
                        since = event["timeNano"] + 1
                        who = event_identity(event)
                        if who is not None:
                            yield RuntimeEvent(who.uid, event["Actor"]["ID"], event["Action"])
            except EngineUnavailable as error:
                if isinstance(error.__cause__, TimeoutError):  # silence: `since` brings what we have missed
                    broken = False
                    continue
            broken = True
            await asyncio.sleep(next(delays))

    # -- what the other parts ask through

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        data: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        failure: type[RuntimeFailure] = RuntimeFailure,
        missing: type[RuntimeFailure] = NoSuchContainer,
        silence: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """EngineUnavailable, caused by TimeoutError, after `silence` seconds without a byte."""
        url = f"{self.address.url}/{self.version}/{path}"
        wait = aiohttp.ClientTimeout(sock_read=silence)
        with _translated(failure, missing=missing):
            async with self._docker.session.request(
                method, url, params=query, data=data, headers=headers, timeout=wait
            ) as answer:
                if answer.status >= 400:
                    text = await answer.text()
                    with suppress(ValueError, KeyError, TypeError):
                        text = json.loads(text)["message"]
                    raise DockerError(answer.status, text)
                yield answer

    async def json(self, method: str, path: str, query: Mapping[str, str] | None = None, *, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        async with self.request(method, path, query, data=data, headers={"Content-Type": "application/json"}) as answer:
            text = await answer.read()
        return json.loads(text) if text.strip() else None


def _oldest_spoken(version: Json) -> str:
    """The oldest API that this engine still speaks, not below 1.41: what stays the same from release to release."""
    oldest = max((1, 41), tuple(int(part) for part in version["MinAPIVersion"].split(".")))
    return f"v{oldest[0]}.{oldest[1]}"


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
    """The engine's errors as ours: see `failure_of`."""
    with reaching():
        try:
            yield
        except DockerError as error:
            raise failure_of(error.status, error.message, failure, missing) from error
