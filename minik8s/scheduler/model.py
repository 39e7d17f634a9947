"""What the scheduler knows: a pod's shape, a pod, a node with its pods, and why a node was refused.

Deployments make thousands of pods that differ in nothing the scheduler looks at. What it does look at is worked out
once per distinct spec, as a `Shape`; a pod is then a shape with a name, labels and an owner. Amounts are integers
(cpu in millicores, all else in whole units).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Affinity, Pod, PodAffinityTerm, PodSpec
from minik8s.api.placement import pinned_nodes
from minik8s.api.quantity import Written
from minik8s.api.resources import CPU, MEMORY, PODS, amounts, pod_requests, usual_requests

ZONE = "topology.kubernetes.io/zone"
ANY_IP = "0.0.0.0"  # a hostPort without hostIP listens on all of the node's addresses
TERMINAL = ("Succeeded", "Failed")

Port = tuple[str, str, int]  # hostIP, protocol, hostPort


class Reason(NamedTuple):
    """Why a node was refused. `text` is counted over nodes, `detail` is told for this node alone.

    `permanent`: evicting pods from the node would not help. `plugin` tells which changes may help.
    """

    plugin: str
    text: str
    detail: str = ""
    permanent: bool = False


class Usage(NamedTuple):
    """What a node really used, measured at Unix time `at`: CPU in cores, memory in bytes."""

    cpu: float
    memory: int
    at: float = 0.0


class Shape:
    """Everything of a pod's spec that decides where it may run and would like to; computed once per distinct spec."""

    __slots__ = (
        "affinity", "cpu", "fault", "images", "is_local", "key", "memory", "pinned", "ports", "requests",
        "required_anti", "spec", "weighted_anti", "weighted_pro",
    )  # fmt: skip

    def __init__(self, key: bytes, spec: PodSpec) -> None:
        self.key = key
        self.spec = spec
        self.fault = ""  # what is wrong with the pod's quantities; such a pod fits nowhere
        self.cpu = self.memory = 0  # what scores count with
        requests = {}
        try:
            requests = pod_requests(spec)
            self.cpu, self.memory = usual_requests(spec)
        except ValueError as error:
            self.fault = str(error)
        self.requests = tuple((name, n) for name, n in {**requests, PODS: 1}.items() if n > 0)
        self.ports = host_ports(spec)
        self.images = tuple(container.image for container in spec.containers)
        self.pinned = pinned_nodes(spec)
        affinity = spec.affinity or Affinity()
        self.affinity = affinity.nodeAffinity
        pro, anti = affinity.podAffinity, affinity.podAntiAffinity
        self.required_anti: tuple[PodAffinityTerm, ...] = (
            anti.requiredDuringSchedulingIgnoredDuringExecution if anti else ()
        )
        self.weighted_pro = pro.preferredDuringSchedulingIgnoredDuringExecution if pro else ()
        self.weighted_anti = anti.preferredDuringSchedulingIgnoredDuringExecution if anti else ()
        # local: whether a node fits, and how well, depends on that node alone
        self.is_local = pro is None and anti is None and not spec.topologySpreadConstraints and self.pinned is None

    @property
    def has_terms(self) -> bool:
        """Whether pods of this shape care which pods are near them, also after they have been placed."""
        return self.spec.affinity is not None and (
            self.spec.affinity.podAffinity is not None or self.spec.affinity.podAntiAffinity is not None
        )


class PodInfo:
    """A pod as the scheduler sees it; `node` is where it is, or is assumed to be ("" = nowhere yet)."""

    __slots__ = (
        "created", "deleting", "key", "labels", "name", "namespace", "node", "owner", "priority", "shape", "uid",
    )  # fmt: skip

    def __init__(self, pod: Pod, shape: Shape, *, node: str = "") -> None:
        meta = pod.metadata
        self.key = pod.key
        self.name = meta.name
        self.namespace = meta.namespace
        self.uid = meta.uid
        self.labels = meta.labels
        self.created = meta.creationTimestamp
        self.deleting = pod.deleting
        controller = pod.controller
        self.owner = controller.uid if controller else ""
        self.priority = pod.spec.priority
        self.node = node or pod.spec.nodeName
        self.shape = shape


