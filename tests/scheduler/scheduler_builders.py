"""Short ways to write nodes, pods and snapshots in tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.scheduler.cache import Cache
from minik8s.scheduler.model import PodInfo
from minik8s.scheduler.snapshot import Snapshot


def node(
    name: str = "n1", *, cpu: Any = "4", memory: Any = "8Gi", pods: int = 110, labels: Any = None, **more: Any
) -> Node:
    extra = more.pop("extra", {})
    document = {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {key: more[key] for key in ("taints", "unschedulable") if key in more},
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory, "pods": pods, **extra},
            "images": more.get("images", []),
        },
    }
    return msgspec.convert(document, Node)


def pod(
    name: str = "p",
    *,
    cpu: Any = None,
    memory: Any = None,
    namespace: str = "default",
    on: str = "",
    owner: str = "",
    labels: Any = None,
    image: str = "app:1",
    ports: Iterable[Any] = (),
    extra: Any = None,
    created: str = "",
    deleting: bool = False,
    status: Any = None,
    **spec: Any,
) -> Pod:
    requests = {k: v for k, v in {"cpu": cpu, "memory": memory, **(extra or {})}.items() if v is not None}
    meta: dict[str, Any] = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": labels or {}}
    meta["creationTimestamp"] = created
    if owner:
        meta["ownerReferences"] = [{"kind": "ReplicaSet", "name": owner, "uid": owner, "controller": True}]
    if deleting:
        meta["deletionTimestamp"] = "2024-01-01T00:00:00Z"
    container = {"name": "c", "image": image, "ports": list(ports), "resources": {"requests": requests}}
    document = {
        "metadata": meta,
        "spec": {"nodeName": on, "containers": [container], **spec},
        "status": status or {},
    }
    return msgspec.convert(document, Pod)


def cluster(nodes: Iterable[Node], pods: Iterable[Pod] = ()) -> Cache:
    cache = Cache()
    for each in nodes:
        cache.snapshot.set_node(each)
    for each in pods:
        cache.set_pod(each)
    return cache


def snapshot(nodes: Iterable[Node], pods: Iterable[Pod] = ()) -> Snapshot:
    return cluster(nodes, pods).snapshot


def info(each: Pod) -> PodInfo:
    return Cache().info(each)


def anti(app: str, key: str = "kubernetes.io/hostname") -> dict[str, Any]:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def near(app: str, key: str = "kubernetes.io/hostname", **more: Any) -> dict[str, Any]:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}, **more}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def spread(key: str, app: str, *, skew: int = 1, soft: bool = False, **more: Any) -> dict[str, Any]:
    when = "ScheduleAnyway" if soft else "DoNotSchedule"
    selector = {"matchLabels": {"app": app}}
    return {"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": when, "labelSelector": selector, **more}
