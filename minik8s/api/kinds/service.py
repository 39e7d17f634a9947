"""Service: one name and address for many pods."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from minik8s.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from minik8s.api.kinds.columns import AGE, NAME, NONE, dig, labels_text
from minik8s.api.kinds.validation import (
    DNS_LABEL,
    DNS_LABEL_HINT,
    DNS_SUBDOMAIN,
    DNS_SUBDOMAIN_HINT,
    PORT_NAME,
    is_ip,
    validate_labels,
)
from minik8s.api.kinds.zero import fill
from minik8s.api.meta import Condition, IntOrString, Object, Struct
from minik8s.api.resource import Column, Json, Resource


class ServicePort(Struct):
    name: str = ""
    protocol: str = "TCP"
    appProtocol: str = ""
    port: int = 0
    targetPort: IntOrString = 0
    nodePort: int = 0


class ClientIPConfig(Struct):
    timeoutSeconds: int = 10800


class SessionAffinityConfig(Struct):
    clientIP: ClientIPConfig = ClientIPConfig()


class ServiceSpec(Struct):
    type: str = "ClusterIP"
    clusterIP: str = ""
    clusterIPs: tuple[str, ...] = ()
    externalIPs: tuple[str, ...] = ()
    externalName: str = ""
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()
    sessionAffinity: str = "None"
    sessionAffinityConfig: SessionAffinityConfig = SessionAffinityConfig()
    internalTrafficPolicy: str = "Cluster"
    externalTrafficPolicy: str = "Cluster"
    healthCheckNodePort: int = 0
    publishNotReadyAddresses: bool = False
    ipFamilies: tuple[str, ...] = ()
    ipFamilyPolicy: str = ""
    loadBalancerIP: str = ""
    loadBalancerSourceRanges: tuple[str, ...] = ()
    loadBalancerClass: str = ""
    allocateLoadBalancerNodePorts: bool = True


class LoadBalancerIngress(Struct):
    ip: str = ""
    ipMode: str = ""
    hostname: str = ""


class LoadBalancerStatus(Struct):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Struct):
    loadBalancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] = ()


class Service(Object):
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
PROTOCOLS = ("SCTP", "TCP", "UDP")
NODE_PORT_TYPES = ("LoadBalancer", "NodePort")
LONGEST_AFFINITY = 86400  # seconds; MaxClientIPServiceAffinitySeconds
AFFINITY_TIMEOUT = 10800  # seconds; DefaultClientIPServiceAffinitySeconds


def _external(service: Json, now: float) -> str:
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", NONE))
    found = [i.get("ip") or i.get("hostname", "") for i in dig(service, "status.loadBalancer.ingress", ())]
    found += spec.get("externalIPs") or []
    if spec.get("type") == "LoadBalancer":
        return ",".join(found) or "<pending>"
    return ",".join(found) or NONE


def _ports(service: Json, now: float) -> str:
    texts = []
    for port in service["spec"].get("ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        texts.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(texts) or NONE


def _default(service: Json) -> None:
    spec = service.setdefault("spec", {})
    fill(spec, "type", "ClusterIP")
    fill(spec, "sessionAffinity", "None")
    if spec["sessionAffinity"] == "ClientIP":
        client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        client.setdefault("timeoutSeconds", AFFINITY_TIMEOUT)
    elif spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    for port in spec.get("ports") or ():
        fill(port, "protocol", "TCP")
        fill(port, "targetPort", port.get("port", 0))
    if spec["type"] in NODE_PORT_TYPES or spec.get("externalIPs"):
        fill(spec, "externalTrafficPolicy", "Cluster")
    else:
        spec.pop("externalTrafficPolicy", None)
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if spec["type"] != "ExternalName":
        fill(spec, "internalTrafficPolicy", "Cluster")
        if not spec.get("ipFamilies"):
            spec["ipFamilies"] = ["IPv4"]
        fill(spec, "ipFamilyPolicy", "SingleStack")
    service.setdefault("status", {}).setdefault("loadBalancer", {})


def _validate(service: Json, old: Json | None) -> list[Cause]:
    spec = service["spec"]
    causes: list[Cause] = []
    if spec["type"] not in TYPES:
        causes.append(not_supported("spec.type", spec["type"], TYPES))
    if spec["sessionAffinity"] not in ("ClientIP", "None"):
        causes.append(not_supported("spec.sessionAffinity", spec["sessionAffinity"], ("ClientIP", "None")))
    for name in ("internalTrafficPolicy", "externalTrafficPolicy"):
        if spec.get(name) not in (None, "", "Cluster", "Local"):
            causes.append(not_supported(f"spec.{name}", spec[name], ("Cluster", "Local")))
    headless = spec.get("clusterIP") == "None"
    if spec["type"] == "ExternalName":
        if not spec.get("externalName"):
            causes.append(required("spec.externalName"))
        elif not DNS_SUBDOMAIN.fullmatch(spec["externalName"].removesuffix(".")):
            causes.append(invalid("spec.externalName", spec["externalName"], DNS_SUBDOMAIN_HINT))
        if spec.get("clusterIP"):
            causes.append(forbidden("spec.clusterIP", "may not be set when `type` is 'ExternalName'"))
    elif not spec.get("ports") and not headless:
        causes.append(required("spec.ports"))
    if headless and spec["type"] in NODE_PORT_TYPES:
        causes.append(invalid("spec.clusterIP", "None", f"may not be 'None' when `type` is '{spec['type']}'"))
    causes += _validate_ports(spec)
    causes += validate_labels(spec.get("selector") or {}, "spec.selector")
    for index, address in enumerate(spec.get("externalIPs") or ()):
        if not is_ip(address):
            causes.append(invalid(f"spec.externalIPs[{index}]", address, "must be a valid IP address"))
        elif special := _special(address):
            causes.append(invalid(f"spec.externalIPs[{index}]", address, special))
    causes += _validate_balancer(spec, old)
    timeout = dig(spec, "sessionAffinityConfig.clientIP.timeoutSeconds", 1)
    if not 1 <= timeout <= LONGEST_AFFINITY:
        field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        causes.append(invalid(field, timeout, f"must be greater than 0 and less than or equal to {LONGEST_AFFINITY}"))
    before = dig(old or {}, "spec.clusterIP")
    addressed = "ExternalName" not in (spec["type"], dig(old or {}, "spec.type"))
    if before and addressed and spec.get("clusterIP") != before:
        causes.append(invalid("spec.clusterIP", spec.get("clusterIP", ""), "field is immutable"))
    return causes


def is_health_checked(spec: Json) -> bool:
    """Whether balancers ask each node for endpoints of its own, at `healthCheckNodePort`."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _special(address: str) -> str:
    """Why packets to an address can never come from elsewhere; "" if they can."""
    ip = ipaddress.ip_address(address)
    if ip.is_unspecified:
        return f"may not be unspecified ({address})"
    if ip.is_loopback:
        return "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    if ip.is_link_local:
        return "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    return "may not be in the multicast range" if ip.is_multicast else ""


