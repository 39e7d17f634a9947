"""An informer is a local copy of one collection that the API keeps fresh: list once, then watch, for ever.

Handlers are called on the loop, in order, with the object before and after (None = was not / is no more there); they
must only note what to look at (`queue.add`). Reading the copy costs a dictionary look-up and never fails; it may be a
little old, which `caught_up` cures for one's own writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from minik8s.aio import backoff
from minik8s.api.errors import Gone, StatusError, Timeout
from minik8s.api.meta import Object
from minik8s.api.resource import Resource
from minik8s.client.base import Client, WatchEvent
from minik8s.log import get_logger

T = TypeVar("T", bound=Object)
Handler = Callable[[T | None, T | None], None]
BRIEF = 1.0  # seconds; a watch that ends sooner is followed by the next one after a delay
# Seconds between attempts at most: a node learns soon that the master is back, and a hundred that knock do no harm.
LONGEST_DELAY = 5.0
log = get_logger("informer")


class Informer(Generic[T]):
    """`namespace`, `labels`, `fields` narrow what is copied. `run()` is eternal."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        view: type[T],
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
    ) -> None:
        self.resource = resource
        self._client = client
        self._view = view
        self._scope: dict[str, Any] = {"namespace": namespace, "labels": labels, "fields": fields}
        self._objects: dict[str, T] = {}  # by key, `namespace/name`
        self._by_namespace: dict[str, dict[str, T]] = {}
        self._indexes: dict[str, tuple[Callable[[T], Iterable[str]], dict[str, dict[str, T]]]] = {}
        self._handlers: list[Handler[T]] = []
        self._revision = 0
        self._after = ""  # where to watch on from; "" = list first
        self._synced = asyncio.Event()
        self._waiters: dict[asyncio.Future[None], int] = {}

    # -- reading

    def get(self, namespace: str | None, name: str) -> T | None:
        return self._objects.get(f"{namespace}/{name}" if namespace else name)

    def by_key(self, key: str) -> T | None:
        return self._objects.get(key)

    def list(self, namespace: str | None = None) -> list[T]:
        return list(self._objects.values() if namespace is None else self._by_namespace.get(namespace, {}).values())

    def __len__(self) -> int:
        return len(self._objects)

    def add_index(self, name: str, values: Callable[[T], Iterable[str]]) -> None:
        """Keep objects findable by what `values` says of each, e.g. the node of a pod. Idempotent by `name`."""
        if name in self._indexes:
            return
        self._indexes[name] = (values, {})
        for key, obj in self._objects.items():
            self._index(name, key, None, obj)

    def by_index(self, name: str, value: str) -> Sequence[T]:
        return tuple(self._indexes[name][1].get(value, {}).values())

    # -- following

    def on_change(self, handler: Handler[T]) -> None:
        """Call `handler(old, new)` at every change from now on; what is already here is given at once as added."""
        self._handlers.append(handler)
        for obj in self._objects.values():
            handler(None, obj)

    async def synced(self) -> None:
        """Return when the first list is here."""
        await self._synced.wait()

    @property
    def has_synced(self) -> bool:
        return self._synced.is_set()

    async def caught_up(self, resource_version: str, *, timeout: float = 10.0) -> None:
        """Return when the copy includes `resource_version`, the one a write of this collection was answered with."""
        wanted = int(resource_version)
        if self._revision >= wanted:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[future] = wanted
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise Timeout(f"the copy of {self.resource.name} is behind revision {wanted}") from None
        finally:
            del self._waiters[future]

    async def run(self) -> None:
        """Follow for ever. Losing the server is no error: the copy stays readable, attempts go on with back-off."""
        delays = backoff(last=LONGEST_DELAY)
        while True:
            lived = await self._follow()
            if lived > BRIEF:
                delays = backoff(last=LONGEST_DELAY)  # it was well until now: what comes is a new trouble
            await asyncio.sleep(next(delays))

    async def _follow(self) -> float:
        """List if need be, then watch until the watch ends, however it does. For how many seconds was it watched?"""
        began: float | None = None
        loop = asyncio.get_running_loop()
        try:
            if not self._after:
                await self._relist()
            began = loop.time()
            async with self._client.watch(self.resource, self._view, after=self._after, **self._scope) as batches:
                async for batch in batches:
                    self._apply(batch)
        except Gone:
            self._after = ""
        except StatusError as error:
            log.debug("watch interrupted", resource=self.resource.name, error=str(error))
        return 0.0 if began is None else loop.time() - began

    async def _relist(self) -> None:
        found = await self._client.list_as(self.resource, self._view, **self._scope)
        fresh = {obj.key: obj for obj in found.items}
        for key in [key for key in self._objects if key not in fresh]:
            self._set(key, None)
        for key, obj in fresh.items():
            known = self._objects.get(key)
            if known is None or known.metadata.resourceVersion != obj.metadata.resourceVersion:
                self._set(key, obj)
        self._revision = 0  # the list is the truth, even of a server that has begun to count anew
        self._advance(found.metadata.resourceVersion)
        self._synced.set()

    def _apply(self, batch: Sequence[WatchEvent[T]]) -> None:
        version = ""
        for event in batch:
            version = event.object.metadata.resourceVersion or version
            if event.type == "DELETED":
                self._set(event.object.key, None)
            elif event.type != "BOOKMARK":
                self._set(event.object.key, event.object)
        if version:
            self._advance(version)

    def _set(self, key: str, new: T | None) -> None:
        old = self._objects.get(key)
        if old is not None and new is not None and old.metadata.uid != new.metadata.uid:
            self._set(key, None)  # a name that was given again while nobody looked: one object went, another came
            old = None
        sample = new or old
        if sample is None:
            return
        namespace = sample.metadata.namespace
        space = self._by_namespace.setdefault(namespace, {})
        if new is None:
            del self._objects[key], space[key]
            if not space:
                del self._by_namespace[namespace]
        else:
            self._objects[key] = space[key] = new
        for name in self._indexes:
            self._index(name, key, old, new)
        for handler in self._handlers:
            handler(old, new)

    def _index(self, name: str, key: str, old: T | None, new: T | None) -> None:
        values, entries = self._indexes[name]
        before = tuple(values(old)) if old is not None else ()
        after = tuple(values(new)) if new is not None else ()
        if before != after:  # most news leave an object where it is
            for value in before:
                bucket = entries.get(value)
                if bucket is not None:
                    bucket.pop(key, None)
                    if not bucket:
                        del entries[value]
        if new is not None:
            for value in after:
                entries.setdefault(value, {})[key] = new

    def _advance(self, version: str) -> None:
        self._after = version
        self._revision = max(self._revision, int(version))
        for future, wanted in self._waiters.items():
            if wanted <= self._revision and not future.done():
                future.set_result(None)


