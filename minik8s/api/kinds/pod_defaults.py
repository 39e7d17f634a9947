"""Defaults of pods and pod templates, as Kubernetes fills them in (SetDefaults_Pod, _PodSpec, _Container, _Probe …)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minik8s.api.kinds.zero import fill
from minik8s.api.resource import Json

CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")
DEFAULT_MODE = 0o644


def default_pod(pod: Json) -> None:
    """A pod itself: what its spec as a template has, and what only a real pod has."""
    spec = pod.setdefault("spec", {})
    default_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for container in containers(spec):
        resources = container["resources"]
        limits = resources.get("limits") or {}
        if limits:
            resources["requests"] = {**limits, **(resources.get("requests") or {})}
    if spec.get("hostNetwork"):
        for container in containers(spec):
            for port in container.get("ports") or ():
                fill(port, "hostPort", port.get("containerPort", 0))
    fill(pod.setdefault("status", {}), "phase", "Pending")


def default_template(template: Json) -> None:
    template.setdefault("metadata", {})
    default_spec(template.setdefault("spec", {}))


def default_spec(spec: Json) -> None:
    fill(spec, "restartPolicy", "Always")
    fill(spec, "dnsPolicy", "ClusterFirst")
    fill(spec, "schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("securityContext", {})
    if spec.get("serviceAccount") and not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"]  # the old name of the field
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    for container in containers(spec):
        _default_container(container)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)


def containers(spec: Json) -> Iterator[Json]:
    """All containers of a pod spec, of each sort."""
    for name in CONTAINER_LISTS:
        for container in spec.get(name) or ():
            if isinstance(container, dict):
                yield container


def _default_container(container: Json) -> None:
    container.setdefault("resources", {})
    fill(container, "terminationMessagePath", "/dev/termination-log")
    fill(container, "terminationMessagePolicy", "File")
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(str(container.get("image", "")))
    for port in container.get("ports") or ():
        fill(port, "protocol", "TCP")
    for variable in container.get("env") or ():
        _default_field((variable.get("valueFrom") or {}).get("fieldRef"))
        _default_divisor((variable.get("valueFrom") or {}).get("resourceFieldRef"))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            _default_probe(container[name])
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _default_http(handler.get("httpGet"))


def pull_policy(image: str) -> str:
    """Always for `:latest` and for no tag at all, else IfNotPresent; a digest pins the image."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _default_probe(probe: Json) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        fill(probe, name, value)
    _default_http(probe.get("httpGet"))
    if probe.get("grpc") is not None:
        probe["grpc"].setdefault("service", "")


def _default_http(action: Json | None) -> None:
    if action is not None:
        fill(action, "path", "/")
        fill(action, "scheme", "HTTP")


def _default_field(reference: Json | None) -> None:
    if reference is not None:
        fill(reference, "apiVersion", "v1")


def _default_divisor(reference: Json | None) -> None:
    if reference is not None:
        fill(reference, "divisor", "0")


def _default_volume(volume: Json) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    for name in ("configMap", "secret", "downwardAPI", "projected"):
        source: Any = volume.get(name)
        if source is not None:
            source.setdefault("defaultMode", DEFAULT_MODE)
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    items = [*((volume.get("downwardAPI") or {}).get("items") or ())]
    for source in (volume.get("projected") or {}).get("sources") or ():
        items += (source.get("downwardAPI") or {}).get("items") or ()
        if source.get("serviceAccountToken") is not None:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    for item in items:
        _default_field(item.get("fieldRef"))
        _default_divisor(item.get("resourceFieldRef"))
