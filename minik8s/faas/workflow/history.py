"""What happens in a run, as events with the names and details of Step Functions; and an event as bytes. Pure."""

from __future__ import annotations

from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """`previousEventId` is the event in the same branch that led to this one, 0 for the first.

    `timestamp` is in Unix seconds.
    `details` hold what Step Functions has in `stateEnteredEventDetails` and its like; documents are JSON, not texts.
    """

    id: int
    type: str
    timestamp: float
    previousEventId: int = 0
    details: dict[str, Any] = {}


ENDS = frozenset(("ExecutionSucceeded", "ExecutionFailed", "ExecutionTimedOut", "ExecutionAborted"))

encoder = msgspec.json.Encoder()
decoder = msgspec.json.Decoder(Event)


def encode(events: list[Event]) -> bytes:
    """One JSON document a line."""
    return encoder.encode_lines(events)


def decode(lines: bytes) -> list[Event]:
    return decoder.decode_lines(lines)
