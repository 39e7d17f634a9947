"""How each planned action is done, in the order that leaves something sensible behind when it is cut anywhere."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from minik8s.api.errors import Conflict, NotFound, StatusError
from minik8s.api.kinds.pod import Container, Pod
from minik8s.kubelet.devices.errors import DevicesRefused, WaitingForPlugin
from minik8s.kubelet.handlers import HandlerFailed
from minik8s.kubelet.host_ports import CHOSEN, NoFreePort, choose_ports, chosen_ports, missing_ports, pod_host_ports
from minik8s.kubelet.images import ImageBackOff, ImageNeverPulled, pull_auth
from minik8s.kubelet.kit import Kit, Place
from minik8s.kubelet.objects import Unavailable, references
from minik8s.kubelet.plan import (
    Action,
    CreateSandbox,
    Finish,
    Release,
    RemoveContainer,
    StartContainer,
    StopContainer,
)
from minik8s.kubelet.status import Json
from minik8s.kubelet.view import Failure, Outcome, PodMemory
from minik8s.kubelet.volume_sources import MountFailed
from minik8s.net.base import NetworkError
from minik8s.runtime.base import (
    ContainerConfigInvalid,
    CreateFailed,
    ImagePullFailed,
    NoSuchContainer,
    RegistryAuth,
    RuntimeFailure,
    StartFailed,
)

if TYPE_CHECKING:
    from minik8s.kubelet.pod_worker import PodWorker

EXPECTED = (RuntimeFailure, NetworkError, NoFreePort, MountFailed, Unavailable, StatusError, OSError)
LAST_RETRY = 30.0  # seconds between attempts at something that keeps failing; begins with 1
LONGEST_FAREWELL = 2.0  # seconds that a pod's end may wait for Services to lead elsewhere
AFTER_HOOK = 2.0  # seconds that a container has for SIGTERM at least when its preStop hook used up the grace period


class Where(NamedTuple):
    sandbox_id: str
    ip: str


class _Birth:
    """A sandbox on its way. Starting one takes the engine as long as making a container, so both go on at once."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.made: asyncio.Future[Where | None] = loop.create_future()  # containers can be made; None: it failed
        self.up: asyncio.Future[bool] = loop.create_future()  # they can be started; False: it failed

    def over(self) -> None:
        if not self.made.done():
            self.made.set_result(None)
        if not self.up.done():
            self.up.set_result(False)


