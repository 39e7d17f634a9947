"""A deadline that is moved with every request and passes almost never: its timer only looks, from time to time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Calls `passed` when the time is over that was granted last. Moving it to a later time costs no timer."""

    __slots__ = ("_at", "_looks_at", "_loop", "_passed", "_timer")

    def __init__(self, passed: Callable[[], None]) -> None:
        self._passed = passed
        self._loop = asyncio.get_running_loop()
        self._at = self._looks_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> None:
        self._at = self._loop.time() + seconds
        if self._at < self._looks_at:
            self.cancel()
            self._arm()

    def never(self) -> None:
        self._at = math.inf

    def cancel(self) -> None:
        """For good, unless it is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._looks_at = None, math.inf

    def _arm(self) -> None:
        self._looks_at = self._at
        self._timer = self._loop.call_at(self._at, self._look)

    def _look(self) -> None:
        self._timer, self._looks_at = None, math.inf
        if self._at <= self._loop.time():
            self._at = math.inf
            self._passed()
        elif self._at < math.inf:
            self._arm()