class NodeInfo:
    """A node and the sum of its pods. Only the snapshot changes it (and trial copies that preemption makes)."""

    __slots__ = (
        "allocatable", "cpu", "fresh", "images", "memory", "name", "node", "owners", "pods", "ports", "requested",
        "usage", "zone",
    )  # fmt: skip

    def __init__(self, node: Node) -> None:
        self.pods: dict[str, PodInfo] = {}
        self.requested: dict[str, int] = {}
        self.cpu = 0  # millicores and bytes by the usual requests, what scores count with
        self.memory = 0
        self.ports: dict[Port, int] = {}
        self.owners: dict[str, int] = {}
        self.usage: Usage | None = None
        self.fresh: dict[str, PodInfo] = {}  # pods that came after `usage` was measured
        self.set_node(node)

    def set_node(self, node: Node) -> None:
        self.node = node
        self.name = node.metadata.name
        self.zone = node.metadata.labels.get(ZONE, "")
        self.allocatable = _readable(node.status.allocatable or node.status.capacity)
        self.images = {name: image.sizeBytes for image in node.status.images for name in image.names}

    def set_usage(self, usage: Usage | None) -> None:
        self.usage = usage
        self.fresh.clear()

    def add(self, pod: PodInfo) -> None:
        shape = pod.shape
        self.pods[pod.key] = pod
        for name, amount in shape.requests:
            self.requested[name] = self.requested.get(name, 0) + amount
        self.cpu += shape.cpu
        self.memory += shape.memory
        for port in shape.ports:
            self.ports[port] = self.ports.get(port, 0) + 1
        if pod.owner:
            self.owners[pod.owner] = self.owners.get(pod.owner, 0) + 1
        if self.usage is not None:
            self.fresh[pod.key] = pod

    def remove(self, key: str) -> PodInfo | None:
        pod = self.pods.pop(key, None)
        if pod is None:
            return None
        for name, amount in pod.shape.requests:
            self.requested[name] -= amount
        self.cpu -= pod.shape.cpu
        self.memory -= pod.shape.memory
        for port in pod.shape.ports:
            _count_down(self.ports, port)
        if pod.owner:
            _count_down(self.owners, pod.owner)
        self.fresh.pop(key, None)
        return pod

    def trial(self, *, without: Iterable[str] = (), plus: Iterable[PodInfo] = ()) -> NodeInfo:
        """A copy with some pods gone and some more there, to ask what would be."""
        copy = NodeInfo.__new__(NodeInfo)
        for slot in NodeInfo.__slots__:
            value = getattr(self, slot)
            setattr(copy, slot, value.copy() if isinstance(value, dict) else value)
        for key in without:
            copy.remove(key)
        for pod in plus:
            if pod.key not in copy.pods:
                copy.add(pod)
        return copy


def _readable(quantities: Mapping[str, Written]) -> dict[str, int]:
    """Amounts; what is no quantity counts as nothing, for one wrong node must not stop all scheduling."""
    found: dict[str, int] = {}
    for name, value in quantities.items():
        with suppress(ValueError):
            found |= amounts({name: value})
    return found


def host_ports(spec: PodSpec) -> tuple[Port, ...]:
    """What the pod binds on its node. A hostPort of 0 is no port or, where the kubelet picks one, any free one."""
    return tuple(
        (port.hostIP or ANY_IP, port.protocol or "TCP", port.hostPort)
        for container in (*spec.containers, *spec.initContainers)
        for port in container.ports
        if port.hostPort > 0
    )


_encoder = msgspec.msgpack.Encoder()


def shape_key(spec: PodSpec) -> bytes:
    """Equal for pods that the scheduler need not tell apart but by labels and owner."""
    parts: list[Any] = [[c.image, c.resources, c.ports] for c in spec.containers]
    parts += [[c.resources, c.ports, c.restartPolicy] for c in spec.initContainers]
    rest = (spec.nodeSelector, spec.affinity, spec.tolerations, spec.topologySpreadConstraints, spec.overhead)
    return _encoder.encode((parts, rest))


class Shapes:
    """Shapes by their key, the least recently used forgotten; sharing saves time and memory, nothing depends on it."""

    def __init__(self, limit: int = 512) -> None:
        self._limit = limit
        self._shapes: dict[bytes, Shape] = {}

    def of(self, pod: Pod) -> Shape:
        key = shape_key(pod.spec)
        shape = self._shapes.pop(key, None) or Shape(key, pod.spec)
        self._shapes[key] = shape
        if len(self._shapes) > self._limit:
            del self._shapes[next(iter(self._shapes))]
        return shape


def _count_down(counts: dict[Any, int], key: Any) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def free(node: NodeInfo, name: str) -> int:
    """How much of a resource is not yet requested on the node."""
    return node.allocatable.get(name, 0) - node.requested.get(name, 0)


def amount_text(name: str, amount: int) -> str:
    """An amount for people: `1500m` of CPU, `64Mi` of memory, a plain number of anything else."""
    if name == CPU:
        return f"{amount}m" if amount % 1000 else str(amount // 1000)
    if name == MEMORY or name.startswith(("hugepages-", "ephemeral-storage")):
        return f"{amount / 2**20:.4g}Mi"
    return str(amount)


def same_labels(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    """Whether all of `a` is in `b`: a Service's selector."""
    return all(b.get(key) == value for key, value in a.items())