def _validate_balancer(spec: Json, old: Json | None) -> Iterator[Cause]:
    """What only load balancers have."""
    balanced = spec["type"] == "LoadBalancer"
    for index, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        try:
            ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            hint = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            yield invalid(f"spec.loadBalancerSourceRanges[{index}]", text, hint)
    only = "may only be used when `type` is 'LoadBalancer'"
    for field in ("loadBalancerSourceRanges", "loadBalancerClass", "allocateLoadBalancerNodePorts"):
        if not balanced and spec.get(field) not in (None, "", []):
            yield forbidden(f"spec.{field}", only)
    if (
        balanced
        and spec.get("loadBalancerIP")
        and (not is_ip(spec["loadBalancerIP"]) or _special(spec["loadBalancerIP"]))
    ):
        yield invalid(
            "spec.loadBalancerIP", spec["loadBalancerIP"], "must be an IP address that can be reached from outside"
        )
    before = (old or {}).get("spec", {})
    if (
        balanced
        and before.get("type") == "LoadBalancer"
        and before.get("loadBalancerClass") != spec.get("loadBalancerClass")
    ):
        yield invalid("spec.loadBalancerClass", spec.get("loadBalancerClass", ""), "may not change once set")
    if spec.get("healthCheckNodePort"):
        if not is_health_checked(spec):
            hint = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            yield invalid("spec.healthCheckNodePort", spec["healthCheckNodePort"], hint)
        elif before.get("healthCheckNodePort", spec["healthCheckNodePort"]) != spec["healthCheckNodePort"]:
            yield invalid("spec.healthCheckNodePort", spec["healthCheckNodePort"], "field is immutable")


