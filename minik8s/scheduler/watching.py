"""News from the informers become the cache's state and the queue's happenings; nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.service import Service
from minik8s.client.informer import Informer, Informers
from minik8s.scheduler.cache import Cache, images_changed, node_changed
from minik8s.scheduler.model import TERMINAL
from minik8s.scheduler.queue import Happening, SchedulingQueue


class Watching:
    """`wake` is called whenever a pod may have become ready to be tried; `gated` for each pod that must wait."""

    def __init__(
        self,
        informers: Informers,
        cache: Cache,
        queue: SchedulingQueue,
        *,
        scheduler_name: str,
        wake: Callable[[], None],
        gated: Callable[[Pod], None],
    ) -> None:
        self.pods: Informer[Pod] = informers.of(Pod)
        self.nodes: Informer[Node] = informers.of(Node)
        self._namespaces: Informer[Namespace] = informers.of(Namespace)
        self._services: Informer[Service] = informers.of(Service)
        self._cache, self._queue = cache, queue
        self._scheduler_name = scheduler_name
        self._wake, self._gated = wake, gated
        self.nodes.on_change(self._node_changed)
        self._namespaces.on_change(self._namespace_changed)
        self._services.on_change(self._service_changed)
        self.pods.on_change(self._pod_changed)

    async def synced(self) -> None:
        for informer in (self.nodes, self._namespaces, self._services, self.pods):
            await informer.synced()

    def wants(self, pod: Pod) -> bool:
        """Whether it is ours to find a node for this pod, gates apart."""
        return (
            not pod.spec.nodeName
            and not pod.deleting
            and pod.status.phase not in TERMINAL
            and pod.spec.schedulerName == self._scheduler_name
        )

    def _happened(self, what: Happening) -> None:
        if self._queue.happened(what, asyncio.get_running_loop().time()):
            self._wake()

    # -- pods

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is None:
            if old is not None:
                self._pod_gone(old.key)
        elif new.spec.nodeName:
            self._pod_placed(old, new)
        elif not self.wants(new):
            self._queue.remove(new.key)
            self._cache.snapshot.forget_nomination(new.key)
        else:
            self._pod_waits(old, new)

    def _pod_gone(self, key: str) -> None:
        self._queue.remove(key)
        held_room = key in self._cache.snapshot.pods or self._is_nominated(key)
        self._cache.remove_pod(key)
        if held_room:
            self._happened(Happening.POD_GONE)

    def _pod_placed(self, old: Pod | None, new: Pod) -> None:
        key, pods = new.key, self._cache.snapshot.pods
        self._queue.remove(key)
        news = key not in pods or self._cache.is_assumed(key)
        relabelled = old is not None and old.metadata.labels != new.metadata.labels
        resized = old is not None and bool(old.spec.nodeName) and old.spec.containers != new.spec.containers
        self._cache.set_pod(new)
        if key not in pods or resized:
            self._happened(Happening.POD_GONE)  # finished, or may need less now
        elif news or relabelled:
            self._happened(Happening.POD_PLACED)

    def _pod_waits(self, old: Pod | None, new: Pod) -> None:
        key, snapshot = new.key, self._cache.snapshot
        known = snapshot.pods.get(key)
        if known is not None:
            if known.uid == new.metadata.uid:
                return  # its binding is on its way
            self._pod_gone(key)
        if new.spec.schedulingGates:
            self._queue.gate(key)
            self._gated(new)
            return
        nominated = new.status.nominatedNodeName
        if nominated and not self._is_nominated(key):
            snapshot.nominate(self._cache.info(new), nominated)  # decided before a restart
        changed = old is None or old.spec != new.spec or old.metadata.labels != new.metadata.labels
        if changed or key not in self._queue:
            self._queue.add(key, new.spec.priority)
            self._wake()

    def _is_nominated(self, key: str) -> bool:
        return any(key in pods for pods in self._cache.snapshot.nominated.values())

    # -- the rest

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        snapshot = self._cache.snapshot
        if new is None:
            if old is not None:
                snapshot.remove_node(old.metadata.name)
                self._happened(Happening.NODE)  # spreading and affinity may see it otherwise now
            return
        matters = node_changed(old, new)
        if matters or (old is not None and images_changed(old, new)):
            snapshot.set_node(new)
        if matters:
            self._happened(Happening.NODE)

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        namespaces = self._cache.snapshot.namespaces
        if new is None:
            if old is not None:
                namespaces.pop(old.metadata.name, None)
        elif namespaces.get(new.metadata.name) != new.metadata.labels:
            namespaces[new.metadata.name] = new.metadata.labels
            self._happened(Happening.NAMESPACE)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        sample = new or old
        if sample is None:
            return
        services = self._cache.snapshot.services.setdefault(sample.metadata.namespace, {})
        if new is None:
            services.pop(sample.metadata.name, None)
        else:
            services[sample.metadata.name] = new.spec.selector
