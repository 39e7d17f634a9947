"""Service: one name and address for many pods."""

from __future__ import annotations

from minik8s.api.meta import Condition, IntOrString, Object, Struct
from minik8s.api.resource import Resource


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
    loadBalancerClass: str = ""
    allocateLoadBalancerNodePorts: bool = True


class LoadBalancerIngress(Struct):
    ip: str = ""
    hostname: str = ""


class LoadBalancerStatus(Struct):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Struct):
    loadBalancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] = ()


class Service(Object):
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


RESOURCE = Resource(
    kind="Service",
    plural="services",
    type=Service,
    definition="io.k8s.api.core.v1.Service",
    shortNames=("svc",),
    categories=("all",),
    subresources=frozenset(("status", "proxy")),
)
