"""From a Service and its pods to endpoints: which addresses, which ports, in which state. Pure.

Shared by the EndpointSlice and the Endpoints controller; the rules are those of k8s.io/endpointslice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from minik8s.api.kinds.endpoints import EndpointPort
from minik8s.api.kinds.endpointslice import Endpoint, EndpointConditions
from minik8s.api.kinds.pod import Container, Pod
from minik8s.api.kinds.service import Service, ServicePort, ServiceSpec
from minik8s.api.meta import ObjectReference
from minik8s.controllers.pod_facts import is_finished, is_ready

HEADLESS_LABEL = "service.kubernetes.io/headless"
Ports = tuple[EndpointPort, ...]


class Part(NamedTuple):
    """A pod in a Service of one address family; None: it is no endpoint now."""

    ports: Ports
    endpoint: Endpoint | None


def is_managed(service: Service) -> bool:
    """Whether endpoints are found by us: by a selector. Others' endpoints are written by whoever made the Service."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def selects_pod(service: Service, pod: Pod) -> bool:
    return service.spec.selector.items() <= pod.metadata.labels.items()


def addresses(pod: Pod, family: str) -> tuple[str, ...]:
    """The pod's addresses of `family`, IPv4 or IPv6."""
    known = [entry.ip for entry in pod.status.podIPs] or [pod.status.podIP]
    return tuple(ip for ip in known if ip and (":" in ip) == (family == "IPv6"))


def families(service: Service) -> tuple[str, ...]:
    return service.spec.ipFamilies or ("IPv4",)


def facts(pod: Pod) -> tuple[object, ...]:
    """All of a pod that endpoints depend on: if it is the same before and after, no Service needs a look."""
    status, spec = pod.status, pod.spec
    where = (status.podIP, status.podIPs, spec.nodeName, spec.hostname, spec.subdomain)
    return (pod.metadata.labels, where, is_ready(pod), is_finished(pod), pod.deleting, pod.metadata.uid)


def hostname(service: Service, pod: Pod) -> str:
    """The pod's own name below a headless Service, which it asks for by `subdomain`."""
    return pod.spec.hostname if pod.spec.subdomain == service.metadata.name else ""


def target_port(port: ServicePort, pod: Pod) -> int | None:
    """The number behind `targetPort` in this pod; None if the pod has no container port of that name and protocol."""
    wanted = port.targetPort
    if isinstance(wanted, int):
        return wanted or port.port
    if wanted.isdecimal():
        return int(wanted)
    for container in _long_running(pod):
        for known in container.ports:
            if known.name == wanted and known.protocol == port.protocol:
                return known.containerPort
    return None


def _long_running(pod: Pod) -> Iterable[Container]:
    yield from pod.spec.containers
    yield from (each for each in pod.spec.initContainers if each.restartPolicy == "Always")


def ports(service: Service, pod: Pod) -> Ports:
    """The Service's ports as this pod serves them; a port that it does not have is left out."""
    found = []
    for port in service.spec.ports:
        number = target_port(port, pod)
        if number is not None:
            found.append(EndpointPort(port.name, number, port.protocol, port.appProtocol))
    return tuple(found)


def endpoint(service: Service, pod: Pod, family: str) -> Endpoint:
    """The pod as an endpoint. A terminating one may still serve those who have nobody else, but is never ready."""
    serving, terminating = is_ready(pod), pod.deleting
    ready = service.spec.publishNotReadyAddresses or (serving and not terminating)
    meta = pod.metadata
    return Endpoint(
        addresses=addresses(pod, family),
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        hostname=hostname(service, pod),
        nodeName=pod.spec.nodeName,
        targetRef=ObjectReference(kind="Pod", namespace=meta.namespace, name=meta.name, uid=meta.uid),
    )


class Kept:
    """What was rendered of one Service's pods the last time, by pod; used again where neither has changed."""

    def __init__(self) -> None:
        self.spec = ServiceSpec()
        self.parts: dict[tuple[str, str, str], Part] = {}


def render(service: Service, pods: Iterable[Pod], family: str, kept: Kept | None = None) -> dict[Ports, list[Endpoint]]:
    """The endpoints of a Service, grouped by ports, since named ports may differ from pod to pod."""
    groups: dict[Ports, list[Endpoint]] = {}
    known = kept.parts if kept is not None and kept.spec == service.spec else {}
    parts: dict[tuple[str, str, str], Part] = {}
    for pod in sorted(pods, key=lambda each: each.metadata.name):
        key = (pod.metadata.uid, pod.metadata.resourceVersion, family)
        part = parts[key] = known.get(key) or _part(service, pod, family)
        if part.endpoint is not None:
            groups.setdefault(part.ports, []).append(part.endpoint)
    if kept is not None:
        others = {key: part for key, part in known.items() if key[2] != family}
        kept.spec, kept.parts = service.spec, parts | others
    return groups


def _part(service: Service, pod: Pod, family: str) -> Part:
    if selects_pod(service, pod) and not is_finished(pod) and addresses(pod, family):
        return Part(ports(service, pod), endpoint(service, pod, family))
    return Part((), None)


def labels(service: Service, **own: str) -> dict[str, str]:
    """A Service's labels are handed on to its endpoints, with the mark of a headless one."""
    headless = {HEADLESS_LABEL: ""} if service.spec.clusterIP in ("None", "") else {}
    return {**service.metadata.labels, **headless, **own}
