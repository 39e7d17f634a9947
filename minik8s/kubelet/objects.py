"""The ConfigMaps and Secrets that this node's pods use: each watched by itself, as long as somebody needs it.

A node may read only what its pods refer to, so there is no watch of whole kinds. A change is told to those who use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import msgspec

from minik8s.api.errors import NotFound, StatusError
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import Object
from minik8s.api.references import of_pod
from minik8s.client.base import Client
from minik8s.client.informer import Informer

T = TypeVar("T", bound=Object)


class Ref(NamedTuple):
    kind: type[Object]
    namespace: str
    name: str


class Unavailable(Exception):
    """It cannot be known now: the API server does not answer and no copy is here."""


class _Entry(NamedTuple):
    informer: Informer[Object]
    task: asyncio.Task[None]
    users: set[str]


class Objects:
    """`use` declares what a pod (by uid) refers to; `get` reads. `changed(uid)` tells that one of these has changed."""

    def __init__(self, client: Client, changed: Callable[[str], None]) -> None:
        self._client = client
        self._changed = changed
        self._entries: dict[Ref, _Entry] = {}
        self._offline: dict[Ref, Object] = {}
        self._by_user: dict[str, set[Ref]] = {}

    def use(self, uid: str, refs: Iterable[Ref]) -> None:
        wanted, had = set(refs), self._by_user.get(uid, set())
        for ref in had - wanted:
            self._entries[ref].users.discard(uid)
            if not self._entries[ref].users:
                self._entries.pop(ref).task.cancel()
        for ref in wanted - had:
            if ref not in self._entries:
                self._entries[ref] = self._follow(ref)
            self._entries[ref].users.add(uid)
        if wanted:
            self._by_user[uid] = wanted
        else:
            self._by_user.pop(uid, None)

    def _follow(self, ref: Ref) -> _Entry:
        resource = self._client.resource(ref.kind)
        fields = f"metadata.name={ref.name}"
        informer = Informer(self._client, resource, ref.kind, namespace=ref.namespace, fields=fields)
        users: set[str] = set()

        def tell(old: Object | None, new: Object | None) -> None:
            for uid in tuple(users):
                self._changed(uid)

        informer.on_change(tell)
        return _Entry(informer, asyncio.create_task(informer.run(), name=f"object {ref.namespace}/{ref.name}"), users)

    async def get(self, kind: type[T], namespace: str, name: str) -> T | None:
        """The object, None if there is none; Unavailable when nobody can say. Follows only what is in `use`."""
        ref = Ref(kind, namespace, name)
        entry = self._entries.get(ref)
        found: Object | None
        if entry is not None and entry.informer.has_synced:
            found = entry.informer.get(namespace, name)
        else:
            try:
                found = await self._client.get(kind, name, namespace)
            except NotFound:
                found = None
            except StatusError as error:
                found = self._offline.get(ref)
                if found is None:
                    raise Unavailable(f"{ref.kind.__name__} {namespace}/{name}: {error}") from None
        if found is not None and not isinstance(found, kind):
            raise TypeError(ref)
        return found

    def remember(self, objects: Iterable[Object]) -> None:
        """Copies from an earlier life, for the time that the API server does not answer."""
        for obj in objects:
            self._offline[Ref(type(obj), obj.metadata.namespace, obj.metadata.name)] = obj

    def known(self) -> list[Object]:
        """All that is in use and here, for the cache on disk."""
        fresh = dict(self._offline)
        for ref, entry in self._entries.items():
            if entry.informer.has_synced:
                fresh.pop(ref, None)
                found = entry.informer.get(ref.namespace, ref.name)
                if found is not None:
                    fresh[ref] = found
        return [obj for ref, obj in fresh.items() if ref in self._entries]

    async def close(self) -> None:
        tasks = [entry.task for entry in self._entries.values()]
        self._entries.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def references(pod: Pod, *, volumes: bool = True) -> set[Ref]:
    """What a pod's environment, pull secrets and (unless the node has none) volumes refer to."""
    if not volumes:
        pod = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, volumes=()))
    return {Ref(kind, pod.metadata.namespace, name) for kind, name in of_pod(pod)}
