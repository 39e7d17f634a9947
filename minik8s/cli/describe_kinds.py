"""The sections of `describe` for the kinds that people look at most."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from minik8s.api.errors import StatusError
from minik8s.api.kinds.columns import selector_text
from minik8s.api.quantity import cpu_millis, to_bytes
from minik8s.cli.describe_autoscaler import autoscaler
from minik8s.cli.describe_function import function
from minik8s.cli.describe_pod import pod, template
from minik8s.cli.describe_routing import dns, ingress, service
from minik8s.cli.describe_text import NONE, Lines, age, controlled_by, head, mapping, when

Json = dict[str, Any]
ROLE = "node-role.kubernetes.io/"


def _conditions(lines: Lines, status: Json) -> None:
    if status.get("conditions"):
        lines.text("Conditions:")
        rows = [(c["type"], c["status"], c.get("reason", "")) for c in status["conditions"]]
        lines.table(1, ("Type", "Status", "Reason"), rows)


def deployment(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    spec, status = obj["spec"], obj.get("status") or {}
    lines.add("Name", obj["metadata"]["name"])
    lines.add("Namespace", obj["metadata"]["namespace"])
    lines.add("CreationTimestamp", when(obj["metadata"].get("creationTimestamp")))
    rest = Lines()
    head(rest, obj)
    lines.texts += rest.texts[2:]
    lines.add("Selector", selector_text(spec.get("selector")))
    count = [status.get(key, 0) for key in ("updatedReplicas", "replicas", "availableReplicas", "unavailableReplicas")]
    lines.add(
        "Replicas",
        f"{spec.get('replicas', 1)} desired | {count[0]} updated | {count[1]} total | {count[2]} available | "
        f"{count[3]} unavailable",
    )
    strategy = spec.get("strategy") or {}
    lines.add("StrategyType", strategy.get("type", ""))
    lines.add("MinReadySeconds", spec.get("minReadySeconds", 0))
    if rolling := strategy.get("rollingUpdate"):
        text = f"{rolling.get('maxUnavailable', '')} max unavailable, {rolling.get('maxSurge', '')} max surge"
        lines.add("RollingUpdateStrategy", text)
    if spec.get("paused"):
        lines.add("Paused", "true")
    template(lines, obj)
    _conditions(lines, status)
    _replica_sets(lines, obj, cluster)


def _replica_sets(lines: Lines, obj: Json, cluster: Any) -> None:
    try:
        path = cluster.kinds.find("replicasets.apps").path(obj["metadata"]["namespace"])
        listed = cluster.wire.get(path)["items"]
    except StatusError:
        return
    uid, revision = obj["metadata"]["uid"], "deployment.kubernetes.io/revision"
    owned = [rs for rs in listed if any(o["uid"] == uid for o in rs["metadata"].get("ownerReferences") or ())]
    newest = (obj["metadata"].get("annotations") or {}).get(revision)
    new = [rs for rs in owned if (rs["metadata"].get("annotations") or {}).get(revision) == newest]
    old = [
        rs for rs in owned if rs not in new and ((rs.get("status") or {}).get("replicas") or rs["spec"].get("replicas"))
    ]
    for label, found in (("OldReplicaSets", old), ("NewReplicaSet", new)):
        texts = [
            f"{rs['metadata']['name']} ({(rs.get('status') or {}).get('replicas', 0)}/{rs['spec'].get('replicas', 0)} "
            "replicas created)"
            for rs in found
        ]
        lines.add(label, ", ".join(texts) or NONE)


def replica_set(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    spec, status = obj["spec"], obj.get("status") or {}
    head(lines, obj)
    controlled_by(lines, obj["metadata"])
    lines.add("Selector", selector_text(spec.get("selector")))
    lines.add("Replicas", f"{status.get('replicas', 0)} current / {spec.get('replicas', 1)} desired")
    _pods_status(lines, obj, cluster)
    template(lines, obj)
    _conditions(lines, status)


def daemon_set(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    status = obj.get("status") or {}
    head(lines, obj)
    lines.add("Selector", selector_text(obj["spec"].get("selector")))
    for label, key in (
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ):
        lines.add(label, status.get(key, 0))
    _pods_status(lines, obj, cluster)
    template(lines, obj)


def job(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    spec, status = obj["spec"], obj.get("status") or {}
    head(lines, obj)
    controlled_by(lines, obj["metadata"])
    lines.add("Selector", selector_text(spec.get("selector")))
    lines.add("Parallelism", spec.get("parallelism", NONE))
    lines.add("Completions", spec.get("completions", NONE))
    lines.add("Completion Mode", spec.get("completionMode", "NonIndexed"))
    lines.add("Suspend", str(bool(spec.get("suspend"))).lower())
    lines.add("Backoff Limit", spec.get("backoffLimit", 6))
    for label, value in (
        ("Start Time", status.get("startTime")), ("Completed At", status.get("completionTime"))
    ):  # fmt: skip
        if value:
            lines.add(label, when(value))
    if spec.get("activeDeadlineSeconds"):
        lines.add("Active Deadline Seconds", f"{spec['activeDeadlineSeconds']}s")
    counts = (
        f"{status.get('active', 0)} Active / {status.get('succeeded', 0)} Succeeded / {status.get('failed', 0)} Failed"
    )
    lines.add("Pods Statuses", counts)
    template(lines, obj)
    _conditions(lines, status)


def _pods_status(lines: Lines, obj: Json, cluster: Any) -> None:
    path = cluster.kinds.find("pods.v1.").path(obj["metadata"]["namespace"])
    query = {"labelSelector": selector_text(obj["spec"].get("selector"))}
    try:
        found = cluster.wire.get(path, query)["items"]
    except StatusError:
        return
    phases = [
        (pod.get("status") or {}).get("phase", "Pending")
        for pod in found
        if any(owner["uid"] == obj["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences") or ())
    ]
    names = (("Running", "Running"), ("Waiting", "Pending"), ("Succeeded", "Succeeded"), ("Failed", "Failed"))
    lines.add("Pods Status", " / ".join(f"{phases.count(phase)} {label}" for label, phase in names))


def node(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    lines.add("Name", meta["name"])
    roles = sorted(key.removeprefix(ROLE) for key in meta.get("labels") or () if key.startswith(ROLE))
    lines.add("Roles", ",".join(roles) or NONE)
    mapping(lines, "Labels", meta.get("labels"))
    mapping(lines, "Annotations", meta.get("annotations"), sep=": ")
    lines.add("CreationTimestamp", when(meta.get("creationTimestamp")))
    taints = [f"{t['key']}{'=' + t['value'] if t.get('value') else ''}:{t['effect']}" for t in spec.get("taints") or ()]
    lines.add("Taints", "\n".join(taints) or NONE)
    lines.add("Unschedulable", str(bool(spec.get("unschedulable"))).lower())
    if status.get("conditions"):
        lines.text("Conditions:")
        rows = [
            (c["type"], c["status"], when(c.get("lastHeartbeatTime")), when(c.get("lastTransitionTime")),
             c.get("reason", ""), c.get("message", ""))
            for c in status["conditions"]
        ]  # fmt: skip
        lines.table(1, ("Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"), rows)
    lines.text("Addresses:")
    for address in status.get("addresses") or ():
        lines.add(address["type"], address["address"], 1)
    for label, key in (("Capacity", "capacity"), ("Allocatable", "allocatable")):
        lines.text(f"{label}:")
        for name, amount in sorted((status.get(key) or {}).items()):
            lines.add(name, amount, 1)
    lines.text("System Info:")
    for key, value in (status.get("nodeInfo") or {}).items():
        if not isinstance(value, dict | list):
            from minik8s.cli.describe_text import title

            lines.add(title(key), value, 1)
    if spec.get("podCIDR"):
        lines.add("PodCIDR", spec["podCIDR"])
    _devices_of_node(lines, meta["name"], status.get("capacity") or {}, cluster)
    _pods_of_node(lines, meta["name"], status.get("allocatable") or {}, cluster, now)


def _devices_of_node(lines: Lines, name: str, capacity: Json, cluster: Any) -> None:
    """As the node's kubelet tells them, where it has any; from elsewhere and while it is away, capacity must do."""
    if not any("/" in resource for resource in capacity):
        return
    try:
        told = cluster.wire.get(f"/api/v1/nodes/{name}/proxy/devices")["resources"]
    except StatusError:
        return
    lines.text("Devices:")
    rows = [
        (known["name"], device["id"], "Healthy" if device["healthy"] else "Unhealthy", device["holder"] or NONE)
        for known in told
        for device in known["devices"]
    ]
    lines.table(1, ("Resource", "Device", "Health", "Holder"), rows)


