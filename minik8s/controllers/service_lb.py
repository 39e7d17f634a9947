"""A Service of type LoadBalancer is reached at the nodes' own addresses, or at the `loadBalancerIP` it asks for.

An address and port can lead to one Service only: the first one has it, and the next is told so in an event. What
the control plane itself listens on is given to nobody. With `externalTrafficPolicy: Local` only nodes that have a
ready endpoint are named, since the others answer nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from minik8s.api.kinds.endpointslice import SERVICE_NAME_LABEL, EndpointSlice
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.service import Service
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.controllers.endpointslice import BY_SERVICE, index_by_service
from minik8s.controllers.node_health import readiness

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
API_SERVICE = "default/kubernetes"
Door = tuple[str, int, str]  # address, port, protocol


class Given(NamedTuple):
    """What one Service gets, and why it gets no more."""

    ingress: tuple[str, ...] = ()
    refusal: str = ""


def is_ours(service: Service) -> bool:
    return service.spec.type == "LoadBalancer" and not service.spec.loadBalancerClass and not service.deleting


def assign(
    services: Iterable[Service],
    nodes: Iterable[Node],
    local: Mapping[str, frozenset[str]],
    taken: Mapping[Door, str],
) -> dict[str, Given]:
    """Service key -> what it is given. `local`: key -> nodes with a ready endpoint; `taken`: doors of others."""
    addresses = node_addresses(nodes)
    holders = dict(taken)
    result = {}
    for service in sorted(services, key=_turn):
        if not is_ours(service):
            continue
        wanted = _wanted(service, addresses, local.get(service.key, frozenset()))
        ports = [(port.port, port.protocol) for port in service.spec.ports]
        free, refusal = [], ""
        for ip in wanted:
            holder = next(((p, holders[ip, *p]) for p in ports if (ip, *p) in holders), None)
            if holder is None:
                free.append(ip)
            else:
                (number, protocol), name = holder
                refusal = f"{ip}:{number}/{protocol} belongs to {name}; choose another port"
        holders.update({(ip, *port): f"Service {service.key}" for ip in free for port in ports})
        result[service.key] = Given(tuple(free), refusal)
    return result


def _turn(service: Service) -> tuple[bool, str, str]:
    """Who has an address keeps it: creation is told in whole seconds only."""
    return (not service.status.loadBalancer.ingress, service.metadata.creationTimestamp, service.key)


def node_addresses(nodes: Iterable[Node]) -> dict[str, tuple[str, ...]]:
    """Node name -> InternalIPs, of those that may carry traffic from outside."""
    return {
        node.metadata.name: tuple(a.address for a in node.status.addresses if a.type == "InternalIP")
        for node in nodes
        if readiness(node) == "True" and EXCLUDED not in node.metadata.labels and not node.deleting
    }


def _wanted(service: Service, addresses: Mapping[str, tuple[str, ...]], local: frozenset[str]) -> list[str]:
    if service.spec.loadBalancerIP:
        return [service.spec.loadBalancerIP]  # whoever routes it leads it to a node
    everywhere = service.spec.externalTrafficPolicy != "Local"
    return sorted(ip for name, ips in addresses.items() if everywhere or name in local for ip in ips)


def nodes_with_endpoints(slices: Iterable[EndpointSlice]) -> frozenset[str]:
    return frozenset(
        each.nodeName for piece in slices for each in piece.endpoints if each.conditions.ready is not False
    )


class ServiceLBController(Controller):
    name = "service-lb-controller"

    def __init__(self, client: Client, informers: Informers, recorder: Recorder) -> None:
        super().__init__(client, informers)
        self._recorder = recorder
        self._services = informers.of(Service)
        self._nodes = informers.of(Node)
        self._slices = informers.of(EndpointSlice)
        index_by_service(self._slices)
        self._told: dict[str, str] = {}  # Service -> the refusal that its event says
        self._services.on_change(self._service_changed)
        self._nodes.on_change(self._node_changed)
        self._slices.on_change(self._slice_changed)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if any(each is not None and each.spec.type == "LoadBalancer" for each in (old, new)):
            self._look_at_all()  # one's port may be what another waits for
        if new is not None and new.status.loadBalancer.ingress:
            self.queue.add(new.key)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if _facts(old) != _facts(new):
            self._look_at_all()

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        piece = new or old or EndpointSlice()
        key = f"{piece.metadata.namespace}/{piece.metadata.labels.get(SERVICE_NAME_LABEL, '')}"
        service = self._services.by_key(key)
        if service is not None and service.spec.type == "LoadBalancer" and _is_local(service):
            self.queue.add(key)

    def _look_at_all(self) -> None:
        for service in self._services.list():
            if service.spec.type == "LoadBalancer":
                self.queue.add(service.key)

    async def reconcile(self, key: str) -> float | None:
        service = self._services.by_key(key)
        if service is None or service.deleting or service.spec.loadBalancerClass:
            self._told.pop(key, None)
            return None
        given = self._assigned().get(key, Given())
        self._tell(service, given.refusal)
        if list(given.ingress) != [each.ip for each in service.status.loadBalancer.ingress]:
            meta = service.metadata
            entries = [{"ip": ip, "ipMode": "VIP"} for ip in given.ingress]
            patch = {"metadata": {"uid": meta.uid}, "status": {"loadBalancer": {"ingress": entries or None}}}
            written = await self.client.patch(Service, meta.name, meta.namespace, patch, subresource="status")
            await self._services.caught_up(written.metadata.resourceVersion)
        return None

    def _assigned(self) -> dict[str, Given]:
        mine = [service for service in self._services.list() if is_ours(service)]
        local = {s.key: nodes_with_endpoints(self._slices.by_index(BY_SERVICE, s.key)) for s in mine if _is_local(s)}
        return assign(mine, self._nodes.list(), local, self._reserved())

    def _reserved(self) -> dict[Door, str]:
        """Where the API and the kubelets listen: a Service there would cut the cluster off from itself."""
        doors: dict[Door, str] = {}
        for piece in self._slices.by_index(BY_SERVICE, API_SERVICE):
            for ip in (address for each in piece.endpoints for address in each.addresses):
                doors |= {(ip, port.port, "TCP"): "the API server" for port in piece.ports}
        for node in self._nodes.list():
            port = node.status.daemonEndpoints.kubeletEndpoint.Port
            doors |= {(a.address, port, "TCP"): "the kubelet" for a in node.status.addresses}
        return doors

    def _tell(self, service: Service, refusal: str) -> None:
        if refusal and self._told.get(service.key) != refusal:
            self._recorder.event(service, "Warning", "SyncLoadBalancerFailed", refusal)
        self._told[service.key] = refusal


def _is_local(service: Service) -> bool:
    return service.spec.externalTrafficPolicy == "Local"


def _facts(node: Node | None) -> object:
    return node and (readiness(node), node.status.addresses, EXCLUDED in node.metadata.labels, node.deleting)
