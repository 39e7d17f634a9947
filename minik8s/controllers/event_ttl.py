"""Events are forgotten an hour after they last happened."""

from __future__ import annotations

from minik8s.api.errors import Conflict, NotFound, StatusError
from minik8s.api.kinds.event import EventSeries
from minik8s.api.meta import Object
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.clock import Clock, parse_time
from minik8s.controllers.pod_control import attempt_all

INTERVAL = 600.0  # seconds between sweeps
AT_ONCE = 20  # deletions under way
PER_SWEEP = 2000  # deletions; more are left to the next sweep, which then follows soon
SOON = 5.0


class EventTimes(Object):
    """As much of an Event as its age depends on."""

    lastTimestamp: str | None = ""
    eventTime: str | None = ""
    series: EventSeries | None = None

    @property
    def last(self) -> float:
        """Unix seconds of when it last happened."""
        series = self.series.lastObservedTime if self.series is not None else ""
        return max(
            map(parse_time, (series, self.lastTimestamp or "", self.eventTime or "", self.metadata.creationTimestamp))
        )


class EventTTLController(Controller):
    """One key, one sweep: no copy of the events is kept, they are too many and nobody decides by them."""

    name = "event-ttl-controller"
    workers = 1

    def __init__(self, client: Client, informers: Informers, clock: Clock, ttl: float) -> None:
        """`ttl`: seconds (--event-ttl)."""
        super().__init__(client, informers)
        self._clock = clock
        self._ttl = ttl
        self._resource = next(each for each in client.scheme.resources if each.name == "events")
        self.queue.add("events")

    async def reconcile(self, key: str) -> float | None:
        listed = await self.client.list_as(self._resource, EventTimes)
        limit = self._clock() - self._ttl
        old = [each for each in listed.items if each.last < limit]
        for start in range(0, min(len(old), PER_SWEEP), AT_ONCE):
            for result in await attempt_all(self._delete, old[start : start + AT_ONCE]):
                if isinstance(result, StatusError) and not isinstance(result, (NotFound, Conflict)):
                    raise result
        return INTERVAL if len(old) <= PER_SWEEP else SOON

    async def _delete(self, event: EventTimes) -> None:
        # Unless it has happened again meanwhile: then the revision differs.
        meta = event.metadata
        await self.client.delete(
            self._resource, meta.name, meta.namespace, uid=meta.uid, resource_version=meta.resourceVersion
        )
