"""Event: something that happened to an object, told for people; stored in core/v1's shape."""

from __future__ import annotations

from collections.abc import Callable

from minik8s.api.kinds.columns import NAME, UNKNOWN, dig, since
from minik8s.api.meta import Object, ObjectReference, Struct
from minik8s.api.resource import Alias, Column, Json, Resource


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


def _object(event: Json, now: float) -> str:
    involved = event.get("involvedObject") or {}
    return f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"


def _last_seen(event: Json, now: float) -> str:
    last = dig(event, "series.lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return since(last or dig(event, "metadata.creationTimestamp"), now)


def _first_seen(event: Json, now: float) -> str:
    return since(event.get("firstTimestamp") or event.get("eventTime"), now)


def _source(event: Json, now: float) -> str:
    host = dig(event, "source.host")
    component = dig(event, "source.component") or event.get("reportingComponent", "")
    return f"{component}, {host}" if host else component


def _count(event: Json, now: float) -> int:
    return int(event.get("count") or dig(event, "series.count") or 1)


# events.k8s.io/v1 tells the same under other names: new -> stored.
_RENAMED = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}


def _to_events_v1(event: Json) -> Json:
    names = {stored: new for new, stored in _RENAMED.items()}
    renamed = {names.get(key, key): value for key, value in event.items()}
    renamed["apiVersion"] = "events.k8s.io/v1"
    renamed.setdefault("eventTime", None)
    return renamed


def _from_events_v1(event: Json) -> Json:
    renamed = {_RENAMED.get(key, key): value for key, value in event.items()}
    renamed["apiVersion"] = "v1"
    return renamed


def _selectable(path: str) -> Callable[[Json], str]:
    return lambda event: str(dig(event, path, ""))


RESOURCE = Resource(
    kind="Event",
    plural="events",
    type=Event,
    definition="io.k8s.api.core.v1.Event",
    shortNames=("ev",),
    spec_generation=False,
    columns=(
        Column("Last Seen", _last_seen, description="Time since it was last observed."),
        Column("Type", lambda event, now: event.get("type", ""), description="Normal or Warning."),
        Column("Reason", lambda event, now: event.get("reason", ""), description="One word."),
        Column("Object", _object, description="What it is about."),
        Column("Subobject", lambda event, now: dig(event, "involvedObject.fieldPath", ""), priority=1),
        Column("Source", _source, priority=1, description="Who tells it."),
        Column("Message", lambda event, now: (event.get("message") or UNKNOWN).strip(), description="The sentence."),
        Column("First Seen", _first_seen, priority=1, description="Time since it was first observed."),
        Column("Count", _count, type="integer", priority=1, description="How often."),
        Column("Name", NAME.cell, priority=1, description="Name of the event itself."),
    ),
    selectable={
        "involvedObject.kind": _selectable("involvedObject.kind"),
        "involvedObject.namespace": _selectable("involvedObject.namespace"),
        "involvedObject.name": _selectable("involvedObject.name"),
        "involvedObject.uid": _selectable("involvedObject.uid"),
        "involvedObject.apiVersion": _selectable("involvedObject.apiVersion"),
        "involvedObject.resourceVersion": _selectable("involvedObject.resourceVersion"),
        "involvedObject.fieldPath": _selectable("involvedObject.fieldPath"),
        "regarding.kind": _selectable("involvedObject.kind"),
        "regarding.namespace": _selectable("involvedObject.namespace"),
        "regarding.name": _selectable("involvedObject.name"),
        "regarding.uid": _selectable("involvedObject.uid"),
        "reason": _selectable("reason"),
        "reportingComponent": _selectable("reportingComponent"),
        "source": _selectable("source.component"),
        "type": _selectable("type"),
    },
    aliases=(Alias("events.k8s.io", "v1", "io.k8s.api.events.v1.Event", to=_to_events_v1, back=_from_events_v1),),
)
