"""Every namespace has a `default` ServiceAccount and the cluster's CA as ConfigMap `kube-root-ca.crt`."""

from __future__ import annotations

from typing import Any

from minik8s.api.errors import AlreadyExists, StatusError
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.api.meta import Json, Object
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.controllers.pod_control import namespace_is_ending

ROOT_CA = "kube-root-ca.crt"
DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc."
)


class EachNamespace(Controller):
    """Keeps one object of a fixed name, made of `content`, in every namespace. Keys are namespaces' names."""

    workers = 1

    def __init__(self, client: Client, informers: Informers, kind: type[Any], object_name: str, content: Json) -> None:
        super().__init__(client, informers)
        self._kind = kind
        self._object_name = object_name
        self._content = content
        self._namespaces = informers.of(Namespace)
        self._objects = informers.of(kind, fields=f"metadata.name={object_name}")
        self._namespaces.on_change(lambda old, new: self.queue.add(new.metadata.name) if new is not None else None)
        self._objects.on_change(self._object_changed)

    def _object_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None:
            self.queue.add(old.metadata.namespace)

    def is_right(self, known: Any) -> bool:
        return True

    async def reconcile(self, key: str) -> float | None:
        namespace, known = self._namespaces.by_key(key), self._objects.get(key, self._object_name)
        if namespace is None or namespace.deleting or (known is not None and self.is_right(known)):
            return None
        if known is not None:
            made = await self.client.patch(self._kind, self._object_name, key, self._content)
        else:
            meta = {**self._content.get("metadata", {}), "name": self._object_name, "namespace": key}
            try:
                made = await self.client.create(self._kind, {**self._content, "metadata": meta})
            except AlreadyExists:
                return None
            except StatusError as error:
                if namespace_is_ending(error):
                    return None
                raise
        await self._objects.caught_up(made.metadata.resourceVersion)
        return None


class ServiceAccountController(EachNamespace):
    name = "serviceaccount-controller"

    def __init__(self, client: Client, informers: Informers) -> None:
        super().__init__(client, informers, ServiceAccount, "default", {})


class RootCAController(EachNamespace):
    name = "root-ca-certificate-publisher-controller"

    def __init__(self, client: Client, informers: Informers, ca: str) -> None:
        """`ca`: the cluster's certificate authority as PEM text."""
        content = {"metadata": {"annotations": {"kubernetes.io/description": DESCRIPTION}}, "data": {"ca.crt": ca}}
        super().__init__(client, informers, ConfigMap, ROOT_CA, content)
        self._ca = ca

    def is_right(self, known: ConfigMap) -> bool:
        return known.data == {"ca.crt": self._ca}
