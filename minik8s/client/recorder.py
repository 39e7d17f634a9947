"""Events for people: what happened to an object, counted instead of repeated, never in the way of the work."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import Any

from minik8s.api.errors import AlreadyExists, Conflict, NotFound, StatusError
from minik8s.api.kinds.event import Event
from minik8s.api.meta import Object
from minik8s.client.base import Client
from minik8s.client.workqueue import WorkQueue
from minik8s.clock import Clock, rfc3339, system_clock
from minik8s.log import get_logger

BACKLOG = (
    1000  # different events waiting to be written; beyond it new ones are dropped, as client-go's broadcaster does
)
COUNT_ATTEMPTS = 16  # of counting one up against others who do the same
WRITERS = 8  # events on their way to the store at once
NAME_LIMIT = 236  # characters of the object's name in that of the event, which has 253 in all
MESSAGE_LIMIT = 1024  # characters; validation of events.k8s.io/v1
log = get_logger("recorder")


class Recorder:
    """`event(...)` returns at once; `run()` writes. The same event of the same object is counted up, not added."""

    def __init__(self, client: Client, component: str, *, host: str = "", clock: Clock = system_clock) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock
        self._queue = WorkQueue()  # of names, so that no two writers count the same event up at once
        self._waiting: dict[str, dict[str, Any]] = {}
        self._dropped = 0

    def event(self, obj: Object, type: str, reason: str, message: str, *, field_path: str = "") -> None:
        """Tell about `obj`: `type` Normal or Warning, `reason` one CamelCase word, `message` a sentence."""
        resource = self._client.scheme.of(obj.__class__)
        namespace = obj.metadata.namespace or "default"
        involved = {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "namespace": obj.metadata.namespace,
            "name": obj.metadata.name,
            "uid": obj.metadata.uid,
            "resourceVersion": obj.metadata.resourceVersion,
            "fieldPath": field_path,
        }
        message = message[:MESSAGE_LIMIT]
        same = "\0".join((involved["uid"], involved["name"], field_path, type, reason, message, self._component))
        # The name is made from the content: counting up needs no memory and survives a restart.
        name = f"{obj.metadata.name[:NAME_LIMIT]}.{hashlib.blake2b(same.encode(), digest_size=8).hexdigest()}"
        key, now = f"{namespace}/{name}", rfc3339(self._clock())
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting |= {"count": waiting["count"] + 1, "lastTimestamp": now}
            return
        if len(self._waiting) >= BACKLOG:
            self._dropped += 1
            return
        self._waiting[key] = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {key: value for key, value in involved.items() if value},
            "reason": reason,
            "message": message,
            "type": type,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": self._component} | ({"host": self._host} if self._host else {}),
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
        self._queue.add(key)

    @property
    def idle(self) -> bool:
        """All that was told so far has been written, or has failed to be."""
        return not self._waiting and self._queue.idle

    async def run(self, *, writers: int = WRITERS) -> None:
        """Write for ever, several at a time: one durable write takes milliseconds, a burst has hundreds."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(writers):
                tasks.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            document = self._waiting.pop(key)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                log.warning(
                    "events dropped",
                    component=self._component,
                    count=dropped,
                    remedy="nothing: more happened at once than is worth telling",
                )
            try:
                await self._write(document)
            except StatusError as error:
                # An event is a courtesy: a namespace that is going away or a lost server must not stop anything.
                log.debug("event not written", reason=document["reason"], error=str(error))
            finally:
                self._queue.done(key)

    async def _write(self, document: dict[str, Any]) -> None:
        name, namespace = document["metadata"]["name"], document["metadata"]["namespace"]
        try:
            await self._client.create(Event, document)
        except AlreadyExists:
            for _ in range(COUNT_ATTEMPTS):
                with suppress(Conflict):
                    return await self._count(name, namespace, document)

    async def _count(self, name: str, namespace: str, document: dict[str, Any]) -> None:
        """More of an event that is there. Raises Conflict if another process was faster."""
        with suppress(NotFound):  # forgotten by the cluster just now, as old events are
            known = await self._client.get(Event, name, namespace)
            seen = {"resourceVersion": known.metadata.resourceVersion}
            again = {"metadata": seen, "count": known.count + document["count"]}
            again["lastTimestamp"] = document["lastTimestamp"]
            await self._client.patch(Event, name, namespace, again)