def _pods_of_node(lines: Lines, name: str, room: Json, cluster: Any, now: float) -> None:
    path = cluster.kinds.find("pods.v1.").path()
    fields = f"spec.nodeName={name},status.phase!=Succeeded,status.phase!=Failed"
    try:
        pods = cluster.wire.get(path, {"fieldSelector": fields})["items"]
    except StatusError:
        return
    lines.text(f"Non-terminated Pods:  ({len(pods)} in total)")
    rows = []
    totals = dict.fromkeys([(part, what) for part in ("requests", "limits") for what in ("cpu", "memory")], 0)
    for found in pods:
        sums = {pair: _sum(found, *pair) for pair in totals}
        totals = {pair: totals[pair] + sums[pair] for pair in totals}
        cells = [_amount(sums[part, what], what, room) for what in ("cpu", "memory") for part in ("requests", "limits")]
        meta = found["metadata"]
        rows.append((meta["namespace"], meta["name"], *cells, age(meta.get("creationTimestamp"), now)))
    titles = ("CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits")
    lines.table(1, ("Namespace", "Name", *titles, "Age"), rows)
    lines.text("Allocated resources:")
    summary = [
        (what, *(_amount(totals[part, what], what, room) for part in ("requests", "limits")))
        for what in ("cpu", "memory")
    ]
    lines.table(1, ("Resource", "Requests", "Limits"), summary)


