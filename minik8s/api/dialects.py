"""Older manifests, taken as they are: each is converted once, at the edge, into the native kind; nothing deeper knows.

`convert` looks at a document's kind and at the shapes that only a dialect has. A native document comes back as it is.
What was converted is told in `warnings`, with the native form; a field that neither the dialect nor Kubernetes knows
is an error that names it. One table, `_DIALECTS`, lists all conversions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from minik8s.api import dialects_function, dialects_hpc
from minik8s.api.autoscaling import DEFAULT_SYNC_PERIOD, looked_at_every
from minik8s.api.dialects_workflow import workflow
from minik8s.api.errors import BadRequest, Cause, Invalid, forbidden, invalid, required
from minik8s.api.quantity import parse_quantity
from minik8s.api.resource import Json

NANO = 10**9
NANOCORES_FROM = 10**6  # a plain `cpu` this large means nanocores: no machine has a million cores
DEFAULT_BAND_INTERVAL = 20  # seconds, AutoScaler's minScaleInterval
# Old kinds whose manifests need not say an apiVersion.
UNVERSIONED = ("Action", "AutoScaler", "DNS", "Dns", "Function", "GpuJob", "Hpa", "Ingress")


class Conversion(NamedTuple):
    """The native documents (one, or more where an old kind made several objects) and what to tell the user."""

    objects: list[Json]
    warnings: list[str]

    @property
    def changed(self) -> bool:
        return bool(self.warnings)


def convert(document: Json) -> Conversion:
    """The native form of a manifest. Raises BadRequest and Invalid for what is wrong in the dialect's own terms."""
    kind = document.get("kind")
    dialect = _DIALECTS.get(kind) if isinstance(kind, str) else None
    if dialect is None:
        return Conversion([document], [])
    before = msgspec.json.encode(document)
    objects = dialect(msgspec.json.decode(before))
    if len(objects) == 1 and msgspec.json.encode(objects[0]) == before:
        return Conversion([document], [])
    native = "; ".join(msgspec.json.encode(dialects_hpc.redacted(o)).decode() for o in objects)
    return Conversion(objects, [f"this {kind} is written in an older dialect; its native form is {native}"])


# -- Node


def _node(doc: Json) -> list[Json]:
    """`ip` at the top, or `spec.type`, `spec.capacity`, `spec.info` and `status.addresses` as a map."""
    meta: Any = doc.get("metadata")
    spec, status = doc.get("spec"), doc.get("status")
    old_spec = isinstance(spec, dict) and any(key in spec for key in ("type", "capacity", "info"))
    old_status = isinstance(status, dict) and isinstance(status.get("addresses"), dict)
    namespaced = isinstance(meta, dict) and "namespace" in meta
    if not ("ip" in doc or old_spec or old_status or namespaced):
        return [doc]
    _known(doc, ("apiVersion", "kind", "metadata", "ip", "spec", "status"), "Node", "")
    meta = {key: value for key, value in _map(meta, "metadata").items() if key != "namespace"}  # nodes have none
    spec, status = dict(_map(spec, "spec")), dict(_map(status, "status"))
    addresses = status.pop("addresses", None)
    found: list[Json] = list(addresses) if isinstance(addresses, list) else []
    if isinstance(addresses, dict):
        _known(addresses, ("internalIP", "hostname"), "Node", "status.addresses.")
        names = (("internalIP", "InternalIP"), ("hostname", "Hostname"))
        found = [{"type": type, "address": addresses[key]} for key, type in names if addresses.get(key)]
    if doc.get("ip") not in (None, "", "0.0.0.0"):
        found = [a for a in found if a.get("type") != "InternalIP"] + [{"type": "InternalIP", "address": doc["ip"]}]
    if found:
        status["addresses"] = found
    if "type" in spec:
        meta["labels"] = {**(meta.get("labels") or {}), "minik8s.io/node-type": str(spec.pop("type"))}
    if "capacity" in spec:
        status["capacity"] = _amounts(_map(spec.pop("capacity"), "spec.capacity"))
    if "info" in spec:
        info = _map(spec.pop("info"), "spec.info")
        _known(info, ("version", "os"), "Node", "spec.info.")
        status["nodeInfo"] = {"kubeletVersion": str(info.get("version", "")), "osImage": str(info.get("os", ""))}
    native: Json = {"apiVersion": "v1", "kind": "Node", "metadata": meta}
    return [native | ({"spec": spec} if spec else {}) | ({"status": status} if status else {})]


# -- Pod, ReplicaSet, Service


def _pod(doc: Json) -> list[Json]:
    _mend_pod_spec(doc.get("spec"))
    return [doc]


