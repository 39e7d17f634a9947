"""Pods that wait for a function, started and with their environment imported: the first call of one need not wait for
a container. There are some in each namespace with functions that fit into them, and none anywhere else.

They are owned by nobody, lest they go with somebody: what is too much here is removed, also after a restart.
"""

from __future__ import annotations

from minik8s.api.errors import StatusError
from minik8s.api.kinds.environment import PLAIN, POOL_LABEL, Environment, environment_hash
from minik8s.api.kinds.function import Function
from minik8s.api.kinds.functionrevision import SHAPE_LABEL, FunctionRevision
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.controllers.ownership import index_by_controller
from minik8s.controllers.pod_control import PodControl, namespace_is_ending
from minik8s.controllers.pod_facts import is_finished, is_ready
from minik8s.faas.functions import pods
from minik8s.faas.functions.revisions import Built, usual_shape
from minik8s.faas.functions.workshop import BY_POOL, Workshop, history_of, index_by_pool, lost_nodes

LATER = 1.0  # seconds until a pool is filled again: the function that has taken from it comes first


class PoolController(Controller):
    """Keys are namespace/environment hash."""

    name = "function-pool"

    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, workshop: Workshop, *, size: int
    ) -> None:
        """`size`: of the pool of the plain environment, where no Environment says another."""
        super().__init__(client, informers)
        self._workshop = workshop
        self._size = size
        self._functions = informers.of(Function)
        self._revisions = informers.of(FunctionRevision)
        self._environments = informers.of(Environment)
        self._pods = informers.of(Pod)
        self._nodes = informers.of(Node)
        index_by_pool(self._pods)
        index_by_controller(self._revisions)
        self._control = PodControl(client, self._pods, recorder)
        self._revisions.on_change(self._revision_changed)
        self._environments.on_change(self._environment_changed)
        self._pods.on_change(self._pod_changed)

    def _revision_changed(self, old: FunctionRevision | None, new: FunctionRevision | None) -> None:
        revision = new or old
        if revision is not None:
            self.queue.add_after(f"{revision.metadata.namespace}/{revision.spec.environmentHash}", LATER)

    def _environment_changed(self, old: Environment | None, new: Environment | None) -> None:
        for each in (old, new):
            if each is not None:
                self.queue.add_after(f"{each.metadata.namespace}/{environment_hash(each.spec)}", LATER)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            if pod is not None and POOL_LABEL in pod.metadata.labels:
                self.queue.add_after(f"{pod.metadata.namespace}/{pod.metadata.labels[POOL_LABEL]}", LATER)

    async def reconcile(self, key: str) -> float | None:
        namespace, _, hashed = key.partition("/")
        named = [each for each in self._environments.list(namespace) if environment_hash(each.spec) == hashed]
        image = named[0].spec.image if named else ""
        make = self._fitting(namespace, Built(hash=hashed, image=image))
        size = max((each.spec.poolSize for each in named), default=self._size if hashed == PLAIN else 0)
        mine = [pod for pod in self._pods.by_index(BY_POOL, key) if not self._control.is_going(pod)]
        going = [pod for pod in mine if make is None or is_finished(pod) or not _is_of(pod, make)]
        useful = [pod for pod in mine if pod not in going]
        counting = pods.counting(useful, lost_nodes(self._nodes))
        going += pods.first_to_go(counting, max(0, len(counting) - size))
        for pod in going:
            await self._control.delete(pod, [pod])
        if make is not None and len(counting) < size:
            await self._fill(make, namespace, size - len(counting))
        for each in named:
            await self._tell(each, sum(map(is_ready, counting)))
        return None

    def _fitting(self, namespace: str, built: Built) -> pods.Make | None:
        """What idle pods are made of, as some function of the namespace could use them; None if none could."""
        shape = usual_shape(built)
        for function in self._functions.list(namespace):
            newest = history_of(self._revisions, function)[-1:]
            if newest and newest[0].spec.shape == shape and not function.deleting:
                return self._workshop.make(newest[0].spec)
        return None

    async def _fill(self, make: pods.Make, namespace: str, count: int) -> None:
        documents = await self._workshop.pods(make, namespace, f"function-pool-{make.environment[:8]}", count)
        newest = 0
        for document in documents:
            try:
                made = await self.client.create(Pod, pods.for_pool(document, make), namespace)
            except StatusError as error:
                if namespace_is_ending(error):
                    return  # its functions are about to go
                raise
            newest = int(made.metadata.resourceVersion)
        await self._pods.caught_up(str(newest))

    async def _tell(self, environment: Environment, ready: int) -> None:
        if environment.status.pool != ready:
            meta = environment.metadata
            body = {"metadata": {"uid": meta.uid}, "status": {"pool": ready}}
            await self.client.patch(Environment, meta.name, meta.namespace, body, subresource="status")


def _is_of(pod: Pod, make: pods.Make) -> bool:
    """Whether it is what would be made now: the image changes with minik8s' version."""
    fits = pod.metadata.labels.get(SHAPE_LABEL) == make.shape
    return fits and all(each.image == make.image for each in pod.spec.containers)
