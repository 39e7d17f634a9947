"""A Service of type LoadBalancer is reached at the nodes' own addresses: they are its ingress."""

from __future__ import annotations

from collections.abc import Iterable

from minik8s.api.kinds.node import Node
from minik8s.api.kinds.service import Service
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.controllers.node_health import readiness

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


def ingress(service: Service, nodes: Iterable[Node]) -> list[str]:
    """InternalIPs of the nodes that may carry outside traffic, sorted; none for other types and classes of others."""
    if service.spec.type != "LoadBalancer" or service.spec.loadBalancerClass:
        return []
    return sorted(
        address.address
        for node in nodes
        if readiness(node) == "True" and EXCLUDED not in node.metadata.labels and not node.deleting
        for address in node.status.addresses
        if address.type == "InternalIP"
    )


class ServiceLBController(Controller):
    name = "service-lb-controller"

    def __init__(self, client: Client, informers: Informers) -> None:
        super().__init__(client, informers)
        self._services = informers.of(Service)
        self._nodes = informers.of(Node)
        self._services.on_change(self._service_changed)
        self._nodes.on_change(self._node_changed)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if new is not None and (new.spec.type == "LoadBalancer" or new.status.loadBalancer.ingress):
            self.queue.add(new.key)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if _facts(old) != _facts(new):
            for service in self._services.list():
                self._service_changed(None, service)

    async def reconcile(self, key: str) -> float | None:
        service = self._services.by_key(key)
        if service is None or service.deleting or service.spec.loadBalancerClass:
            return None
        wanted = ingress(service, self._nodes.list())
        if wanted != [each.ip for each in service.status.loadBalancer.ingress]:
            meta = service.metadata
            entries = [{"ip": ip, "ipMode": "VIP"} for ip in wanted]
            patch = {"metadata": {"uid": meta.uid}, "status": {"loadBalancer": {"ingress": entries or None}}}
            written = await self.client.patch(Service, meta.name, meta.namespace, patch, subresource="status")
            await self._services.caught_up(written.metadata.resourceVersion)
        return None


def _facts(node: Node | None) -> object:
    return node and (readiness(node), node.status.addresses, EXCLUDED in node.metadata.labels, node.deleting)
