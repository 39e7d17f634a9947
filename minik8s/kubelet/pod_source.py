"""Where a kubelet gets its pods from: a watch of its own node's, or its share of one watch for hundreds of nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from minik8s.api.kinds.pod import Pod
from minik8s.client.informer import Informer, Informers

Handler = Callable[[Pod | None, Pod | None], None]


class PodSource(Protocol):
    """The pods bound to one node."""

    @property
    def has_synced(self) -> bool: ...

    async def synced(self) -> None: ...

    def list(self) -> list[Pod]: ...

    def on_change(self, handler: Handler) -> None:
        """`handler(old, new)` for each change; what is here already is given at once."""


def own_pods(informers: Informers, node: str) -> PodSource:
    """A watch of one node's pods, as a real node has it."""
    return informers.of(Pod, fields=f"spec.nodeName={node}")


class SharedPods:
    """One informer of all pods, split by node, for many simulated nodes in one process."""

    def __init__(self, informer: Informer[Pod]) -> None:
        self.informer = informer
        informer.add_index("node", lambda pod: (pod.spec.nodeName,))
        self._handlers: dict[str, list[Handler]] = {}
        informer.on_change(self._dispatch)

    def _dispatch(self, old: Pod | None, new: Pod | None) -> None:
        before = old.spec.nodeName if old is not None else ""
        after = new.spec.nodeName if new is not None else ""
        if before and before != after:
            for handler in self._handlers.get(before, ()):
                handler(old, None)
        for handler in self._handlers.get(after, ()) if after else ():
            handler(old if before == after else None, new)

    def of(self, node: str) -> PodSource:
        return _Share(self, node)

    def add(self, node: str, handler: Handler) -> None:
        self._handlers.setdefault(node, []).append(handler)
        for pod in self.informer.by_index("node", node):
            handler(None, pod)


class _Share:
    def __init__(self, pods: SharedPods, node: str) -> None:
        self._pods = pods
        self._node = node

    @property
    def has_synced(self) -> bool:
        return self._pods.informer.has_synced

    async def synced(self) -> None:
        await self._pods.informer.synced()

    def list(self) -> list[Pod]:
        return list(self._pods.informer.by_index("node", self._node))

    def on_change(self, handler: Handler) -> None:
        self._pods.add(self._node, handler)