def _sum(pod: Json, part: str, what: str) -> int:
    measure = cpu_millis if what == "cpu" else to_bytes
    amounts = [((c.get("resources") or {}).get(part) or {}).get(what, "0") for c in pod["spec"]["containers"]]
    return sum(map(measure, amounts))


def _amount(amount: int, what: str, room: Json) -> str:
    measure = cpu_millis if what == "cpu" else to_bytes
    total = measure(room[what]) if what in room else 0
    text = f"{amount}m" if what == "cpu" and amount else f"{amount // 2**20}Mi" if amount else "0"
    return f"{text} ({amount * 100 // total if total else 0}%)"


def config_map(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    head(lines, obj)
    lines.text("")
    lines.text("Data")
    lines.text("====")
    for key, value in sorted((obj.get("data") or {}).items()):
        lines.texts += [f"{key}:", "----", *str(value).split("\n"), ""]
    for key, value in sorted((obj.get("binaryData") or {}).items()):
        lines.add(key, f"{len(base64.b64decode(value))} bytes")


def secret(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    """Sizes only: what is secret stays so."""
    head(lines, obj)
    lines.text("")
    lines.add("Type", obj.get("type", "Opaque"))
    lines.text("")
    lines.text("Data")
    lines.text("====")
    for key, value in sorted((obj.get("data") or {}).items()):
        lines.add(key, f"{len(base64.b64decode(value))} bytes")


Section = Callable[[Lines, Json, Any, float], None]
SECTIONS: dict[tuple[str, str], Section] = {
    ("", "Pod"): pod,
    ("", "Node"): node,
    ("", "Service"): service,
    ("", "ConfigMap"): config_map,
    ("", "Secret"): secret,
    ("apps", "Deployment"): deployment,
    ("apps", "ReplicaSet"): replica_set,
    ("apps", "DaemonSet"): daemon_set,
    ("batch", "Job"): job,
    ("autoscaling", "HorizontalPodAutoscaler"): autoscaler,
    ("networking.k8s.io", "Ingress"): ingress,
    ("net.minik8s.io", "DNS"): dns,
    ("faas.minik8s.io", "Function"): function,
    ("", "DNS"): dns,  # as old manifests call it
}
