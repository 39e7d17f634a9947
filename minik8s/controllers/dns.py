"""A DNS object becomes an Ingress that it owns; from there on nothing else knows of it but its status."""

from __future__ import annotations

from minik8s.api.kinds.dns import DNS
from minik8s.api.kinds.ingress import Ingress
from minik8s.api.kinds.service import Service
from minik8s.api.meta import Json
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informer, Informers
from minik8s.controllers.dns_plan import derive, ingress_name
from minik8s.controllers.ingress_routes import STRIP_PREFIX
from minik8s.controllers.ownership import owner_reference
from minik8s.controllers.status import only_status_changed

BY_UID = "uid"


def service_names(services: Informer[Service]) -> None:
    """Keep services findable by their uid."""
    services.add_index(BY_UID, lambda service: (service.metadata.uid,))


def service_name(services: Informer[Service], namespace: str, uid: str) -> str:
    found = services.by_index(BY_UID, uid)
    return next((service.metadata.name for service in found if service.metadata.namespace == namespace), "")


class DNSController(Controller):
    name = "dns-controller"

    def __init__(self, client: Client, informers: Informers) -> None:
        super().__init__(client, informers)
        self._objects = informers.of(DNS)
        self._services = informers.of(Service)
        self._ingresses = informers.of(Ingress)
        service_names(self._services)
        self._objects.on_change(self._changed)
        self._services.on_change(self._service_changed)
        self._ingresses.on_change(self._ingress_changed)

    def _changed(self, old: DNS | None, new: DNS | None) -> None:
        if new is not None and not only_status_changed(old, new):
            self.queue.add(new.key)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        """A service came or went: somebody may know it by its uid."""
        service = new or old
        if service is not None and (old is None or new is None):
            for dns in self._objects.list(service.metadata.namespace):
                if any(path.service.uid == service.metadata.uid for path in dns.spec.paths):
                    self.queue.add(dns.key)

    def _ingress_changed(self, old: Ingress | None, new: Ingress | None) -> None:
        """Somebody else may have changed or deleted what is ours, or made room for it."""
        ingress = new or old
        if ingress is not None and ingress.metadata.name.startswith("dns-") and not only_status_changed(old, new):
            self.queue.add(f"{ingress.metadata.namespace}/{ingress.metadata.name.removeprefix('dns-')}")

    async def reconcile(self, key: str) -> float | None:
        dns = self._objects.by_key(key)
        if dns is None or dns.deleting:
            return None
        meta, wanted = dns.metadata, derive(dns, lambda space, uid: service_name(self._services, space, uid))
        held = self._ingresses.get(meta.namespace, ingress_name(dns))
        if held is None:
            owner = owner_reference(dns, self.client.resource(DNS))
            metadata: Json = {"name": wanted.name, "namespace": meta.namespace, "ownerReferences": [owner]}
            metadata["annotations"] = wanted.annotations
            made = await self.client.create(Ingress, {"metadata": metadata, "spec": wanted.spec})
        elif held.controller is None or held.controller.uid != meta.uid or held.deleting:
            return None  # somebody else's: the DNS object's status says so
        elif held.spec != wanted.spec or held.metadata.annotations != wanted.annotations:
            annotations = {STRIP_PREFIX: None, **wanted.annotations}
            patch = {"metadata": {"uid": held.metadata.uid, "annotations": annotations}, "spec": wanted.spec}
            if held.spec == wanted.spec and held.metadata.annotations.get(STRIP_PREFIX) == annotations[STRIP_PREFIX]:
                return None  # others may annotate it as they like
            made = await self.client.patch(Ingress, wanted.name, meta.namespace, patch)
        else:
            return None
        await self._ingresses.caught_up(made.metadata.resourceVersion)
        return None
