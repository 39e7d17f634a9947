"""Device plugins in Python: say what devices there are and what a container needs for them; the rest is done here.

    class Cameras(Plugin):
        resource = "vendor.example/camera"

        async def devices(self):
            while True:
                yield [Device(path.name) for path in Path("/dev").glob("video*")]
                await asyncio.sleep(5)

        async def allocate(self, ids):
            return Answer(devices=tuple(PluginDevice(f"/dev/{name}", f"/dev/{name}") for name in ids))

    asyncio.run(serve(Cameras()))

It speaks v1beta1 and works with any kubelet. It registers again when the node's agent starts anew, and when its own
socket is removed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from grpclib import GRPCError, Status
from grpclib.client import Channel
from grpclib.exceptions import StreamTerminatedError
from grpclib.server import Server

from minik8s.aio import backoff
from minik8s.kubelet.devices.allocator import Answer, Device, PluginDevice, PluginMount
from minik8s.kubelet.devices.proto import deviceplugin_pb2 as pb
from minik8s.kubelet.devices.proto.deviceplugin_grpc import DevicePluginBase, RegistrationStub
from minik8s.log import get_logger

if TYPE_CHECKING:
    from grpclib.server import Stream

__all__ = ["Answer", "Device", "Plugin", "PluginDevice", "PluginMount", "Refused", "serve"]

FOLDER = Path("/var/lib/kubelet/device-plugins")
KUBELET = "kubelet.sock"
VERSION = "v1beta1"
T = TypeVar("T")
_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")
LOOK_SECONDS = 0.5  # between looks whether the node's socket or ours was replaced
log = get_logger("device-plugin")


class Refused(Exception):
    """Raised by a plugin's `allocate`, `preferred` or `pre_start`: the pod is told the message."""


class Plugin:
    """Override `devices` and `allocate`; `preferred` and `pre_start` only if you need them: that they are is told."""

    resource = ""  # vendor.example/name

    def devices(self) -> AsyncIterator[Sequence[Device]]:
        """All devices, once more at each change. The plugin ends when this does."""
        raise NotImplementedError

    async def allocate(self, ids: Sequence[str]) -> Answer:
        """What a container with these devices is to get."""
        return Answer()

    async def preferred(self, free: Sequence[str], must: Sequence[str], count: int) -> Sequence[str]:
        """Which `count` of the free ones go well together; those that it `must` have are among them."""
        return ()

    async def pre_start(self, ids: Sequence[str]) -> None:
        """Before each start of a container with these devices: reset them, say."""


async def serve(plugin: Plugin, folder: Path = FOLDER, *, socket_name: str = "") -> None:
    """Serve `plugin` to the node whose `kubelet.sock` is in `folder`, for ever. OSError if the folder is not ours."""
    path = folder / (socket_name or plugin.resource.replace("/", "_") + ".sock")
    while True:
        while _mark(folder / KUBELET) is None:  # a node that starts removes the sockets that it finds
            await asyncio.sleep(LOOK_SECONDS / 5)
        path.unlink(missing_ok=True)
        server = Server([_Service(plugin)])
        await server.start(path=str(path))
        try:
            node = await _register(plugin, folder, path.name)
            mark = _mark(path)
            while (_mark(folder / KUBELET), _mark(path)) == (node, mark):
                await asyncio.sleep(LOOK_SECONDS)
            log.info("the node's agent has started anew", resource=plugin.resource)
        finally:
            server.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await server.wait_closed()
            path.unlink(missing_ok=True)


def _mark(path: Path) -> tuple[int, int] | None:
    """Two sockets at one path have different ones; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


async def _register(plugin: Plugin, folder: Path, endpoint: str) -> tuple[int, int] | None:
    """Until it has worked; returns which socket of the node's it was. GRPCError if we are refused."""
    options = _options(plugin)
    request = pb.RegisterRequest(
        version=VERSION, endpoint=endpoint, resource_name=plugin.resource, options=options
    )  # fmt: skip
    for delay in backoff(LOOK_SECONDS / 5, 5.0):
        mark = _mark(folder / KUBELET)
        channel = Channel(path=str(folder / KUBELET))
        try:
            await RegistrationStub(channel).Register(request, timeout=10)
        except (OSError, StreamTerminatedError) as error:
            log.debug("not registered yet", resource=plugin.resource, error=str(error))
        else:
            return mark
        finally:
            channel.close()
        await asyncio.sleep(min(delay, LOOK_SECONDS))
    raise AssertionError("unreachable")


