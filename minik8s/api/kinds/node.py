"""Node: a machine that runs pods; its kubelet owns the status, the node controller judges its silence."""

from __future__ import annotations

from minik8s.api.errors import Cause, duplicate, forbidden, not_supported, required
from minik8s.api.kinds.columns import AGE, NAME, NONE, dig
from minik8s.api.kinds.validation import validate_quantity
from minik8s.api.meta import Condition, IntOrString, Object, Struct
from minik8s.api.resource import Column, Json, Resource

KEY_ANNOTATION = "minik8s.io/node-key"  # the id of its agent's key, by which the machine is known again


SIMULATED_BY = "minik8s.io/simulated-by"  # label of a node that exists only in the agent of that name
RANGE_ANNOTATION = "minik8s.io/pod-cidr"  # the range that a node which registers anew had before, and asks for again


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


ROLE_LABEL = "node-role.kubernetes.io/"
EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")


def _status(node: Json, now: float) -> str:
    ready = next((c for c in dig(node, "status.conditions", ()) if c.get("type") == "Ready"), None)
    words = ["Unknown"] if ready is None else ["Ready" if ready.get("status") == "True" else "NotReady"]
    return ",".join([*words, *(["SchedulingDisabled"] if dig(node, "spec.unschedulable") else [])])


def _roles(node: Json, now: float) -> str:
    labels = dig(node, "metadata.labels", {})
    roles = sorted(key.removeprefix(ROLE_LABEL) for key in labels if key.startswith(ROLE_LABEL) and key != ROLE_LABEL)
    return ",".join(roles) or NONE


def _address(node: Json, type: str) -> str:
    return next((a["address"] for a in dig(node, "status.addresses", ()) if a.get("type") == type), NONE)


def _default(node: Json) -> None:
    node.setdefault("spec", {})


def _validate(node: Json, old: Json | None) -> list[Cause]:
    causes: list[Cause] = []
    seen = set()
    for index, taint in enumerate(dig(node, "spec.taints", ())):
        here, key, effect = f"spec.taints[{index}]", taint.get("key"), taint.get("effect")
        if not key:
            causes.append(required(f"{here}.key"))
        if effect not in EFFECTS:
            causes.append(not_supported(f"{here}.effect", effect, EFFECTS))
        if (key, effect) in seen:
            causes.append(duplicate(here, f"{key}:{effect}"))
        seen.add((key, effect))
    for part in ("capacity", "allocatable"):
        for name, value in dig(node, f"status.{part}", {}).items():
            causes += validate_quantity(value, f"status.{part}[{name}]")
    if old is not None:
        for field in ("podCIDR", "providerID"):
            before = dig(old, f"spec.{field}")
            if before and dig(node, f"spec.{field}") != before:
                causes.append(forbidden(f"spec.{field}", "node updates may not change it once it is set"))
    return causes


RESOURCE = Resource(
    kind="Node",
    plural="nodes",
    type=Node,
    definition="io.k8s.api.core.v1.Node",
    shortNames=("no",),
    namespaced=False,
    subresources=frozenset(("status", "proxy")),
    columns=(
        NAME,
        Column("Status", _status, description="Ready, NotReady or Unknown; and whether new pods may come."),
        Column("Roles", _roles, description="From labels node-role.kubernetes.io/ROLE."),
        AGE,
        Column(
            "Version", lambda node, now: dig(node, "status.nodeInfo.kubeletVersion", ""), description="Of the kubelet."
        ),
        Column("Internal-IP", lambda node, now: _address(node, "InternalIP"), priority=1, description="Address."),
        Column("External-IP", lambda node, now: _address(node, "ExternalIP"), priority=1, description="Outer address."),
        Column("OS-Image", lambda node, now: dig(node, "status.nodeInfo.osImage", "<unknown>"), priority=1),
        Column("Kernel-Version", lambda node, now: dig(node, "status.nodeInfo.kernelVersion", "<unknown>"), priority=1),
        Column(
            "Container-Runtime",
            lambda node, now: dig(node, "status.nodeInfo.containerRuntimeVersion", "<unknown>"),
            priority=1,
        ),
    ),
    default=_default,
    validate=_validate,
    selectable={"spec.unschedulable": lambda node: "true" if dig(node, "spec.unschedulable") else "false"},
)
