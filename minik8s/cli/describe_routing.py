"""The sections of `describe` for what leads requests to pods: Service, Ingress, DNS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minik8s.api.errors import NotFound, StatusError
from minik8s.api.kinds.ingress import CLASS_ANNOTATION
from minik8s.cli.describe_text import NONE, Lines, head, mapping

Json = dict[str, Any]


def service(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    spec, meta = obj["spec"], obj["metadata"]
    head(lines, obj)
    mapping(lines, "Selector", spec.get("selector"))
    lines.add("Type", spec.get("type", "ClusterIP"))
    for label, key in (("IP Family Policy", "ipFamilyPolicy"), ("IP", "clusterIP"), ("External Name", "externalName")):
        if spec.get(key):
            lines.add(label, spec[key])
    for label, key in (("IP Families", "ipFamilies"), ("IPs", "clusterIPs"), ("External IPs", "externalIPs")):
        if spec.get(key):
            lines.add(label, ",".join(spec[key]))
    if ingress := ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress"):
        lines.add("LoadBalancer Ingress", ", ".join(i.get("ip") or i.get("hostname", "") for i in ingress))
    slices = _slices(cluster, meta["namespace"], meta["name"])
    for port in spec.get("ports") or ():
        protocol = port.get("protocol", "TCP")
        lines.add("Port", f"{port.get('name') or '<unset>'}\t{port['port']}/{protocol}")
        lines.add("TargetPort", f"{port.get('targetPort', port['port'])}/{protocol}")
        if port.get("nodePort"):
            lines.add("NodePort", f"{port.get('name') or '<unset>'}\t{port['nodePort']}/{protocol}")
        lines.add("Endpoints", _endpoints(slices, port.get("name") or ""))
    lines.add("Session Affinity", spec.get("sessionAffinity", "None"))
    for label, key in (
        ("External Traffic Policy", "externalTrafficPolicy"), ("Internal Traffic Policy", "internalTrafficPolicy")
    ):  # fmt: skip
        if spec.get(key):
            lines.add(label, spec[key])


def _slices(cluster: Any, namespace: str, name: str) -> list[Json]:
    path = cluster.kinds.find("endpointslices.discovery.k8s.io").path(namespace)
    try:
        found: list[Json] = cluster.wire.get(path, {"labelSelector": f"kubernetes.io/service-name={name}"})["items"]
    except StatusError:
        return []
    return found


def _endpoints(slices: Iterable[Json], port_name: str) -> str:
    """Ready `address:port`s, three of them and how many more."""
    found = [
        f"{address}:{port['port']}"
        for piece in slices
        for port in piece.get("ports") or ()
        if (port.get("name") or "") == port_name
        for endpoint in piece.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint["addresses"]
    ]
    return ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")


def ingress(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    meta, spec = obj["metadata"], obj.get("spec") or {}
    annotations = meta.get("annotations") or {}
    head(lines, obj, annotations=False)
    found = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    lines.add("Address", ",".join(each.get("ip") or each.get("hostname", "") for each in found))
    lines.add("Ingress Class", spec.get("ingressClassName") or annotations.get(CLASS_ANNOTATION) or NONE)
    default = spec.get("defaultBackend")
    lines.add("Default backend", _backend(default, meta["namespace"], cluster) if default else "<default>")
    if spec.get("tls"):
        lines.text("TLS:")
        for tls in spec["tls"]:
            name = tls.get("secretName") or "the default certificate"
            lines.text(f"{name} terminates {','.join(tls.get('hosts') or ['*'])}", 1)
    rows = [
        (rule.get("host") or "*", path.get("path") or "/", _backend(path["backend"], meta["namespace"], cluster))
        for rule in spec.get("rules") or ()
        for path in (rule.get("http") or {}).get("paths") or ()
    ]
    _rules(lines, rows)
    mapping(lines, "Annotations", annotations, sep=": ")


def dns(lines: Lines, obj: Json, cluster: Any, now: float) -> None:
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    head(lines, obj)
    lines.add("Address", ",".join(status.get("addresses") or ()))
    lines.add("Strip Prefix", str(spec.get("stripPrefix", True)).lower())
    rows = []
    for path in spec["paths"]:
        service = path["service"]
        backend = _endpoints_behind(service["name"], service["port"], meta["namespace"], cluster) if (
            service.get("name")) else f"uid {service.get('uid')}:{service['port']}"  # fmt: skip
        rows.append((spec["host"], path["path"], backend))
    _rules(lines, rows)
    if status.get("conditions"):
        lines.text("Conditions:")
        told = [(c["type"], c["status"], c.get("reason", ""), c.get("message", "")) for c in status["conditions"]]
        lines.table(1, ("Type", "Status", "Reason", "Message"), told)


def _rules(lines: Lines, rows: Iterable[tuple[str, str, str]]) -> None:
    """Hosts, each once, with their paths below."""
    lines.text("Rules:")
    shown: list[tuple[str, str, str]] = []
    last = ""
    for host, path, backend in rows:
        shown += [] if host == last else [(host, "", "")]
        shown.append(("", path, backend))
        last = host
    lines.table(1, ("Host", "Path", "Backends"), shown)


def _backend(backend: Json, namespace: str, cluster: Any) -> str:
    if "service" not in backend:
        resource = backend.get("resource") or {}
        return f"{resource.get('kind')}/{resource.get('name')}"
    service = backend["service"]
    port = service.get("port") or {}
    return _endpoints_behind(service["name"], port.get("number") or port.get("name"), namespace, cluster)


def _endpoints_behind(name: str, port: Any, namespace: str, cluster: Any) -> str:
    """`web:80 (10.244.0.5:8080)`, as kubectl."""
    try:
        service = cluster.wire.get(cluster.kinds.find("services.v1.").path(namespace, name))
    except NotFound:
        return f'{name}:{port} (<error: services "{name}" not found>)'
    except StatusError:
        return f"{name}:{port}"
    for each in service["spec"].get("ports") or ():
        if port in (each["port"], each.get("name")):
            return f"{name}:{port} ({_endpoints(_slices(cluster, namespace, name), each.get('name') or '')})"
    return f"{name}:{port} ()"
