"""Creating and deleting pods on behalf of an owner, many at once, told in events, and never twice.

Creations wait until the informer has them, so the next look counts them. A deletion has no revision to wait for:
pods that were asked to go are remembered until the informer shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from minik8s.api.errors import Conflict, Forbidden, NotFound, StatusError
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import Json, Object
from minik8s.client.base import Client
from minik8s.client.informer import Informer
from minik8s.client.recorder import Recorder

BURST = 500  # pods made or deleted in one look, as in Kubernetes' replica set controller
DELETES_AT_ONCE = 50
T = TypeVar("T")
R = TypeVar("R")


class Outcome(NamedTuple):
    done: int
    error: StatusError | None = None


def batches(items: Sequence[T], first: int = 1) -> Iterator[Sequence[T]]:
    """Slices of 1, 2, 4, 8 …: a fault that all share (a quota, a bad template) is met once, not a thousand times."""
    at, size = 0, first
    while at < len(items):
        yield items[at : at + size]
        at, size = at + size, size * 2


async def attempt_all(action: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R | StatusError]:
    """Do all at once; a StatusError is a result like another, in the order of `items`."""

    async def attempt(item: T) -> R | StatusError:
        try:
            return await action(item)
        except StatusError as error:
            return error

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(attempt(item)) for item in items]
    return [task.result() for task in running]


class PodControl:
    def __init__(self, client: Client, pods: Informer[Pod], recorder: Recorder) -> None:
        self._client = client
        self._pods = pods
        self._recorder = recorder
        self._going: set[str] = set()
        pods.on_change(self._seen)

    def _seen(self, old: Pod | None, new: Pod | None) -> None:
        if self._going and (new is None or new.deleting):
            self._going.discard((new or old or Pod()).metadata.uid)

    def is_going(self, pod: Pod) -> bool:
        """Whether we have asked for the pod's deletion (and the copy may not show it yet)."""
        return pod.deleting or pod.metadata.uid in self._going

    async def create(self, owner: Object, pods: Sequence[Json]) -> Outcome:
        """Create `pods` in growing batches until one fails; events SuccessfulCreate and FailedCreate tell of it."""
        newest = done = 0
        error: StatusError | None = None
        for batch in batches(pods):
            for result in await attempt_all(lambda pod: self._create(owner, pod), batch):
                if isinstance(result, StatusError):
                    error = error or result
                else:
                    done += 1
                    newest = max(newest, int(result.metadata.resourceVersion))
            if error is not None:
                break
        if newest:
            await self._pods.caught_up(str(newest))
        return Outcome(done, error)

    async def _create(self, owner: Object, pod: Json) -> Pod:
        try:
            made = await self._client.create(Pod, pod, owner.metadata.namespace)
        except StatusError as error:
            if not namespace_is_ending(error):
                self._recorder.event(owner, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self._recorder.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {made.metadata.name}")
        return made

    async def delete(self, owner: Object, pods: Iterable[Pod]) -> Outcome:
        """Delete those of `pods` that are not going yet; events SuccessfulDelete and FailedDelete tell of it."""
        wanted = [pod for pod in pods if not self.is_going(pod)]
        done, error = 0, None
        for start in range(0, len(wanted), DELETES_AT_ONCE):
            chunk = wanted[start : start + DELETES_AT_ONCE]
            for result in await attempt_all(lambda pod: self._delete(owner, pod), chunk):
                done += not isinstance(result, StatusError)
                error = error or (result if isinstance(result, StatusError) else None)
        return Outcome(done, error)

    async def _delete(self, owner: Object, pod: Pod) -> None:
        meta = pod.metadata
        self._going.add(meta.uid)
        try:
            await self._client.delete(Pod, meta.name, meta.namespace, uid=meta.uid)
        except (NotFound, Conflict):  # gone already, or its name belongs to another pod now
            shown = self._pods.by_key(pod.key)
            if shown is None or shown.metadata.uid != meta.uid:
                self._going.discard(meta.uid)
            return
        except StatusError as error:
            self._going.discard(meta.uid)
            self._recorder.event(owner, "Warning", "FailedDelete", f"Error deleting: {error}")
            raise
        self._recorder.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {meta.name}")


def namespace_is_ending(error: StatusError) -> bool:
    """Whether a creation was refused because the namespace is being deleted: nothing to report or to try again."""
    causes: Sequence[Any] = error.details.get("causes") or ()
    return isinstance(error, Forbidden) and any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