class Actions:
    """The hands of one pod's worker; `memory` is the worker's, written here as things become true."""

    def __init__(self, kit: Kit, worker: PodWorker, memory: PodMemory) -> None:
        self.kit = kit
        self.worker = worker
        self.memory = memory
        self._failures: dict[str, int] = {}  # attempts in a row that failed, by container name
        self._birth: _Birth | None = None  # of the newest sandbox; a start that is planned with it begins after it
        self._stopping: set[str] = set()  # ids whose stop has been announced and whose preStop hook has been run

    @property
    def pod(self) -> Pod:
        return self.worker.pod

    async def perform(self, action: Action) -> None:
        match action:
            case CreateSandbox():
                await self._sandbox(action)
                self._failures.pop("", None)
            case StartContainer():
                await self._start(action)
                self._failures.pop(action.name, None)
            case StopContainer():
                await self._stop(action)
            case RemoveContainer(id):
                await self.kit.runtime.remove(id)
            case Release():
                await self._clean_up()
                self.memory.released = True
            case Finish():
                await self._clean_up()
                await self._forget()

    # -- making

    async def _sandbox(self, action: CreateSandbox) -> None:
        """The containers that start with it are made while it is on its way: see `_Birth`."""
        birth = self._birth = _Birth()
        try:
            where = await self._prepare(action)
            birth.made.set_result(where)
            await self._bring_up(*where)
            birth.up.set_result(True)
        finally:
            birth.over()

    async def _prepare(self, action: CreateSandbox) -> Where:
        """All that a container must have to be made: the sandbox, its address, volumes, files."""
        kit, pod = self.kit, self.pod
        kit.objects.use(pod.metadata.uid, references(pod, volumes=kit.volumes is not None))
        self.memory.attempts = {**self.memory.attempts, "": action.attempt}
        try:
            async with asyncio.TaskGroup() as tasks:
                if kit.volumes is not None and not action.established:
                    tasks.create_task(kit.volumes.setup(pod))
                making = tasks.create_task(self._make_sandbox(pod, action.attempt))
                filing = tasks.create_task(self._address_and_files(pod))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return Where(making.result(), filing.result())

    async def _make_sandbox(self, pod: Pod, attempt: int) -> str:
        sandbox_id = await self.kit.runtime.create_sandbox(self.kit.specs.sandbox(pod, attempt))
        self.worker.containers.made(sandbox_id)
        return sandbox_id

    async def _address_and_files(self, pod: Pod) -> str:
        ip = self.kit.settings.node_ip
        if not pod.spec.hostNetwork:
            ip = await self._reserve(pod)
            missing = missing_ports(pod)
            if missing:
                chosen = chosen_ports(pod) | choose_ports(pod.metadata.uid, missing, self.kit.host_ports.is_free)
                await self._annotate(pod, chosen)
            await self.kit.host_ports.set(pod.metadata.uid, pod_host_ports(self.pod, ip))
        if self.kit.volumes is not None:
            await self.kit.volumes.write_etc(pod, ip)
        return ip

    async def _reserve(self, pod: Pod) -> str:
        uid, known = pod.metadata.uid, self.memory.ip or pod.status.podIP
        if known:
            try:
                return await self.kit.network.reserve(uid, ip=known)
            except NetworkError:
                # The address of its earlier life is taken or out of range: any other will do.
                await self.kit.network.detach(uid)
        return await self.kit.network.reserve(uid)

    async def _bring_up(self, sandbox_id: str, ip: str) -> None:
        kit, pod = self.kit, self.pod
        pid = await kit.runtime.start_sandbox(sandbox_id)
        if not pod.spec.hostNetwork:
            await kit.network.attach(pod.metadata.uid, pid, ip=ip)
        self.memory.ip, self.memory.wired = ip, sandbox_id
        kit.refresh_volumes(pod.metadata.uid)

    async def _annotate(self, pod: Pod, chosen: dict[str, int]) -> None:
        import json

        meta = pod.metadata
        patch = {"metadata": {"uid": meta.uid, "annotations": {CHOSEN: json.dumps(chosen, sort_keys=True)}}}
        self.worker.pod = await self.kit.client.patch(Pod, meta.name, meta.namespace, patch)

    async def _start(self, action: StartContainer) -> None:
        kit, pod, birth = self.kit, self.pod, self._birth
        container = self._container(action.name)
        if container is None:
            return
        await kit.devices.admit(pod)
        auth = await self._auth(pod)

        def tell(type: str, reason: str, message: str) -> None:
            self.event(type, reason, message, container)

        image = await kit.images.ensure(container, auth, tell)
        where = await birth.made if birth is not None else None
        if birth is None or where is None:
            return  # there is no sandbox, and what befell it has been told
        pod = self.pod  # with the ports that were chosen for it meanwhile
        place = await self._place(pod, container, action.attempt, where)
        spec = kit.specs.container(pod, container, image, action.attempt, action.crashes, place)
        self.memory.attempts = {**self.memory.attempts, action.name: action.attempt}
        container_id = await kit.runtime.create_container(spec)
        self.worker.containers.made(container_id)
        self.event("Normal", "Created", f"Created container: {action.name}", container)
        for less in kit.runtime.reductions(spec):
            self.event("Warning", "Reduced", f"On this host {less}", container)
        if not await birth.up:
            return
        await kit.runtime.start(container_id)
        self.event("Normal", "Started", f"Started container {action.name}", container)
        if container.lifecycle is not None and container.lifecycle.postStart is not None:
            await self._post_start(container, container_id)

    async def _place(self, pod: Pod, container: Container, attempt: int, where: Where) -> Place:
        kit = self.kit
        given = await kit.devices.allocate(pod, container)
        if given.left_out:
            text = f"not run, though the CDI specs of its devices want it: {', '.join(given.left_out)}"
            self.event("Warning", "CDIHooksIgnored", text, container)
        env = await kit.specs.environment(pod, container, where.ip) + given.env
        mounts = given.mounts
        if kit.volumes is not None:
            mounts = await kit.volumes.mounts(pod, container, attempt, dict(env)) + mounts
        target = await self._target(container)
        sandbox = kit.specs.sandbox(pod, 0)
        return Place(sandbox, where.sandbox_id, where.ip, env, mounts, given, target)

    def _container(self, name: str) -> Container | None:
        spec = self.pod.spec
        every = (*spec.initContainers, *spec.containers, *spec.ephemeralContainers)
        return next((container for container in every if container.name == name), None)

    async def _auth(self, pod: Pod) -> list[RegistryAuth]:
        from minik8s.api.kinds.secret import Secret

        names = [reference.name for reference in pod.spec.imagePullSecrets]
        found = [await self.kit.objects.get(Secret, pod.metadata.namespace, name) for name in names]
        for name, secret in zip(names, found, strict=True):
            if secret is None:
                text = f"Unable to retrieve some image pull secrets ({name}); "
                text += "attempting to pull the image may not succeed."
                self.event("Warning", "FailedToRetrieveImagePullSecret", text)
        return pull_auth([secret for secret in found if secret is not None])

    async def _target(self, container: Container) -> str:
        """Id of the running container whose processes an ephemeral container wants to see."""
        if not container.targetContainerName:
            return ""
        for info in await self.kit.runtime.containers(self.pod.metadata.uid):
            if info.name == container.targetContainerName and info.state == "running":
                return info.id
        raise ContainerConfigInvalid(f'container "{container.targetContainerName}" does not run')

    async def _post_start(self, container: Container, container_id: str) -> None:
        assert container.lifecycle is not None
        assert container.lifecycle.postStart is not None
        try:
            await self._hook(container, container_id, "postStart", 24 * 3600.0)
        except HandlerFailed as error:
            self.event("Warning", "FailedPostStartHook", f"PostStartHook failed: {error}", container)
            self.event("Normal", "Killing", "FailedPostStartHook", container)
            await self.kit.runtime.stop(container_id, float(self.pod.spec.terminationGracePeriodSeconds))

    async def _hook(self, container: Container, container_id: str, which: str, timeout: float) -> None:
        assert container.lifecycle is not None
        handler = container.lifecycle.postStart if which == "postStart" else container.lifecycle.preStop
        if handler is not None:
            ip = self.kit.settings.node_ip if self.pod.spec.hostNetwork else self.memory.ip
            await self.kit.handlers.run(handler, container, container_id, ip, timeout=timeout)

    # -- ending

    async def _stop(self, action: StopContainer) -> None:
        kit, container = self.kit, self._container(action.name)
        first = action.id not in self._stopping
        self._stopping.add(action.id)
        if first:
            self.event("Normal", "Killing", action.message, container)
        hooked = container is not None and container.lifecycle is not None and container.lifecycle.preStop is not None
        left = action.deadline - kit.clock()
        if first and left > 0:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._farewell(min(LONGEST_FAREWELL, left / 2)))
                if hooked and container is not None:
                    tasks.create_task(self._pre_stop(container, action.id, left))
            left = max(action.deadline - kit.clock(), AFTER_HOOK if hooked else 0.0)
        try:
            await kit.runtime.stop(action.id, max(left, 0.0))
        except NoSuchContainer:
            return

    async def _farewell(self, longest: float) -> None:
        """Nobody new should come while the pod ends. Kubernetes promises no order here, and loses requests by it."""
        if self.pod.deleting:
            with suppress(TimeoutError):
                async with asyncio.timeout(longest):
                    await self.kit.withdrawn(self.pod)

    async def _pre_stop(self, container: Container, container_id: str, longest: float) -> None:
        try:
            await self._hook(container, container_id, "preStop", longest)
        except HandlerFailed as error:
            self.event("Warning", "FailedPreStopHook", f"PreStopHook failed: {error}", container)

    async def _clean_up(self) -> None:
        kit, uid = self.kit, self.pod.metadata.uid
        await kit.host_ports.set(uid, ())
        if not self.pod.spec.hostNetwork:
            await kit.network.detach(uid)
        kit.objects.use(uid, ())
        kit.devices.free(uid)
        if kit.volumes is not None:
            await kit.volumes.remove(uid)

    async def _forget(self) -> None:
        if self.memory.gone:
            return
        meta = self.pod.metadata
        try:
            await self.kit.client.delete(Pod, meta.name, meta.namespace, grace=0, uid=meta.uid)
        except (NotFound, Conflict):
            return  # it is gone, or another pod has its name

    # -- telling

    def failed(self, name: str, error: Exception) -> None:
        """Remember why something could not be started, and when to try again."""
        now = self.kit.clock()
        number = self._failures[name] = self._failures.get(name, 0) + 1
        retry_at = now + min(2.0 ** (number - 1), LAST_RETRY)
        container = self._container(name) if name else None
        match error:
            case StartFailed():
                # The engine keeps the container with its error: from there on it is a crash like any other.
                self.event("Warning", "Failed", f"Error: {error}", container)
                return
            case ImageBackOff():
                retry_at = error.retry_at
                self.event("Warning", "Failed", f"Error: {error.reason}", container)
            case ImagePullFailed():
                retry_at = now + 1  # then it is in back-off, which says so
            case CreateFailed() if container is not None:
                self.kit.images.forget(container.image)
                self.event("Warning", "Failed", f"Error: {error}", container)
            case MountFailed():
                self.event("Warning", "FailedMount", str(error))
            case DevicesRefused():
                self.event("Warning", error.reason, str(error))
                self.memory.ended = Outcome("Failed", error.reason, str(error))
            case WaitingForPlugin():
                self.event("Warning", error.reason, str(error), container)
            case ImageNeverPulled():
                self.event("Warning", "Failed", f"Error: {error.reason}", container)
            case _ if container is not None:
                self.event("Warning", "Failed", f"Error: {error}", container)
            case _:
                self.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
        reason = error.reason if isinstance(error, RuntimeFailure) else "CreateContainerError"
        if isinstance(error, MountFailed):
            reason = "ContainerCreating"
        elif isinstance(error, Unavailable):
            reason = "CreateContainerConfigError"
        self.memory.failures = {**self.memory.failures, name: Failure(reason, str(error), retry_at)}

    def event(self, type: str, reason: str, message: str, container: Container | None = None) -> None:
        path = ""
        if container is not None:
            spec = self.pod.spec
            kinds = (("initContainers", spec.initContainers), ("ephemeralContainers", spec.ephemeralContainers))
            group = next((name for name, group in kinds if container in group), "containers")
            path = f"spec.{group}{{{container.name}}}"
        self.kit.recorder.event(self.pod, type, reason, message, field_path=path)

    def tell_crash_loops(self, before: Json, after: Json) -> None:
        """BackOff, each time a container newly waits in CrashLoopBackOff."""
        meta = self.pod.metadata
        for group in ("initContainerStatuses", "containerStatuses"):
            waited = {_loops(status) for status in before.get(group, ())}
            for status in after.get(group, ()):
                if _loops(status) and _loops(status) not in waited:
                    name = status["name"]
                    pod = f"{meta.name}_{meta.namespace}({meta.uid})"
                    text = f"Back-off restarting failed container {name} in pod {pod}"
                    self.event("Warning", "BackOff", text, self._container(name))


def _loops(status: Json) -> str:
    """Container and attempt, if it waits in CrashLoopBackOff."""
    waiting = status.get("state", {}).get("waiting") or {}
    return f"{status['name']}#{status.get('restartCount', 0)}" if waiting.get("reason") == "CrashLoopBackOff" else ""