def _replica_set(doc: Json) -> list[Json]:
    if doc["kind"] == "Replicaset":
        doc["kind"] = "ReplicaSet"
    if doc.get("apiVersion") in (None, "", "v1"):
        doc["apiVersion"] = "apps/v1"
    spec = doc.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    if isinstance(spec, dict) and isinstance(template, dict):
        _mend_pod_spec(template.get("spec"))
        if not spec.get("selector"):
            _select_own_pods(doc, spec, template)
    return [doc]


def _select_own_pods(doc: Json, spec: Json, template: Json) -> None:
    """apps/v1 demands a selector; who leaves it out means the template's labels. Without any, one is made."""
    meta = template.setdefault("metadata", {})
    if isinstance(meta, dict):
        name = _map(doc.get("metadata"), "metadata").get("name", "")
        meta["labels"] = meta.get("labels") or {"minik8s.io/replicaset": name}
        spec["selector"] = {"matchLabels": meta["labels"]}


def _service(doc: Json) -> list[Json]:
    spec = doc.get("spec")
    if isinstance(spec, dict):
        _mend_protocols(spec.get("ports"))
    return [doc]


def _mend_pod_spec(spec: Any) -> None:
    if not isinstance(spec, dict):
        return
    for name in ("initContainers", "containers"):
        for container in _maps(spec.get(name)):
            if "ImagePullPolicy" in container:
                container.setdefault("imagePullPolicy", container.pop("ImagePullPolicy"))
            _mend_protocols(container.get("ports"))
            resources: Any = container.get("resources")
            for part, quantities in resources.items() if isinstance(resources, dict) else ():
                if isinstance(quantities, dict):
                    resources[part] = _amounts(quantities)


def _mend_protocols(ports: Any) -> None:
    for port in _maps(ports):
        if isinstance(port.get("protocol"), str):
            port["protocol"] = port["protocol"].upper()


def _maps(values: Any) -> list[Json]:
    """The maps in a list; what is none is left to validation."""
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _amounts(quantities: Json) -> Json:
    """Plain nanocores become cores; all else is Kubernetes' own already."""
    return {name: _cores(value) if name == "cpu" else value for name, value in quantities.items()}


def _cores(value: Any) -> Any:
    number = int(value) if isinstance(value, str) and value.isdigit() else value
    if not isinstance(number, int) or isinstance(number, bool) or number < NANOCORES_FROM:
        return value
    cores = Fraction(number, NANO)
    return str(cores.numerator) if cores.denominator == 1 else f"{-(-number // 10**6)}m"


# -- HorizontalPodAutoscaler, Hpa, AutoScaler


def _horizontal_pod_autoscaler(doc: Json) -> list[Json]:
    """`metrics` as a map of percentages, `scaleInterval`, a target named in `metadata`."""
    spec = doc.get("spec")
    if not isinstance(spec, dict):
        return [doc]
    target = spec.get("scaleTargetRef")
    metrics = spec.get("metrics")
    if not (
        isinstance(metrics, dict) or "scaleInterval" in spec or (isinstance(target, dict) and "metadata" in target)
    ):
        return [doc]
    known = ("minReplicas", "maxReplicas", "scaleTargetRef", "scaleInterval", "metrics")
    _known(spec, known, "HorizontalPodAutoscaler", "spec.")
    names = {"CPUUtilizationPercentage": "cpu", "MemoryUtilizationPercentage": "memory"}
    percentages = _map(metrics, "spec.metrics")
    _known(percentages, names, "HorizontalPodAutoscaler", "spec.metrics.")
    targets = [
        _utilization(names[key], _percentage(value, f"spec.metrics.{key}")) for key, value in percentages.items()
    ]
    interval = _seconds(spec.get("scaleInterval", DEFAULT_SYNC_PERIOD), "spec.scaleInterval")
    return [_autoscaler(doc, _target(target, "spec.scaleTargetRef"), targets, interval)]


def _hpa(doc: Json) -> list[Json]:
    spec = _map(doc.get("spec"), "spec")
    known = ("minReplicas", "maxReplicas", "workload", "adjustInterval", "selector", "metrics")
    _known(spec, known, "Hpa", "spec.")
    names = {"cpuPercent": "cpu", "memPercent": "memory"}
    shares = _map(spec.get("metrics"), "spec.metrics")
    _known(shares, names, "Hpa", "spec.metrics.")
    targets = [_utilization(names[key], _share(value, f"spec.metrics.{key}")) for key, value in shares.items()]
    interval = _seconds(spec.get("adjustInterval", DEFAULT_SYNC_PERIOD), "spec.adjustInterval")
    workload = _map(spec.get("workload"), "spec.workload")
    return [_autoscaler(doc, _target(workload, "spec.workload"), targets, interval)]


