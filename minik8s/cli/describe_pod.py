"""Pods and pod templates in words, and why a pod is not where it should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minik8s.cli.describe_text import NONE, Lines, controlled_by, head, mapping, when

Json = dict[str, Any]


def pod(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    spec, status = obj["spec"], obj.get("status") or {}
    lines.add("Name", obj["metadata"]["name"])
    lines.add("Namespace", obj["metadata"]["namespace"])
    lines.add("Priority", spec.get("priority", 0))
    if spec.get("priorityClassName"):
        lines.add("Priority Class Name", spec["priorityClassName"])
    lines.add("Service Account", spec.get("serviceAccountName", "default"))
    node = spec.get("nodeName")
    lines.add("Node", f"{node}/{status.get('hostIP', '')}" if node else NONE)
    if status.get("startTime"):
        lines.add("Start Time", when(status["startTime"]))
    rest = Lines()
    head(rest, obj)
    lines.texts += rest.texts[2:]  # name and namespace stand above
    deleting = obj["metadata"].get("deletionTimestamp")
    lines.add("Status", "Terminating" if deleting else status.get("phase", ""))
    for label, key in (("Reason", "reason"), ("Message", "message")):
        if status.get(key):
            lines.add(label, status[key])
    _why_pending(lines, spec, status)
    lines.add("IP", status.get("podIP", ""))
    if ips := [entry["ip"] for entry in status.get("podIPs") or ()]:
        lines.text("IPs:")
        for ip in ips:
            lines.add("IP", ip, 1)
    controlled_by(lines, obj["metadata"])
    states = {
        s["name"]: s
        for key in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
        for s in status.get(key) or ()
    }
    containers(lines, spec, states)
    if status.get("conditions"):
        lines.text("Conditions:")
        lines.row(1, "Type", "Status")
        for condition in status["conditions"]:
            lines.row(1, condition["type"], condition["status"])
    volumes(lines, spec.get("volumes") or ())
    lines.add("QoS Class", status.get("qosClass", NONE))
    placement(lines, spec)


def _why_pending(lines: Lines, spec: Json, status: Json) -> None:
    """The scheduler's own words, one a line: what each kind of node lacked."""
    scheduled = next((c for c in status.get("conditions") or () if c["type"] == "PodScheduled"), None)
    if spec.get("nodeName") or scheduled is None or scheduled["status"] != "False":
        return
    text = scheduled.get("message") or scheduled.get("reason", "")
    lines.add("Not Scheduled", text.replace(": ", ":\n", 1).replace(", ", ",\n") if ":" in text else text)


def template(lines: Lines, obj: Json) -> None:
    """The pod template of a workload."""
    found = obj["spec"]["template"]
    meta, spec = found.get("metadata") or {}, found["spec"]
    lines.text("Pod Template:")
    mapping(lines, "Labels", meta.get("labels"), 1)
    if meta.get("annotations"):
        mapping(lines, "Annotations", meta["annotations"], 1, sep=": ")
    if spec.get("serviceAccountName"):
        lines.add("Service Account", spec["serviceAccountName"], 1)
    containers(lines, spec, {}, 1)
    volumes(lines, spec.get("volumes") or (), 1)
    placement(lines, spec, 1)


def containers(lines: Lines, spec: Json, states: Mapping[str, Json], level: int = 0) -> None:
    for key, title in (
        ("initContainers", "Init Containers"),
        ("containers", "Containers"),
        ("ephemeralContainers", "Ephemeral Containers"),
    ):  # fmt: skip
        if spec.get(key):
            lines.text(f"{title}:", level)
            for container in spec[key]:
                _container(lines, container, states.get(container["name"]), level + 1)


def _container(lines: Lines, container: Json, status: Json | None, level: int) -> None:
    lines.text(f"{container['name']}:", level)
    level += 1
    if status:
        lines.add("Container ID", status.get("containerID", ""), level)
    lines.add("Image", container.get("image", ""), level)
    if status:
        lines.add("Image ID", status.get("imageID", ""), level)
    ports = container.get("ports") or ()
    lines.add("Ports" if len(ports) > 1 else "Port", _ports(ports, "containerPort"), level)
    lines.add("Host Ports" if len(ports) > 1 else "Host Port", _ports(ports, "hostPort"), level)
    for label, key in (("Command", "command"), ("Args", "args")):
        if container.get(key):
            lines.text(f"{label}:", level)
            for word in container[key]:
                for line in str(word).split("\n"):
                    lines.text(line, level + 1)
    if status:
        _state(lines, "State", status.get("state") or {}, level)
        if status.get("lastState"):
            _state(lines, "Last State", status["lastState"], level)
        lines.add("Ready", str(bool(status.get("ready"))), level)
        lines.add("Restart Count", status.get("restartCount", 0), level)
    resources = container.get("resources") or {}
    for label, key in (("Limits", "limits"), ("Requests", "requests")):
        if resources.get(key):
            lines.text(f"{label}:", level)
            for name, amount in sorted(resources[key].items()):
                lines.add(name, amount, level + 1)
    for label, key in (("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")):
        if container.get(key):
            lines.add(label, probe(container[key]), level)
    _environment(lines, container, level)
    mounts = container.get("volumeMounts") or ()
    lines.add("Mounts", "" if mounts else NONE, level)
    for mount in sorted(mounts, key=lambda m: m["mountPath"]):
        flags = ["ro" if mount.get("readOnly") else "rw"] + (
            [f'path="{mount["subPath"]}"'] if mount.get("subPath") else []
        )
        lines.text(f"{mount['mountPath']} from {mount['name']} ({','.join(flags)})", level + 1)


