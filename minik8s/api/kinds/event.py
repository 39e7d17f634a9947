"""Event: something that happened to an object, told for people; stored in core/v1's shape."""

from __future__ import annotations

from minik8s.api.meta import Object, ObjectReference, Struct
from minik8s.api.resource import Resource


class EventSource(Struct):
    component: str = ""
    host: str = ""


class EventSeries(Struct):
    count: int = 0
    lastObservedTime: str = ""


class Event(Object):
    involvedObject: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    source: EventSource = EventSource()
    firstTimestamp: str = ""
    lastTimestamp: str = ""
    eventTime: str = ""
    count: int = 0
    type: str = ""  # Normal | Warning
    action: str = ""
    related: ObjectReference | None = None
    reportingComponent: str = ""
    reportingInstance: str = ""
    series: EventSeries | None = None


RESOURCE = Resource(
    kind="Event",
    plural="events",
    type=Event,
    definition="io.k8s.api.core.v1.Event",
    shortNames=("ev",),
    spec_generation=False,
)
