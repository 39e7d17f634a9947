"""The Service `kubernetes` comes back when somebody deletes it, and so do its endpoints.

`kubectl delete all --all` takes along the address at which pods reach the API server. Kubernetes' control plane
looks every ten seconds whether it is there; here its end is the event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from minik8s.api.kinds.endpoints import Endpoints
from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.service import Service
from minik8s.api.meta import Object
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers

OWN = "default/kubernetes"


class Keeper(Controller):
    """`make` makes what is missing of them, and may be called at any time."""

    name: ClassVar[str] = "bootstrap-controller"
    workers: ClassVar[int] = 1

    def __init__(self, client: Client, informers: Informers, make: Callable[[], Awaitable[None]]) -> None:
        super().__init__(client, informers)
        self._make = make
        informers.of(Service).on_change(self._changed)
        informers.of(Endpoints).on_change(self._changed)
        informers.of(EndpointSlice).on_change(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None and old.key == OWN:
            self.queue.add(old.key)

    async def reconcile(self, key: str) -> float | None:
        await self._make()
        return None
