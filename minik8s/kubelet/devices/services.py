"""What is served on this node's sockets: registration of plugins, and who holds what. Imports gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpclib import GRPCError, Status

from minik8s.kubelet.devices.allocator import Holding
from minik8s.kubelet.devices.proto import deviceplugin_pb2 as plugins
from minik8s.kubelet.devices.proto import podresources_pb2 as pb
from minik8s.kubelet.devices.proto.deviceplugin_grpc import RegistrationBase
from minik8s.kubelet.devices.proto.podresources_grpc import PodResourcesListerBase
from minik8s.kubelet.devices.registering import fault

if TYPE_CHECKING:
    from grpclib.server import Stream

    from minik8s.api.kinds.pod import Pod
    from minik8s.kubelet.devices.manager import DeviceManager


class Registration(RegistrationBase):
    def __init__(self, manager: DeviceManager) -> None:
        self._manager = manager

    async def Register(self, stream: Stream[plugins.RegisterRequest, plugins.Empty]) -> None:  # noqa: N802
        request = await stream.recv_message()
        if request is None:
            return
        if problem := fault(request.version, request.resource_name, request.endpoint):
            raise GRPCError(Status.INVALID_ARGUMENT, problem)
        try:
            await self._manager.register(request.resource_name, request.endpoint)
        except OSError as error:
            raise GRPCError(Status.UNAVAILABLE, f"the kubelet cannot write it down: {error}") from None
        await stream.send_message(plugins.Empty())


class PodResources(PodResourcesListerBase):
    def __init__(self, manager: DeviceManager) -> None:
        self._manager = manager

    async def List(  # noqa: N802
        self, stream: Stream[pb.ListPodResourcesRequest, pb.ListPodResourcesResponse]
    ) -> None:
        await stream.recv_message()
        pods = [self._pod(pod) for pod in self._manager.pods()]
        await stream.send_message(pb.ListPodResourcesResponse(pod_resources=pods))

    async def Get(self, stream: Stream[pb.GetPodResourcesRequest, pb.GetPodResourcesResponse]) -> None:  # noqa: N802
        asked = await stream.recv_message()
        assert asked is not None
        wanted = (asked.pod_namespace, asked.pod_name)
        for pod in self._manager.pods():
            if (pod.metadata.namespace, pod.metadata.name) == wanted:
                await stream.send_message(pb.GetPodResourcesResponse(pod_resources=self._pod(pod)))
                return
        raise GRPCError(Status.NOT_FOUND, f"pod {asked.pod_name} in namespace {asked.pod_namespace} not found")

    async def GetAllocatableResources(  # noqa: N802
        self, stream: Stream[pb.AllocatableResourcesRequest, pb.AllocatableResourcesResponse]
    ) -> None:
        await stream.recv_message()
        found = [
            devices
            for resource, known in sorted(self._manager.healthy().items())
            for devices in self._grouped(resource, known)
        ]
        await stream.send_message(pb.AllocatableResourcesResponse(devices=found))

    def _pod(self, pod: Pod) -> pb.PodResources:
        meta, spec = pod.metadata, pod.spec
        held = self._manager.held(meta.uid)
        names = [container.name for container in (*spec.initContainers, *spec.containers)]
        containers = [
            pb.ContainerResources(name=name, devices=[d for h in held if h.container == name for d in self._devices(h)])
            for name in names
        ]
        return pb.PodResources(name=meta.name, namespace=meta.namespace, containers=containers)

    def _devices(self, holding: Holding) -> list[pb.ContainerDevices]:
        return self._grouped(holding.resource, holding.ids)

    def _grouped(self, resource: str, ids: tuple[str, ...]) -> list[pb.ContainerDevices]:
        """Devices that are near to the same NUMA nodes go together."""
        groups: dict[tuple[int, ...], list[str]] = {}
        for name in ids:
            groups.setdefault(self._manager.numa(resource, name), []).append(name)
        return [
            pb.ContainerDevices(resource_name=resource, device_ids=names, topology=_topology(nodes))
            for nodes, names in groups.items()
        ]


def _topology(nodes: tuple[int, ...]) -> pb.TopologyInfo | None:
    return pb.TopologyInfo(nodes=[pb.NUMANode(ID=node) for node in nodes]) if nodes else None