def _band(doc: Json) -> list[Json]:
    """A band of utilisation becomes its middle with a tolerance to each side; its template becomes a ReplicaSet."""
    spec, meta = _map(doc.get("spec"), "spec"), _map(doc.get("metadata"), "metadata")
    known = ("workload", "targetUtilization", "minReplicas", "maxReplicas", "template", "minScaleInterval")
    _known(spec, known, "AutoScaler", "spec.")
    bands = _map(spec.get("targetUtilization"), "spec.targetUtilization")
    _known(bands, ("cpu", "memory"), "AutoScaler", "spec.targetUtilization.")
    targets, up, down = [], Fraction(0), Fraction(0)
    for resource, band in bands.items():
        path = f"spec.targetUtilization.{resource}"
        band = _map(band, path)
        _known(band, ("minPercentage", "maxPercentage"), "AutoScaler", f"{path}.")
        low = _percentage(band.get("minPercentage"), f"{path}.minPercentage")
        high = _percentage(band.get("maxPercentage"), f"{path}.maxPercentage")
        if low > high:
            raise _wrong(
                doc, invalid(f"{path}.minPercentage", low, f"must be less than or equal to maxPercentage {high}")
            )
        middle = (low + high) // 2 or 1
        targets.append(_utilization(resource, middle))
        up, down = max(up, Fraction(high, middle) - 1), max(down, 1 - Fraction(low, middle))
    interval = _seconds(spec.get("minScaleInterval", DEFAULT_BAND_INTERVAL), "spec.minScaleInterval")
    kind = str(spec.get("workload") or "ReplicaSet")
    name = str(meta.get("name", ""))
    target = {"apiVersion": "apps/v1", "kind": "ReplicaSet" if kind == "Replicaset" else kind, "name": name}
    scaler = _autoscaler(doc, target, targets, interval)
    scaler["spec"]["behavior"]["scaleUp"]["tolerance"] = f"{float(up):.3f}"
    scaler["spec"]["behavior"]["scaleDown"]["tolerance"] = f"{float(down):.3f}"
    if not spec.get("template"):
        return [scaler]
    identity = {key: meta[key] for key in ("name", "namespace", "labels") if key in meta}
    workload: Json = {"apiVersion": "apps/v1", "kind": target["kind"], "metadata": identity}
    workload["spec"] = {"replicas": spec.get("minReplicas", 1), "template": spec["template"]}
    return [*_replica_set(workload), scaler]


def _autoscaler(doc: Json, target: Json, metrics: list[Json], interval: int) -> Json:
    """autoscaling/v2 with the classic pace: at most one pod up or down in `interval` seconds."""
    spec = doc["spec"]
    low, high = spec.get("minReplicas", 1), spec.get("maxReplicas")
    if high is None:
        raise _wrong(doc, required("spec.maxReplicas"))
    if isinstance(low, int) and isinstance(high, int) and low > high:
        raise _wrong(doc, invalid("spec.minReplicas", low, f"must be less than or equal to maxReplicas {high}"))
    if not metrics:
        raise _wrong(doc, required("spec.metrics", "name at least one utilisation to scale by"))
    pace = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": interval}], "stabilizationWindowSeconds": 0}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": looked_at_every(interval, _map(doc.get("metadata"), "metadata")),
        "spec": {
            "minReplicas": low,
            "maxReplicas": high,
            "scaleTargetRef": target,
            "metrics": metrics,
            "behavior": {"scaleUp": {**pace}, "scaleDown": {**pace}},
        },
    }


def _target(reference: Any, path: str) -> Json:
    reference = _map(reference, path)
    _known(reference, ("apiVersion", "kind", "name", "metadata"), "HorizontalPodAutoscaler", f"{path}.")
    kind = str(reference.get("kind", ""))
    kind = "ReplicaSet" if kind == "Replicaset" else kind
    name = reference.get("name") or _map(reference.get("metadata"), f"{path}.metadata").get("name", "")
    version = reference.get("apiVersion") or "v1"
    grouped = kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")
    return {"apiVersion": "apps/v1" if version == "v1" and grouped else version, "kind": kind, "name": name}


def _utilization(resource: str, percent: int) -> Json:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": resource, "target": target}}