def _options(plugin: Plugin) -> pb.DevicePluginOptions:
    made = type(plugin)
    return pb.DevicePluginOptions(
        pre_start_required=made.pre_start is not Plugin.pre_start,
        get_preferred_allocation_available=made.preferred is not Plugin.preferred,
    )


class _Service(DevicePluginBase):
    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    async def GetDevicePluginOptions(  # noqa: N802
        self, stream: Stream[pb.Empty, pb.DevicePluginOptions]
    ) -> None:
        await stream.recv_message()
        await stream.send_message(_options(self._plugin))

    async def ListAndWatch(self, stream: Stream[pb.Empty, pb.ListAndWatchResponse]) -> None:  # noqa: N802
        await stream.recv_message()
        try:
            async for devices in self._plugin.devices():
                await stream.send_message(pb.ListAndWatchResponse(devices=map(_device, devices)))
        except asyncio.CancelledError:
            with suppress(RuntimeError):  # uvloop's, when the node has gone: there is nobody to learn of it
                await stream.cancel()  # or the node would not learn of it before this process ends
            raise

    async def GetPreferredAllocation(  # noqa: N802
        self, stream: Stream[pb.PreferredAllocationRequest, pb.PreferredAllocationResponse]
    ) -> None:
        request = await _received(stream)
        answers = []
        for one in request.container_requests:
            must = list(one.must_include_deviceIDs)
            ids = await _or_refused(self._plugin.preferred(list(one.available_deviceIDs), must, one.allocation_size))
            answers.append(pb.ContainerPreferredAllocationResponse(deviceIDs=ids))
        await stream.send_message(pb.PreferredAllocationResponse(container_responses=answers))

    async def Allocate(self, stream: Stream[pb.AllocateRequest, pb.AllocateResponse]) -> None:  # noqa: N802
        request = await _received(stream)
        answers = [
            _answer(await _or_refused(self._plugin.allocate(list(one.devices_ids))))
            for one in request.container_requests
        ]
        await stream.send_message(pb.AllocateResponse(container_responses=answers))

    async def PreStartContainer(  # noqa: N802
        self, stream: Stream[pb.PreStartContainerRequest, pb.PreStartContainerResponse]
    ) -> None:
        request = await _received(stream)
        await _or_refused(self._plugin.pre_start(list(request.devices_ids)))
        await stream.send_message(pb.PreStartContainerResponse())


async def _received(stream: Stream[_Request, _Reply]) -> _Request:
    request = await stream.recv_message()
    if request is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "a request without a message")
    return request


async def _or_refused(call: Awaitable[T]) -> T:
    try:
        return await call
    except Refused as error:
        raise GRPCError(Status.FAILED_PRECONDITION, str(error)) from None


def _device(device: Device) -> pb.Device:
    topology = pb.TopologyInfo(nodes=[pb.NUMANode(ID=node) for node in device.numa]) if device.numa else None
    return pb.Device(ID=device.id, health="Healthy" if device.healthy else "Unhealthy", topology=topology)


def _answer(answer: Answer) -> pb.ContainerAllocateResponse:
    return pb.ContainerAllocateResponse(
        envs=answer.envs,
        mounts=[pb.Mount(host_path=m.source, container_path=m.target, read_only=m.readOnly) for m in answer.mounts],
        devices=[
            pb.DeviceSpec(host_path=d.source, container_path=d.target, permissions=d.permissions)
            for d in answer.devices
        ],
        annotations=answer.annotations,
        cdi_devices=[pb.CDIDevice(name=name) for name in answer.cdi],
    )
