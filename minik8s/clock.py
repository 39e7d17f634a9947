"""Time comes from outside: decisions get `now` as a number, shells get a `Clock` that tests can turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

Clock = Callable[[], float]  # Unix time in seconds

system_clock: Clock = time.time


def rfc3339(seconds: float) -> str:
    """`2024-05-01T10:00:00Z`: metav1.Time, whole seconds."""
    return _whole_second(int(seconds))


@lru_cache(maxsize=16)
def _whole_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def rfc3339_micro(seconds: float) -> str:
    """`2024-05-01T10:00:00.000000Z`: metav1.MicroTime, as Lease uses it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def rfc3339_milli(seconds: float) -> str:
    """`2024-05-01T10:00:00.000Z`."""
    return rfc3339_micro(seconds)[:-4] + "Z"


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time; "" is 0. ValueError for anything else."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


class ManualClock:
    """A clock for tests: stands still until it is told."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
