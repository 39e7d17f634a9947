"""The devices of one node: which plugins are there, who holds what, and what a container gets to use its devices.

A pod is admitted as a whole before its first container is made: every container's devices are chosen, its plugins asked
and the answers kept on disk, so that later starts of a container, also by another agent, need no choice any more.
Running containers are never touched, whatever becomes of their plugin, devices or agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from minik8s.api.kinds.pod import Container, Pod
from minik8s.api.quantity import to_count
from minik8s.clock import Clock, system_clock
from minik8s.kubelet.devices import cdi
from minik8s.kubelet.devices.allocator import Holding, Ledger, NotEnough, available, choose, secured
from minik8s.kubelet.devices.answers import allocation
from minik8s.kubelet.devices.checkpoint import Checkpoint, Content
from minik8s.kubelet.devices.errors import DevicesRefused, PluginFailed, WaitingForPlugin
from minik8s.kubelet.devices.fleet import GONE_SECONDS, Fleet, Resource
from minik8s.kubelet.devices.sockets import POD_RESOURCES, SOCKET, Unusable, prepare, serving
from minik8s.kubelet.kit import Allocation, Amount
from minik8s.log import get_logger

SERVICES = "minik8s.kubelet.devices.services"
log = get_logger("devices")


class DeviceManager:
    """`run()` is eternal. `nvidia` says whether the engine gives GPUs by itself when asked for them by id."""

    def __init__(
        self,
        folder: Path,
        data: Path,
        pods: Callable[[], Iterable[Pod]],
        *,
        clock: Clock = system_clock,
        cdi_folders: tuple[Path, ...] = cdi.FOLDERS,
        patience: float = GONE_SECONDS,
    ) -> None:
        self.pods = pods
        self.nvidia: Callable[[], bool] = lambda: False
        self._data = data
        self._clock = clock
        self._cdi_folders = cdi_folders
        self._patience = patience
        self._fleet = Fleet(folder, self._resource_changed, gone_seconds=patience)
        self._ledger = Ledger()
        self._checkpoint = Checkpoint(data / "devices.json", self._content)
        self._loaded = asyncio.Event()
        self._admitting: dict[str, asyncio.Lock] = {}  # by pod
        self._waiting: dict[str, float] = {}  # pods that wait for a plugin, and since when
        self._changed: Callable[[], None] = lambda: None
        self._wake: Callable[[str], None] = lambda uid: None

    def on_change(self, changed: Callable[[], None], wake: Callable[[str], None]) -> None:
        """`changed()`: the node has other amounts; `wake(uid)`: what a pod has waited for may be there."""
        self._changed, self._wake = changed, wake

    # -- running

    async def run(self) -> None:
        content = await asyncio.to_thread(self._checkpoint.read)
        self._ledger = Ledger(content.holdings)
        self._fleet.remember(content.resources)
        self._loaded.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._checkpoint.run(), name="device checkpoint")
            tasks.create_task(self._fleet.run(), name="device plugins")
            tasks.create_task(self._serve(), name="device sockets")

    async def _serve(self) -> None:
        folders = (self._fleet.folder, self._fleet.folder.parent / POD_RESOURCES)
        try:
            for folder in folders:
                await asyncio.to_thread(prepare, folder)
            async with AsyncExitStack() as stack:
                for folder, services in zip(folders, (self._registration, self._pod_resources), strict=True):
                    await stack.enter_async_context(serving(folder / SOCKET, SERVICES, services))
                await asyncio.Event().wait()
        except (Unusable, OSError) as error:
            log.warning(
                "no device plugins on this node",
                reason=str(error),
                remedy="make --device-plugins a folder that this agent alone serves, then start it again",
            )

    def _registration(self) -> list[object]:
        from minik8s.kubelet.devices.services import Registration

        return [Registration(self)]

    def _pod_resources(self) -> list[object]:
        from minik8s.kubelet.devices.services import PodResources

        return [PodResources(self)]

    async def register(self, resource: str, endpoint: str) -> None:
        """A plugin says where it listens. That there is such a resource is on disk before anybody can ask for it: a
        pod that comes back after a restart waits for the plugin then. OSError."""
        if resource not in self._fleet.resources:
            self._fleet.remember((resource,))
            self._checkpoint.touch()
            await self._checkpoint.saved()
        self._fleet.register(resource, endpoint)

    def _resource_changed(self, resource: str) -> None:
        self._changed()
        if self._fleet.resources[resource].plugin is not None:
            for uid in list(self._waiting):
                self._wake(uid)

    def _content(self) -> Content:
        return Content(tuple(self._fleet.resources), tuple(self._ledger.all()))

    # -- what there is

    def amounts(self) -> dict[str, Amount | None]:
        return self._fleet.amounts()

    def resources(self) -> dict[str, Resource]:
        return self._fleet.resources

    def held(self, uid: str) -> list[Holding]:
        return self._ledger.of(uid)

    def holdings(self) -> list[Holding]:
        return self._ledger.all()

    def healthy(self) -> dict[str, tuple[str, ...]]:
        """Ids by resource."""
        known = self._fleet.resources.items()
        return {name: tuple(available(resource.usable(), frozenset())) for name, resource in known}

    def numa(self, resource: str, device: str) -> tuple[int, ...]:
        known = self._fleet.resources.get(resource)
        found = known.devices.get(device) if known is not None else None
        return found.numa if found is not None else ()

    # -- giving and taking

    async def admit(self, pod: Pod) -> None:
        """Give each container of the pod what it asks for. WaitingForPlugin, DevicesRefused, OSError."""
        await self._loaded.wait()
        uid, spec = pod.metadata.uid, pod.spec
        wanted = [(c, name, n) for c in (*spec.initContainers, *spec.containers) for name, n in self._asked(c)]
        if not wanted:
            return
        async with self._admitting.setdefault(uid, asyncio.Lock()):
            for container, resource, count in wanted:
                holding = self._ledger.get(uid, container.name, resource)
                if holding is None or holding.answer is None:
                    await self._give(pod, container, resource, count)
            self._waiting.pop(uid, None)
            await self._checkpoint.saved()

    async def allocate(self, pod: Pod, container: Container) -> Allocation:
        """What an admitted container gets, each time that it is started. WaitingForPlugin, DevicesRefused."""
        uid, found = pod.metadata.uid, []
        for resource, _ in self._asked(container):
            holding = self._ledger.get(uid, container.name, resource)
            if holding is None or holding.answer is None:
                raise WaitingForPlugin(f"{resource} has not been given yet")
            if holding.preStart:
                await self._pre_start(uid, holding)
            found.append(holding)
        if not found:
            return Allocation()
        specs = await asyncio.to_thread(cdi.read_specs, self._cdi_folders)
        try:
            return allocation(found, specs, nvidia=self.nvidia())
        except cdi.Unresolvable as error:
            raise DevicesRefused(f"Allocate failed due to {error}, which is unexpected") from None

    def free(self, pod_uid: str) -> None:
        self._waiting.pop(pod_uid, None)
        self._admitting.pop(pod_uid, None)
        if self._ledger.free(pod_uid):
            self._checkpoint.touch()
            self._changed()

    def _free_ended(self) -> None:
        """A pod may be told to have ended before it is taken down, and the scheduler has given its devices away."""
        for pod in self.pods():
            if pod.status.phase in ("Succeeded", "Failed"):
                self.free(pod.metadata.uid)

    def retain(self, pod_uids: Collection[str]) -> None:
        """Free what pods hold that are not on this node any more."""
        for uid in self._ledger.pods() - set(pod_uids):
            self.free(uid)

    def _asked(self, container: Container) -> list[tuple[str, int]]:
        """Resources of plugins; others of the kind, which somebody wrote into the Node, are only counted."""
        limits = container.resources.limits.items()
        pairs = [(name, to_count(amount)) for name, amount in limits if name in self._fleet.resources]
        return [(name, count) for name, count in pairs if count > 0]

    async def _give(self, pod: Pod, container: Container, resource: str, count: int) -> None:
        uid = pod.metadata.uid
        known = self._fleet.resources[resource]
        if known.plugin is None:
            self._wait(uid, resource)
        plugin = known.plugin
        assert plugin is not None
        try:
            holding = self._ledger.get(uid, container.name, resource)
            ids = holding.ids if holding is not None else await self._reserve(pod, container, resource, count)
            answer = await plugin.allocate(ids)
        except (PluginFailed, NotEnough) as error:
            self._ledger.drop(uid, container.name, resource)
            if known.plugin is not plugin:  # it went while it was asked: its successor will be
                self._wait(uid, resource)
            reason = str(error)
            if isinstance(error, NotEnough):
                reason = f"requested number of devices unavailable for {resource}. {error}"
            raise DevicesRefused(f"Allocate failed due to {reason}, which is unexpected") from None
        meta = pod.metadata
        self._ledger.put(
            Holding(
                uid=uid, namespace=meta.namespace, pod=meta.name, container=container.name, resource=resource,
                ids=ids, answer=answer, preStart=plugin.pre_start_required,
            )
        )  # fmt: skip
        self._checkpoint.touch()

    async def _reserve(self, pod: Pod, container: Container, resource: str, count: int) -> tuple[str, ...]:
        """Choose, and write into the ledger at once. NotEnough, PluginFailed."""
        meta, known = pod.metadata, self._fleet.resources[resource]
        self._free_ended()
        plugin, preferred = known.plugin, []
        sure, free = self._candidates(pod, container, resource, count)
        if plugin is not None and plugin.has_preference and len(sure) < count <= len(sure) + len(free):
            preferred = await plugin.preferred(free, sure, count)
            sure, free = self._candidates(pod, container, resource, count)  # others have chosen meanwhile
        ids = choose(count, sure, free, preferred, known.devices)
        self._ledger.put(Holding(meta.uid, meta.namespace, meta.name, container.name, resource, ids))
        return ids

    def _candidates(
        self, pod: Pod, container: Container, resource: str, count: int
    ) -> tuple[tuple[str, ...], list[str]]:
        """What the pod has for this container already, and what is free."""
        devices = self._fleet.resources[resource].usable()
        reusable = self._ledger.reusable(pod.metadata.uid, pod.spec, container.name, resource)
        return secured(count, reusable, devices), available(devices, self._ledger.taken(resource))

    def _wait(self, uid: str, resource: str) -> None:
        since = self._waiting.setdefault(uid, self._clock())
        if self._clock() - since > self._patience:
            text = f"its device plugin has not registered for {self._patience:.0f} seconds"
            raise DevicesRefused(f"Allocate failed due to no devices of {resource}: {text}")
        raise WaitingForPlugin(f"waiting for the device plugin of {resource} to register")

    async def _pre_start(self, uid: str, holding: Holding) -> None:
        plugin = self._fleet.resources[holding.resource].plugin
        if plugin is None:
            self._waiting.setdefault(uid, self._clock())
            raise WaitingForPlugin(f"waiting for the device plugin of {holding.resource} to register")
        try:
            await plugin.pre_start(holding.ids)
        except PluginFailed as error:
            raise WaitingForPlugin(str(error), reason="PreStartContainerError") from None
        self._waiting.pop(uid, None)


def as_page(manager: DeviceManager) -> bytes:
    """For `describe node` and `doctor gpu`: every resource with its plugin, its devices and who holds them, as JSON."""
    holders = {}
    for holding in manager.holdings():
        for name in holding.ids:
            holders[holding.resource, name] = f"{holding.namespace}/{holding.pod} {holding.container}"
    found = []
    for resource, known in sorted(manager.resources().items()):
        devices = [
            {"id": d.id, "healthy": d.healthy, "numa": d.numa, "holder": holders.get((resource, d.id), "")}
            for d in known.usable().values()
        ]
        state = "Registered" if known.plugin is not None else "Gone" if known.gone else "Missing"
        found.append({"name": resource, "endpoint": known.endpoint, "plugin": state, "devices": devices})
    return msgspec.json.encode({"resources": found})
