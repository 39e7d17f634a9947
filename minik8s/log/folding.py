"""Repeats of an event, told once and counted. Pure: the clock is an argument.

What has just been written is not written again for a window of time; when that ends, one line tells how often it came
again, and a new window begins. So something that goes on for ever costs a line a window.
"""

from __future__ import annotations

from typing import Any

WINDOW = 60.0  # seconds: what repeats for ever must leave a quiet log quiet
MOST = 500  # events remembered; beyond that the oldest is told and forgotten
# How long something took or will take is not what happened.
MEASURES = frozenset(("retry_seconds", "seconds"))
Event = dict[str, Any]


class Folding:
    """`take` events, and tell what is `due`; both in order of time."""

    def __init__(self, window: float = WINDOW, most: int = MOST) -> None:
        self._window, self._most = window, most
        self._seen: dict[str, tuple[float, Event, int]] = {}  # until when, the event, how often again; oldest first

    @property
    def next_due(self) -> float | None:
        """When a line will have to be written if nothing else happens."""
        return min((until for until, _, count in self._seen.values() if count), default=None)

    def take(self, event: Event, now: float) -> bool:
        """Is this event to be written? Otherwise it is counted."""
        key = _key(event)
        if key not in self._seen:
            self._seen[key] = now + self._window, event, 0
            return True
        until, first, count = self._seen[key]
        self._seen[key] = until, first, count + 1
        return False

    def due(self, now: float) -> list[Event]:
        """Lines for windows that have ended: events with `repeated`, the number of times that they came again."""
        told = []
        for key, (until, event, count) in list(self._seen.items()):
            crowded = len(self._seen) > self._most
            if until > now and not crowded:
                continue
            del self._seen[key]
            if count:
                told.append({**event, "repeated": count})
                if not crowded:
                    self._seen[key] = now + self._window, event, 0
        return told

    def rest(self) -> list[Event]:
        """What is still to be told at the end."""
        return [{**event, "repeated": count} for _, event, count in self._seen.values() if count]


def _key(event: Event) -> str:
    return repr(sorted((name, _said(value)) for name, value in event.items() if name not in MEASURES))


def _said(value: Any) -> str:
    """An exception by what it says: two of them are never equal."""
    return str(value) if not isinstance(value, BaseException) else f"{type(value).__name__}: {value}"
