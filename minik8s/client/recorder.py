"""Events for people: what happened to an object, counted instead of repeated, never in the way of the work."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from minik8s.api.errors import AlreadyExists, NotFound, StatusError
from minik8s.api.kinds.event import Event
from minik8s.api.meta import Object
from minik8s.client.base import Client
from minik8s.clock import Clock, rfc3339, system_clock
from minik8s.log import get_logger

BACKLOG = 1000  # events waiting to be written; beyond it new ones are dropped, as client-go's broadcaster does
WRITERS = 8  # events on their way to the store at once
MESSAGE_LIMIT = 1024  # characters; validation of events.k8s.io/v1
log = get_logger("recorder")


class Recorder:
    """`event(...)` returns at once; `run()` writes. The same event of the same object is counted up, not added."""

    def __init__(self, client: Client, component: str, *, host: str = "", clock: Clock = system_clock) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(BACKLOG)
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
        now = rfc3339(self._clock())
        document = {
            # The name is made from the content: counting up needs no memory and survives a restart.
            "metadata": {
                "name": f"{obj.metadata.name}.{hashlib.blake2b(same.encode(), digest_size=8).hexdigest()}",
                "namespace": namespace,
            },
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
        try:
            self._queue.put_nowait(document)
        except asyncio.QueueFull:
            self._dropped += 1

    async def run(self) -> None:
        """Write for ever, several at a time: one durable write takes milliseconds, a burst has hundreds."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WRITERS):
                tasks.create_task(self._work())

    async def _work(self) -> None:
        while True:
            document = await self._queue.get()
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                log.warning("events dropped", component=self._component, count=dropped)
            try:
                await self._write(document)
            except StatusError as error:
                # An event is a courtesy: a namespace that is going away or a lost server must not stop anything.
                log.debug("event not written", reason=document["reason"], error=str(error))

    async def _write(self, document: dict[str, Any]) -> None:
        name, namespace = document["metadata"]["name"], document["metadata"]["namespace"]
        try:
            await self._client.create(Event, document)
        except AlreadyExists:
            try:
                known = await self._client.get(Event, name, namespace)
            except NotFound:
                return
            again = {"count": known.count + 1, "lastTimestamp": document["lastTimestamp"]}
            await self._client.patch(Event, name, namespace, again)
