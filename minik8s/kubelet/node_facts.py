"""What a machine is: read from the kernel and the engine, told as a Node's status by a pure function."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minik8s import KUBERNETES_VERSION
from minik8s.api.kinds.node import NodeStatus
from minik8s.api.meta import Condition
from minik8s.clock import rfc3339
from minik8s.kubelet.kit import Amount, Settings
from minik8s.runtime.base import EngineInfo, ImageInfo

Json = dict[str, Any]
MAX_IMAGES = 50  # kubelet's --node-status-max-images
KUBELET_VERSION = KUBERNETES_VERSION  # the release whose kubelet this one behaves like


class Facts(NamedTuple):
    cpus: int
    memory: int  # bytes
    disk: int  # bytes of the file system that holds the data
    machine_id: str
    system_uuid: str
    boot_id: str
    kernel: str
    os_image: str
    architecture: str  # Go's word: amd64, arm64


class RoutesState(NamedTuple):
    """Whether the ways to other nodes' pods are set, as the condition NetworkUnavailable says it."""

    available: bool
    reason: str
    message: str


class Health(NamedTuple):
    """Empty texts mean well; others say what is wrong, in words for people."""

    runtime: str = ""
    network: str = ""
    memory_pressure: bool = False
    disk_pressure: bool = False
    pid_pressure: bool = False
    routes: RoutesState | None = None  # None: not known here, and not told


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}


def read_facts(data_dir: Path | None) -> Facts:
    """Blocking."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    root = data_dir if data_dir is not None and data_dir.exists() else Path("/")
    return Facts(
        cpus=len(os.sched_getaffinity(0)),
        memory=memory,
        disk=shutil.disk_usage(root).total,
        machine_id=_read("/etc/machine-id"),
        system_uuid=_read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id"),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        kernel=platform.release(),
        os_image=_os_image(_read("/etc/os-release")),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_image(release: str) -> str:
    pairs = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    return pairs.get("PRETTY_NAME", "Linux").strip('"')


def node_labels(settings: Settings, facts: Facts) -> dict[str, str]:
    return {
        "kubernetes.io/hostname": settings.node_name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": facts.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": facts.architecture,
    } | settings.labels


def resources(settings: Settings, facts: Facts, extended: Mapping[str, Amount | None]) -> tuple[Json, Json]:
    """(capacity, allocatable), as quantities; a resource that is lost is None, which as a patch removes it."""
    capacity: Json = {
        "cpu": str(facts.cpus),
        "memory": f"{facts.memory // 1024}Ki",
        "ephemeral-storage": f"{facts.disk // 1024}Ki",
        "pods": str(settings.max_pods),
    }
    # kubelet keeps a tenth of the disk (its hard eviction threshold) and 100Mi of memory for itself.
    allocatable = capacity | {
        "memory": f"{max(facts.memory // 1024 - 100 * 1024, 0)}Ki",
        "ephemeral-storage": str(facts.disk * 9 // 10),
    }
    capacity |= {name: str(amount.capacity) if amount else None for name, amount in extended.items()}
    allocatable |= {name: str(amount.allocatable) if amount else None for name, amount in extended.items()}
    return capacity, allocatable


def node_status(
    settings: Settings,
    facts: Facts,
    engine: EngineInfo | None,
    images: Sequence[ImageInfo],
    health: Health,
    extended: Mapping[str, Amount | None],
    before: Sequence[Condition],
    now: float,
) -> Json:
    """The status that a kubelet owns. `extended`: further resources, such as devices; `before`: conditions so far."""
    capacity, allocatable = resources(settings, facts, extended)
    return {
        "capacity": capacity,
        "allocatable": allocatable,
        "conditions": _conditions(health, before, now),
        "addresses": [
            {"type": "InternalIP", "address": settings.node_ip},
            {"type": "Hostname", "address": settings.node_name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.kubelet_port}},
        "nodeInfo": {
            "machineID": facts.machine_id,
            "systemUUID": facts.system_uuid,
            "bootID": facts.boot_id,
            "kernelVersion": facts.kernel,
            "osImage": facts.os_image,
            "containerRuntimeVersion": f"{engine.name}://{engine.version}" if engine else "unknown://",
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": KUBELET_VERSION,
            "operatingSystem": "linux",
            "architecture": facts.architecture,
        },
        "images": _images(images),
    }


def advertised(status: NodeStatus, own: Container[str]) -> dict[str, Any]:
    """What allocatable lacks of resources that somebody has added to a Node's capacity, and None for those that went.

    Kubernetes' way to name what no device plugin knows of. `own` are the names that this kubelet answers for.
    """
    told, there = (
        {name: amount for name, amount in part.items() if "/" in name and name not in own}
        for part in (status.capacity, status.allocatable)
    )
    changes: dict[str, Any] = {name: amount for name, amount in told.items() if there.get(name) != amount}
    return changes | {name: None for name in there if name not in told}


def _images(images: Sequence[ImageInfo]) -> list[Json]:
    named = sorted((i for i in images if i.names), key=lambda image: (-image.size, image.names))
    return [{"names": list(image.names), "sizeBytes": image.size} for image in named[:MAX_IMAGES]]


def _conditions(health: Health, before: Sequence[Condition], now: float) -> list[Json]:
    problems = [text for text in (health.runtime, health.network) if text]
    pressures = (
        ("MemoryPressure", health.memory_pressure, "HasInsufficientMemory", "HasSufficientMemory", "memory available"),
        ("DiskPressure", health.disk_pressure, "HasDiskPressure", "HasNoDiskPressure", "disk space"),
        ("PIDPressure", health.pid_pressure, "HasInsufficientPID", "HasSufficientPID", "PID available"),
    )
    found = []
    for kind, bad, when_bad, when_good, what in pressures:
        word = "insufficient" if bad else "sufficient"
        found.append((kind, "True" if bad else "False", f"Kubelet{when_bad if bad else when_good}", f"{word} {what}"))
    found[1] = (*found[1][:3], f"kubelet has {'' if health.disk_pressure else 'no '}disk pressure")
    for at in (0, 2):
        found[at] = (*found[at][:3], f"kubelet has {found[at][3]}")
    if health.routes is not None:
        available, reason, message = health.routes
        found.insert(0, ("NetworkUnavailable", "False" if available else "True", reason, message))
    if problems:
        found.append(("Ready", "False", "KubeletNotReady", "; ".join(problems)))
    else:
        found.append(("Ready", "True", "KubeletReady", "kubelet is posting ready status"))
    known = {condition.type: condition for condition in before}
    stamp = rfc3339(now)
    return [_condition(known.get(kind), kind, status, reason, text, stamp) for kind, status, reason, text in found]


def _condition(was: Condition | None, kind: str, status: str, reason: str, message: str, stamp: str) -> Json:
    same = was is not None and was.status == status and was.lastTransitionTime
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": stamp,
        "lastTransitionTime": was.lastTransitionTime if was is not None and same else stamp,
    }
