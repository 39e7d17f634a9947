"""One device plugin as this node calls it: gRPC on the plugin's own socket, in this node's words.

grpclib is imported here and in `sockets.py` when the first plugin comes: most nodes have none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minik8s.kubelet.devices.allocator import Answer, Device, PluginDevice, PluginMount
from minik8s.kubelet.devices.errors import PluginFailed

if TYPE_CHECKING:
    from minik8s.kubelet.devices.proto import deviceplugin_pb2 as pb

DIAL_SECONDS = 10.0  # for a plugin that has registered to be reached
CALL_SECONDS = 60.0  # for any answer but PreStartContainer's
PRE_START_SECONDS = 30.0
PAUSE = 0.1  # seconds between attempts to connect
HEALTHY = "Healthy"


class Plugin:
    """`async with Plugin.dialled(path) as plugin`; its calls raise PluginFailed."""

    def __init__(self, path: Path) -> None:
        from grpclib.client import Channel

        from minik8s.kubelet.devices.proto.deviceplugin_grpc import DevicePluginStub

        self._channel = Channel(path=str(path))
        self._stub = DevicePluginStub(self._channel)
        self.pre_start_required = False
        self.has_preference = False

    async def dial(self) -> None:
        """Connect, and read what the plugin can do."""
        async with asyncio.timeout(DIAL_SECONDS):
            while True:
                try:
                    await self._channel.__connect__()
                    break
                except OSError:
                    await asyncio.sleep(PAUSE)
        from minik8s.kubelet.devices.proto.deviceplugin_pb2 import Empty

        with _translated("GetDevicePluginOptions"):
            options = await self._stub.GetDevicePluginOptions(Empty(), timeout=CALL_SECONDS)
        self.pre_start_required = options.pre_start_required
        self.has_preference = options.get_preferred_allocation_available

    def close(self) -> None:
        self._channel.close()

    async def lists(self) -> AsyncIterator[list[Device]]:
        """All devices, at each change, until the plugin ends."""
        from minik8s.kubelet.devices.proto.deviceplugin_pb2 import Empty

        with _translated("ListAndWatch"):
            async with self._stub.ListAndWatch.open() as stream:
                await stream.send_message(Empty(), end=True)
                async for message in stream:
                    yield [_device(device) for device in message.devices if device.ID]

    async def preferred(self, free: Sequence[str], must: Sequence[str], count: int) -> list[str]:
        from minik8s.kubelet.devices.proto import deviceplugin_pb2 as pb

        one = pb.ContainerPreferredAllocationRequest(
            available_deviceIDs=[*must, *free], must_include_deviceIDs=must, allocation_size=count
        )
        with _translated("GetPreferredAllocation"):
            answer = await self._stub.GetPreferredAllocation(
                pb.PreferredAllocationRequest(container_requests=[one]), timeout=CALL_SECONDS
            )
        return list(answer.container_responses[0].deviceIDs) if answer.container_responses else []

    async def allocate(self, ids: Sequence[str]) -> Answer:
        from minik8s.kubelet.devices.proto import deviceplugin_pb2 as pb

        request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)])
        with _translated("Allocate"):
            answer = await self._stub.Allocate(request, timeout=CALL_SECONDS)
        if len(answer.container_responses) != 1:
            raise PluginFailed(f"Allocate: {len(answer.container_responses)} answers to one request")
        return _answer(answer.container_responses[0])

    async def pre_start(self, ids: Sequence[str]) -> None:
        from minik8s.kubelet.devices.proto.deviceplugin_pb2 import PreStartContainerRequest

        with _translated("PreStartContainer"):
            await self._stub.PreStartContainer(PreStartContainerRequest(devices_ids=ids), timeout=PRE_START_SECONDS)


@contextmanager
def _translated(call: str) -> Iterator[None]:
    from google.protobuf.message import DecodeError
    from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

    try:
        yield
    except GRPCError as error:
        raise PluginFailed(f"{call}: {error.message or error.status.name}") from None
    except TimeoutError:
        raise PluginFailed(f"{call}: no answer in time") from None
    except DecodeError:
        raise PluginFailed(f"{call}: the answer is not what the device plugin API says") from None
    except (OSError, ProtocolError, StreamTerminatedError) as error:
        raise PluginFailed(f"{call}: the connection broke: {error}") from None


def _device(device: pb.Device) -> Device:
    nodes = tuple(sorted(node.ID for node in device.topology.nodes))
    return Device(device.ID, device.health == HEALTHY, nodes)


def _answer(said: Any) -> Answer:
    return Answer(
        envs=dict(said.envs),
        mounts=tuple(PluginMount(m.host_path, m.container_path, m.read_only) for m in said.mounts),
        devices=tuple(PluginDevice(d.host_path, d.container_path, d.permissions or "rwm") for d in said.devices),
        annotations=dict(said.annotations),
        cdi=tuple(device.name for device in said.cdi_devices),
    )