def _percentage(value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise BadRequest(f"{path}: {value!r} is not a percentage: write a number above 0, e.g. 50")
    return max(1, round(value))


def _share(value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise BadRequest(f"{path}: {value!r} is not a share: write a number above 0, e.g. 0.5")
    return max(1, round(value * 100))


def _seconds(value: Any, path: str) -> int:
    """`10`, `15s`, `2m`."""
    units = {"s": 1, "m": 60, "h": 3600}
    text = str(value)
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = int(parse_quantity(number) * unit)
    except ValueError:
        seconds = 0
    if seconds < 1:
        raise BadRequest(f"{path}: {value!r} is not a time: write seconds, or a number with s, m or h, e.g. 15s")
    return seconds


# -- DNS, Ingress


def _dns(doc: Json) -> list[Json]:
    """`paths` as a list with `subPath`, `svcName`, `svcPort`, or as a map from paths to services."""
    if doc["kind"] == "DNS" and doc.get("apiVersion") == "net.minik8s.io/v1":
        return [doc]
    _known(doc, ("apiVersion", "kind", "metadata", "spec", "status"), "DNS", "")
    spec = _map(doc.get("spec"), "spec")
    _known(spec, ("host", "paths", "stripPrefix"), "DNS", "spec.")
    paths = spec.get("paths")
    if isinstance(paths, dict):
        found = [_path_of_map(path, target) for path, target in paths.items()]
    elif isinstance(paths, list):
        found = [_path_of_list(each, f"spec.paths[{index}]") for index, each in enumerate(paths)]
    else:
        raise _wrong(doc, required("spec.paths", "a list of paths, or a map from paths to services"))
    native = {**doc, "apiVersion": "net.minik8s.io/v1", "kind": "DNS", "spec": {**spec, "paths": found}}
    return [{key: native[key] for key in ("apiVersion", "kind", "metadata", "spec", "status") if key in native}]


def _path_of_map(path: str, target: Any) -> Json:
    here = f"spec.paths[{path}]"
    target = _map(target, here)
    _known(target, ("serviceName", "serviceUID", "servicePort"), "DNS", f"{here}.")
    return {"path": path, "service": _service_of(target, ("serviceName", "serviceUID", "servicePort"))}


def _path_of_list(each: Any, here: str) -> Json:
    each = _map(each, here)
    _known(each, ("path", "subPath", "service", "svcName", "svcPort"), "DNS", f"{here}.")
    service = _map(each.get("service"), f"{here}.service")
    _known(service, ("name", "uid", "port"), "DNS", f"{here}.service.")
    old = {key: each[key] for key in ("svcName", "svcPort") if key in each}
    names = ("name", "uid", "port") if service else ("svcName", "", "svcPort")
    if service and old:
        cause = forbidden(f"{here}.{next(iter(old))}", "may not be set together with `service`")
        raise Invalid("DNS", "", [cause])
    path = each.get("path", each.get("subPath"))
    return ({} if path is None else {"path": path}) | {"service": _service_of(service or each, names)}


def _service_of(fields: Json, names: tuple[str, str, str]) -> Json:
    """`{name | uid, port}`; a port of digits is a number."""
    found = {new: fields[old] for new, old in zip(("name", "uid", "port"), names, strict=True) if old in fields}
    port = found.get("port")
    if isinstance(port, str) and port.isascii() and port.isdecimal():
        found["port"] = int(port[:9])
    return found


def _ingress(doc: Json) -> list[Json]:
    """An HTTP trigger of a function has the name of Kubernetes' kind; `spec.trigger` tells them apart."""
    spec = doc.get("spec")
    if isinstance(spec, dict) and "trigger" in spec and "rules" not in spec:
        return dialects_function.trigger(doc)
    return [doc]


# -- common


def _map(value: Any, path: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{path}: expected a map, found {type(value).__name__}")
    return value


def _known(value: Json, names: Iterable[str], kind: str, path: str) -> None:
    for key in value:
        if key not in names:
            cause = forbidden(f"{path}{key}", f"unknown field; this {kind} knows {', '.join(names)}")
            raise Invalid(kind, "", [cause])


def _wrong(doc: Json, cause: Cause) -> Invalid:
    return Invalid(str(doc.get("kind")), str((doc.get("metadata") or {}).get("name", "")), [cause])


_DIALECTS: dict[str, Callable[[Json], list[Json]]] = {
    "Action": dialects_function.action,
    "Function": dialects_function.function,
    "GpuJob": dialects_hpc.gpu_job,
    "Job": dialects_hpc.gpu_job,
    "Node": _node,
    "Pod": _pod,
    "ReplicaSet": _replica_set,
    "Replicaset": _replica_set,
    "Service": _service,
    "HorizontalPodAutoscaler": _horizontal_pod_autoscaler,
    "Hpa": _hpa,
    "AutoScaler": _band,
    "DNS": _dns,
    "Dns": _dns,
    "Ingress": _ingress,
    "Workflow": workflow,
}
