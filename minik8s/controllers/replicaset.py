"""A ReplicaSet keeps a number of equal pods: it makes what is missing and removes what is too much, the cheapest first.

A kind of the same shape (ReplicationController) is a subclass that names its type and its selector.
"""

from __future__ import annotations

from typing import Any, ClassVar

from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.api.labels import selects
from minik8s.api.meta import LabelSelector, Object
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock
from minik8s.controllers.crowd import patience
from minik8s.controllers.ownership import BY_CONTROLLER, claim, index_by_controller, owned, owner_reference
from minik8s.controllers.pod_control import BURST, PodControl, namespace_is_ending
from minik8s.controllers.replicas import active, first_to_go, next_available, status_of
from minik8s.controllers.status import difference, only_status_changed
from minik8s.controllers.templates import Templates, pod_from


class ReplicaSetController(Controller):
    name = "replicaset-controller"
    kind: ClassVar[type[Any]] = ReplicaSet

    def __init__(self, client: Client, informers: Informers, recorder: Recorder, clock: Clock) -> None:
        super().__init__(client, informers)
        self._clock = clock
        self._resource = client.resource(self.kind)
        self._pods = informers.of(Pod)
        self._sets = informers.of(self.kind)
        index_by_controller(self._pods)
        index_by_controller(self._sets)
        self._control = PodControl(client, self._pods, recorder)
        self._templates = Templates(client)
        self._sets.on_change(self._set_changed)
        self._pods.on_change(self._pod_changed)

    def selector(self, owner: Any) -> LabelSelector:
        selector: LabelSelector = owner.spec.selector
        return selector

    def _set_changed(self, old: Any, new: Any) -> None:
        if old is not None and (new is None or old.metadata.uid != new.metadata.uid):
            self._templates.forget(old.metadata.uid)
        if not only_status_changed(old, new):
            self.queue.add((new or old).key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            reference = pod.controller if pod is not None else None
            if pod is not None and reference is not None and reference.kind == self._resource.kind:
                wait = patience(len(self._pods.by_index(BY_CONTROLLER, reference.uid)))
                self.queue.add_after(f"{pod.metadata.namespace}/{reference.name}", wait)
        if new is not None and new.controller is None and not new.deleting:
            for owner in self._sets.list(new.metadata.namespace):
                if selects(self.selector(owner), new.metadata.labels):
                    self.queue.add(owner.key)

    async def reconcile(self, key: str) -> float | None:
        owner = self._sets.by_key(key)
        if owner is None:
            return None
        selector = self.selector(owner)
        mine = await claim(self.client, owner, lambda pod: selects(selector, pod.metadata.labels), self._pods)
        failure = None
        if not owner.deleting:
            failure = await self._manage(owner, mine)
        now = self._clock()
        pods = active(owned(self._pods, owner))
        await self._write_status(owner, pods, failure, now)
        if failure is not None and not namespace_is_ending(failure[1]):
            raise failure[1]
        return next_available(pods, owner.spec.minReadySeconds, now)

    async def _manage(self, owner: Any, mine: list[Pod]) -> tuple[str, Any] | None:
        """Make or remove what the number of pods asks for; what went wrong as (condition reason, error)."""
        alive = [pod for pod in active(mine) if not self._control.is_going(pod)]
        missing = owner.spec.replicas - len(alive)
        if missing > 0:
            template = await self._templates.of(owner)
            pod = pod_from(template, owner_reference(owner, self._resource))
            outcome = await self._control.create(owner, [pod] * min(missing, BURST))
            if outcome.error is None and missing > BURST:
                self.queue.add(owner.key)
            return ("FailedCreate", outcome.error) if outcome.error is not None else None
        if missing < 0:
            going = first_to_go(alive, min(-missing, BURST), self._clock(), related=self._related(owner))
            outcome = await self._control.delete(owner, going)
            if outcome.error is None and -missing > BURST:
                self.queue.add(owner.key)
            return ("FailedDelete", outcome.error) if outcome.error is not None else None
        return None

    def _related(self, owner: Object) -> list[Pod]:
        """Active pods of all sets that the same controller manages: a Deployment's old and new ones."""
        manager = owner.controller
        siblings = self._sets.by_index("controller", manager.uid) if manager is not None else (owner,)
        return [pod for sibling in siblings for pod in active(owned(self._pods, sibling))]

    async def _write_status(self, owner: Any, pods: list[Pod], failure: tuple[str, Any] | None, now: float) -> None:
        told = (failure[0], str(failure[1])) if failure is not None else None
        patch = difference(owner.status, status_of(owner, pods, told, now), always=("replicas",))
        if patch is not None:
            meta = owner.metadata
            body = {"metadata": {"uid": meta.uid}, "status": patch}
            written = await self.client.patch(self.kind, meta.name, meta.namespace, body, subresource="status")
            await self._sets.caught_up(written.metadata.resourceVersion)
