"""Node: a machine that runs pods; its kubelet owns the status, the node controller judges its silence."""

from __future__ import annotations

from minik8s.api.meta import Condition, IntOrString, Object, Struct
from minik8s.api.resource import Resource


class Taint(Struct):
    key: str = ""
    value: str = ""
    effect: str = ""  # NoSchedule | PreferNoSchedule | NoExecute
    timeAdded: str = ""


class NodeSpec(Struct):
    podCIDR: str = ""
    podCIDRs: tuple[str, ...] = ()
    providerID: str = ""
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeAddress(Struct):
    type: str = ""  # InternalIP | Hostname | ExternalIP
    address: str = ""


class DaemonEndpoint(Struct):
    Port: int = 0


class NodeDaemonEndpoints(Struct):
    kubeletEndpoint: DaemonEndpoint = DaemonEndpoint()


class NodeSystemInfo(Struct):
    machineID: str = ""
    systemUUID: str = ""
    bootID: str = ""
    kernelVersion: str = ""
    osImage: str = ""
    containerRuntimeVersion: str = ""
    kubeletVersion: str = ""
    kubeProxyVersion: str = ""
    operatingSystem: str = ""
    architecture: str = ""


class ContainerImage(Struct):
    names: tuple[str, ...] = ()
    sizeBytes: int = 0


class NodeStatus(Struct):
    capacity: dict[str, IntOrString | float] = {}
    allocatable: dict[str, IntOrString | float] = {}
    conditions: tuple[Condition, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()
    daemonEndpoints: NodeDaemonEndpoints = NodeDaemonEndpoints()
    nodeInfo: NodeSystemInfo = NodeSystemInfo()
    images: tuple[ContainerImage, ...] = ()


class Node(Object):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


RESOURCE = Resource(
    kind="Node",
    plural="nodes",
    type=Node,
    definition="io.k8s.api.core.v1.Node",
    shortNames=("no",),
    namespaced=False,
    subresources=frozenset(("status",)),
)