def _validate_ports(spec: Json) -> list[Cause]:
    causes: list[Cause] = []
    names: set[str] = set()
    numbers: set[tuple[int, str]] = set()
    ports = spec.get("ports") or []
    for index, port in enumerate(ports):
        here, name = f"spec.ports[{index}]", port.get("name", "")
        if len(ports) > 1 and not name:
            causes.append(required(f"{here}.name"))
        elif name and not DNS_LABEL.fullmatch(name):
            causes.append(invalid(f"{here}.name", name, DNS_LABEL_HINT))
        elif name and name in names:
            causes.append(duplicate(f"{here}.name", name))
        names.add(name)
        if not 1 <= port.get("port", 0) <= 65535:
            causes.append(invalid(f"{here}.port", port.get("port", 0), "must be between 1 and 65535, inclusive"))
        target = port.get("targetPort")
        if isinstance(target, int) and not 1 <= target <= 65535:
            causes.append(invalid(f"{here}.targetPort", target, "must be between 1 and 65535, inclusive"))
        elif isinstance(target, str) and not PORT_NAME.fullmatch(target):
            causes.append(invalid(f"{here}.targetPort", target, "must be a port's name: at most 15 lower case "
                                  "alphanumeric characters or '-', with at least one letter"))  # fmt: skip
        if port.get("protocol") not in PROTOCOLS:
            causes.append(not_supported(f"{here}.protocol", port.get("protocol"), PROTOCOLS))
        elif port["protocol"] == "SCTP":
            causes.append(invalid(f"{here}.protocol", "SCTP", "minik8s forwards TCP and UDP only"))
        key = (port.get("port", 0), port.get("protocol", ""))
        if key in numbers:
            causes.append(duplicate(here, f"{key[0]}/{key[1]}"))
        numbers.add(key)
        if port.get("nodePort") and spec["type"] not in NODE_PORT_TYPES:
            causes.append(forbidden(f"{here}.nodePort", f"may not be used when `type` is '{spec['type']}'"))
    return causes


RESOURCE = Resource(
    kind="Service",
    plural="services",
    type=Service,
    definition="io.k8s.api.core.v1.Service",
    shortNames=("svc",),
    categories=("all",),
    subresources=frozenset(("status", "proxy")),
    columns=(
        NAME,
        Column("Type", lambda service, now: service["spec"].get("type", ""), description="How it is reached."),
        Column("Cluster-IP", lambda service, now: service["spec"].get("clusterIP") or NONE, description="Its address."),
        Column("External-IP", _external, description="Addresses from outside."),
        Column("Port(s)", _ports, description="Port, node port, protocol."),
        AGE,
        Column(
            "Selector",
            lambda service, now: labels_text(service["spec"].get("selector")),
            priority=1,
            description="Its pods.",
        ),
    ),
    default=_default,
    validate=_validate,
    selectable={
        "spec.clusterIP": lambda service: str(dig(service, "spec.clusterIP", "")),
        "spec.type": lambda service: str(dig(service, "spec.type", "")),
    },
)
