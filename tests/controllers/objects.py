"""Small objects for tests of decisions: only what a case is about is said."""

from __future__ import annotations

from typing import Any

import msgspec

from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.kinds.service import Service
from minik8s.clock import rfc3339

NOW = 1_700_000_000.0


def pod(
    name: str = "p",
    *,
    ready: bool | None = None,
    since: float = NOW - 60,
    phase: str = "Running",
    node: str = "n1",
    ip: str = "",
    labels: dict[str, str] | None = None,
    created: float = NOW - 100,
    deleting: bool = False,
    restarts: int = 0,
    annotations: dict[str, str] | None = None,
    spec: dict[str, Any] | None = None,
) -> Pod:
    meta: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "creationTimestamp": rfc3339(created),
        "labels": labels or {},
        "annotations": annotations or {},
    }
    if deleting:
        meta["deletionTimestamp"] = rfc3339(NOW)
    conditions = []
    if ready is not None:
        status = "True" if ready else "False"
        conditions.append({"type": "Ready", "status": status, "lastTransitionTime": rfc3339(since)})
    return msgspec.convert(
        {
            "metadata": meta,
            "spec": {"nodeName": node, **(spec or {})},
            "status": {
                "phase": phase,
                "podIP": ip,
                "podIPs": [{"ip": ip}] if ip else [],
                "conditions": conditions,
                "containerStatuses": [{"restartCount": restarts}],
            },
        },
        Pod,
    )


def deployment(replicas: int, *, surge: int | str = "25%", unavailable: int | str = "25%", **spec: Any) -> Deployment:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    return msgspec.convert(
        {
            "metadata": {"name": "web", "namespace": "default", "uid": "uid-web", "generation": 1},
            "spec": {
                "replicas": replicas,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
                **spec,
            },
        },
        Deployment,
    )


def replica_set(
    name: str,
    replicas: int,
    *,
    available: int | None = None,
    status: int | None = None,
    age: int = 0,
    **annotations: str,
) -> ReplicaSet:
    """`age` 0 is the newest; annotations by the last part of their name, with `_` for `-`."""
    count = replicas if status is None else status
    named = {f"deployment.kubernetes.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": f"uid-{name}",
                "creationTimestamp": rfc3339(NOW - 1000 * (age + 1)),
                "annotations": named,
            },
            "spec": {"replicas": replicas},
            "status": {
                "replicas": count,
                "readyReplicas": count if available is None else available,
                "availableReplicas": count if available is None else available,
            },
        },
        ReplicaSet,
    )


def node(name: str = "n1", *, ready: str = "True", **spec: Any) -> Node:
    return msgspec.convert(
        {
            "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": rfc3339(NOW - 100)},
            "spec": spec,
            "status": {
                "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": rfc3339(NOW - 1)}]
                if ready
                else [],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            },
        },
        Node,
    )


def service(name: str = "web", **spec: Any) -> Service:
    given = {"selector": {"app": "web"}, "clusterIP": "10.96.0.10", "ports": [{"port": 80}], **spec}
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"}, "spec": given}, Service
    )