class Informers:
    """Shared informers: components that read the same collection share one copy and one watch."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._informers: dict[tuple[str, type[Any], tuple[tuple[str, str], ...]], Informer[Any]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def of(self, kind: type[T], **scope: str) -> Informer[T]:
        """The informer of a struct type; `scope` as for Informer (`fields="spec.nodeName=n1"`)."""
        return self._get(self.client.resource(kind), kind, scope)

    def metadata(self, resource: Resource) -> Informer[Any]:
        """An informer that knows at least the metadata of a kind: the typed one if somebody has it, else a slim one."""
        for (name, _, scope), informer in self._informers.items():
            if name == resource.name and not scope:
                return informer
        return self._get(resource, Object, {})

    def _get(self, resource: Resource, view: type[Any], scope: Mapping[str, str]) -> Informer[Any]:
        key = (resource.name, view, tuple(sorted(scope.items())))
        informer = self._informers.get(key)
        if informer is None:
            informer = self._informers[key] = Informer(self.client, resource, view, **scope)
            if self._tasks is not None:
                self._tasks.create_task(informer.run(), name=f"informer {resource.name}")
        return informer

    @property
    def has_synced(self) -> bool:
        return all(informer.has_synced for informer in self._informers.values())

    async def synced(self) -> None:
        for informer in list(self._informers.values()):
            await informer.synced()

    async def run(self) -> None:
        """Run all informers, also those asked for later, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            for informer in self._informers.values():
                self._tasks.create_task(informer.run(), name=f"informer {informer.resource.name}")
            await asyncio.Event().wait()