def _ports(ports: Iterable[Json], key: str) -> str:
    return ", ".join(f"{port.get(key, 0)}/{port.get('protocol', 'TCP')}" for port in ports) or NONE


def _state(lines: Lines, label: str, state: Json, level: int) -> None:
    for name in ("running", "terminated", "waiting"):
        if name not in state:
            continue
        detail = state[name] or {}
        lines.add(label, name.capitalize(), level)
        for key, title in (("reason", "Reason"), ("message", "Message")):
            if detail.get(key):
                lines.add(title, detail[key], level + 1)
        if name == "terminated":
            lines.add("Exit Code", detail.get("exitCode", 0), level + 1)
            if detail.get("signal"):
                lines.add("Signal", detail["signal"], level + 1)
        for key, title in (("startedAt", "Started"), ("finishedAt", "Finished")):
            if detail.get(key):
                lines.add(title, when(detail[key]), level + 1)
        return
    lines.add(label, "Waiting", level)


def probe(found: Json) -> str:
    """`http-get http://:80/ delay=0s timeout=1s period=10s #success=1 #failure=3`"""
    if "exec" in found:
        what = f"exec [{' '.join(found['exec'].get('command') or ())}]"
    elif "httpGet" in found:
        get = found["httpGet"]
        scheme = str(get.get("scheme", "HTTP")).lower()
        what = f"http-get {scheme}://{get.get('host', '')}:{get.get('port', '')}{get.get('path', '')}"
    elif "tcpSocket" in found:
        what = f"tcp-socket {found['tcpSocket'].get('host', '')}:{found['tcpSocket'].get('port', '')}"
    elif "grpc" in found:
        what = f"grpc <pod>:{found['grpc'].get('port', '')} {found['grpc'].get('service', '')}".rstrip()
    else:
        what = "unknown"
    numbers = (
        f"delay={found.get('initialDelaySeconds', 0)}s timeout={found.get('timeoutSeconds', 1)}s "
        f"period={found.get('periodSeconds', 10)}s #success={found.get('successThreshold', 1)} "
        f"#failure={found.get('failureThreshold', 3)}"
    )
    return f"{what} {numbers}"


def _environment(lines: Lines, container: Json, level: int) -> None:
    sources = [
        f"{source}\t{kind}\tOptional: {str(bool(ref.get('optional'))).lower()}"
        for item in container.get("envFrom") or ()
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret"))
        if (ref := item.get(key)) and (source := ref.get("name")) is not None
    ]
    if sources:
        lines.text("Environment Variables from:", level)
        for text in sources:
            lines.text(text, level + 1)
    variables = container.get("env") or ()
    lines.add("Environment", "" if variables else NONE, level)
    for variable in variables:
        lines.add(variable["name"], _value(variable), level + 1)


def _value(variable: Json) -> str:
    source = variable.get("valueFrom") or {}
    if ref := source.get("configMapKeyRef"):
        return f"<set to the key '{ref['key']}' of config map '{ref['name']}'>"
    if ref := source.get("secretKeyRef"):
        return f"<set to the key '{ref['key']}' in secret '{ref['name']}'>"
    if ref := source.get("fieldRef"):
        return f"({ref.get('apiVersion', 'v1')}:{ref['fieldPath']})"
    if ref := source.get("resourceFieldRef"):
        return f"({ref['resource']})"
    return str(variable.get("value", ""))


def volumes(lines: Lines, found: Iterable[Json], level: int = 0) -> None:
    found = list(found)
    if not found:
        return
    lines.text("Volumes:", level)
    for volume in found:
        lines.text(f"{volume['name']}:", level + 1)
        source = next((key for key in volume if key != "name"), "")
        lines.add("Type", source[:1].upper() + source[1:], level + 2)
        for key, value in sorted((volume.get(source) or {}).items()):
            if not isinstance(value, dict | list):
                lines.add(key[:1].upper() + key[1:], value, level + 2)


def placement(lines: Lines, spec: Json, level: int = 0) -> None:
    mapping(lines, "Node-Selectors", spec.get("nodeSelector"), level)
    lines.add("Tolerations", "\n".join(map(_toleration, spec.get("tolerations") or ())) or NONE, level)


def _toleration(t: Json) -> str:
    text = str(t.get("key", ""))
    if t.get("value"):
        text += f"={t['value']}"
    if t.get("effect"):
        text += f":{t['effect']}"
    if t.get("operator") == "Exists":
        text += " op=Exists"
    if t.get("tolerationSeconds") is not None:
        text += f" for {t['tolerationSeconds']}s"
    return text.strip()
