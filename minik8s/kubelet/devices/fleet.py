"""The device plugins of this node, each watched from its registration until it has been gone for five minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minik8s.kubelet.devices.allocator import Device
from minik8s.kubelet.devices.errors import PluginFailed
from minik8s.kubelet.devices.plugin import DIAL_SECONDS, Plugin
from minik8s.kubelet.kit import Amount
from minik8s.log import get_logger

GONE_SECONDS = 300.0  # a plugin may be away, for an upgrade say, until its resource leaves the node
log = get_logger("devices")


@dataclass(slots=True)
class Resource:
    devices: Mapping[str, Device] = field(default_factory=dict)  # as last told
    plugin: Plugin | None = None  # while it is connected and has told its devices
    gone: bool = False  # for so long that the node does not have the resource any more
    endpoint: str = ""

    def usable(self) -> Mapping[str, Device]:
        if self.plugin is not None:
            return self.devices
        return {name: device._replace(healthy=False) for name, device in self.devices.items()}


class Fleet:
    """`changed(resource)` is called when its devices, their health or its plugin's presence have changed."""

    def __init__(self, folder: Path, changed: Callable[[str], None], *, gone_seconds: float = GONE_SECONDS) -> None:
        self.resources: dict[str, Resource] = {}  # all that ever registered on this node
        self.folder = folder
        self._changed = changed
        self._gone_seconds = gone_seconds
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def remember(self, resources: Iterable[str]) -> None:
        """These had a plugin before this agent was started: it is expected to come back."""
        for name in resources:
            self.resources.setdefault(name, Resource())

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for name in self.resources:
                self._start(name, "")
            await asyncio.Event().wait()

    def register(self, resource: str, endpoint: str) -> None:
        """The newest registration of a name wins."""
        log.info("device plugin registered", resource=resource, endpoint=endpoint)
        self.resources.setdefault(resource, Resource())
        self._start(resource, endpoint)

    def amounts(self) -> dict[str, Amount | None]:
        """Capacity counts all devices, allocatable the healthy ones; None: the node is to lose the resource."""
        found: dict[str, Amount | None] = {}
        for name, known in self.resources.items():
            healthy = sum(device.healthy for device in known.usable().values())
            found[name] = None if known.gone else Amount(len(known.devices), healthy)
        return found

    def _start(self, resource: str, endpoint: str) -> None:
        assert self._tasks is not None
        before = self._watches.pop(resource, None)
        if before is not None:
            before.cancel()
        watch = self._tasks.create_task(self._watch(resource, endpoint, before), name=f"device plugin {resource}")
        self._watches[resource] = watch

    async def _watch(self, resource: str, endpoint: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])  # or its end would be taken for ours
        known = self.resources[resource]
        known.endpoint = endpoint
        if endpoint:
            plugin = Plugin(self.folder / endpoint)
            try:
                await self._follow(resource, known, plugin)
            except PluginFailed as error:
                log.warning(
                    "device plugin is gone",
                    resource=resource,
                    endpoint=endpoint,
                    error=str(error),
                    remedy="see why its pod or service ended; it registers again when it is back",
                )
            except TimeoutError:
                log.warning(
                    "device plugin cannot be reached",
                    resource=resource,
                    endpoint=endpoint,
                    seconds=DIAL_SECONDS,
                    remedy="see why it does not serve its socket; it registers again when it is restarted",
                )
            finally:
                plugin.close()
                known.plugin = None
            self._changed(resource)
        await asyncio.sleep(self._gone_seconds)
        known.gone, known.devices = True, {}
        log.warning(
            "the node has lost a resource: its device plugin did not come back",
            resource=resource,
            remedy="start the device plugin again",
        )
        self._changed(resource)

    async def _follow(self, resource: str, known: Resource, plugin: Plugin) -> None:
        await plugin.dial()
        async for devices in plugin.lists():
            fresh = {device.id: device for device in devices}
            if (plugin, fresh) != (known.plugin, known.devices):
                known.plugin, known.devices, known.gone = plugin, fresh, False
                self._changed(resource)
        raise PluginFailed("ListAndWatch: the plugin has ended it")
