"""A container's environment, and the values that pods may know of themselves (the downward API). Pure.

Order and precedence are kubelet's (makeEnvironmentVariables): `envFrom` first, then `env`, whose values may name
earlier ones as `$(NAME)`, then the variables of services that nothing has overridden.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.pod import (
    Container,
    EnvFromSource,
    EnvVarSource,
    KeySelector,
    Pod,
    ResourceFieldSelector,
)
from minik8s.api.kinds.secret import Secret
from minik8s.api.kinds.service import Service
from minik8s.api.quantity import Written, parse_quantity
from minik8s.runtime.base import ContainerConfigInvalid

_REFERENCE = re.compile(r"\$(\$|\([^()]*\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pod's environment may speak of. Objects are of the pod's own namespace, by name."""

    configmaps: Mapping[str, ConfigMap] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    services: Sequence[Service] = ()  # all of the pod's namespace, and default/kubernetes
    pod_ips: Sequence[str] = ()
    host_ips: Sequence[str] = ()
    allocatable: Mapping[str, Written] = field(default_factory=dict)  # the node's, for limits that are not set


def expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` by its value, unknown names left as they stand; `$$` is `$`, so `$$(NAME)` stays `$(NAME)`."""

    def value(found: re.Match[str]) -> str:
        inner = found[1]
        return "$" if inner == "$" else known.get(inner[1:-1], found[0])

    return _REFERENCE.sub(value, text)


def resolve_env(container: Container, pod: Pod, around: Surroundings) -> dict[str, str]:
    """All variables in their order. ContainerConfigInvalid names the ConfigMap, Secret or key that is missing."""
    services = service_env(around.services, pod.metadata.namespace, links=pod.spec.enableServiceLinks)
    env: dict[str, str] = {}
    for source in container.envFrom:
        env |= _from_source(source, pod, around)
    for variable in container.env:
        if variable.valueFrom is None:
            env[variable.name] = expand(variable.value, services | env)
            continue
        value = _referenced(variable.valueFrom, container, pod, around)
        if value is not None:
            env[variable.name] = value
    return env | {name: value for name, value in services.items() if name not in env}


def _from_source(source: EnvFromSource, pod: Pod, around: Surroundings) -> dict[str, str]:
    """Keys that cannot be variables' names (empty, or with `=`) are left out, as kubelet does."""
    data: Mapping[str, str] = {}
    if source.configMapRef is not None:
        configmap = around.configmaps.get(source.configMapRef.name)
        if configmap is None and not source.configMapRef.optional:
            raise ContainerConfigInvalid(f'configmap "{source.configMapRef.name}" not found')
        data = configmap.data if configmap else {}
    elif source.secretRef is not None:
        secret = around.secrets.get(source.secretRef.name)
        if secret is None and not source.secretRef.optional:
            raise ContainerConfigInvalid(f'secret "{source.secretRef.name}" not found')
        data = {key: _text(value) for key, value in secret.data.items()} if secret else {}
    return {source.prefix + key: value for key, value in data.items() if source.prefix + key and "=" not in key}


def _referenced(source: EnvVarSource, container: Container, pod: Pod, around: Surroundings) -> str | None:
    """The value; None if it is missing and may be."""
    if source.fieldRef is not None:
        return field_value(pod, source.fieldRef.fieldPath, around)
    if source.resourceFieldRef is not None:
        return resource_value(pod, source.resourceFieldRef, around.allocatable, container=container)
    if source.configMapKeyRef is not None:
        configmap = around.configmaps.get(source.configMapKeyRef.name)
        return _key(source.configMapKeyRef, configmap.data if configmap else None, "ConfigMap", pod)
    if source.secretKeyRef is not None:
        secret = around.secrets.get(source.secretKeyRef.name)
        value = _key(source.secretKeyRef, secret.data if secret else None, "Secret", pod)
        return None if value is None else _text(value)
    return ""


def _key(ref: KeySelector, data: Mapping[str, str] | None, kind: str, pod: Pod) -> str | None:
    if data is not None and ref.key in data:
        return data[ref.key]
    if ref.optional:
        return None
    if data is None:
        raise ContainerConfigInvalid(f'{kind.lower()} "{ref.name}" not found')
    raise ContainerConfigInvalid(f"couldn't find key {ref.key} in {kind} {pod.metadata.namespace}/{ref.name}")


def _text(encoded: str) -> str:
    """A Secret's base64 as an environment can hold it: bytes that are no UTF-8 pass through untouched."""
    return base64.b64decode(encoded).decode("utf-8", "surrogateescape")


# -- the downward API


def field_value(pod: Pod, path: str, around: Surroundings) -> str:
    """The value of a `fieldRef`. Whole labels and annotations are lines of `key="value"`, for volumes."""
    meta, spec = pod.metadata, pod.spec
    if subscript := _SUBSCRIPT.fullmatch(path):
        return (meta.labels if subscript[1] == "labels" else meta.annotations).get(subscript[2], "")
    values = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "metadata.labels": _lines(meta.labels),
        "metadata.annotations": _lines(meta.annotations),
        "spec.nodeName": spec.nodeName,
        "spec.serviceAccountName": spec.serviceAccountName,
        "status.podIP": next(iter(around.pod_ips), ""),
        "status.podIPs": ",".join(around.pod_ips),
        "status.hostIP": next(iter(around.host_ips), ""),
        "status.hostIPs": ",".join(around.host_ips),
    }
    if path not in values:
        raise ContainerConfigInvalid(f"unsupported fieldPath: {path}")
    return values[path]


def _lines(values: Mapping[str, str]) -> str:
    """`key="value"`, sorted, one a line, with quotes and control characters escaped."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    quoted = {key: "".join(escapes.get(c, c) for c in value) for key, value in values.items()}
    return "\n".join(f'{key}="{quoted[key]}"' for key in sorted(quoted))


def resource_value(
    pod: Pod,
    ref: ResourceFieldSelector,
    allocatable: Mapping[str, Written],
    *,
    container: Container | None = None,
) -> str:
    """`limits.memory` and the like in units of the divisor, rounded up.

    A limit that is not set is what the node can give at most, a request that is not set is 0.
    """
    if ref.containerName:
        everyone = (*pod.spec.containers, *pod.spec.initContainers)
        container = next((each for each in everyone if each.name == ref.containerName), None)
    if container is None:
        raise ContainerConfigInvalid(f"container {ref.containerName} not found")
    kind, _, resource = ref.resource.partition(".")
    if kind not in ("limits", "requests") or not resource:
        raise ContainerConfigInvalid(f"unsupported container resource: {ref.resource}")
    if kind == "limits":
        amount = container.resources.limits.get(resource, allocatable.get(resource, 0))
    else:
        amount = container.resources.requests.get(resource, 0)
    divisor = parse_quantity(ref.divisor) or 1
    return str(math.ceil(parse_quantity(amount) / divisor))


# -- services


def service_env(services: Sequence[Service], namespace: str, *, links: bool) -> dict[str, str]:
    """Docker's old link variables: `WEB_SERVICE_HOST`, `WEB_PORT_80_TCP_ADDR`, … of services that have an address.

    Without links only the API server's own service is told of.
    """
    env: dict[str, str] = {}
    for service in sorted(services, key=lambda each: (each.metadata.namespace, each.metadata.name)):
        is_master = (service.metadata.namespace, service.metadata.name) == ("default", "kubernetes")
        if not is_master and not (links and service.metadata.namespace == namespace):
            continue
        if service.spec.clusterIP not in ("", "None") and service.spec.ports:
            env |= _link(service)
    return env


def _link(service: Service) -> dict[str, str]:
    name = service.metadata.name.upper().replace("-", "_").replace(".", "_")
    address, ports = service.spec.clusterIP, service.spec.ports
    host = f"[{address}]" if ":" in address else address
    env = {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(ports[0].port)}
    for port in ports:
        if port.name:
            env[f"{name}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
    env[f"{name}_PORT"] = f"{ports[0].protocol.lower()}://{host}:{ports[0].port}"
    for port in ports:
        protocol = port.protocol or "TCP"
        prefix = f"{name}_PORT_{port.port}_{protocol.upper()}"
        env[prefix] = f"{protocol.lower()}://{host}:{port.port}"
        env[f"{prefix}_PROTO"] = protocol.lower()
        env[f"{prefix}_PORT"] = str(port.port)
        env[f"{prefix}_ADDR"] = address
    return env
