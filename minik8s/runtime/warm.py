"""A pool of things that are slow to make and alike: a few are kept ready, and made anew in the background."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from minik8s.aio import backoff
from minik8s.runtime.base import RuntimeFailure


class WarmPool:
    def __init__(self, size: int, make: Callable[[], Awaitable[str]]) -> None:
        self._size = size
        self._make = make
        self._ready: deque[str] = deque()
        self._taken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready)

    def adopt(self, ids: Iterable[str]) -> None:
        """What an earlier life of the agent left ready."""
        self._ready.extend(ids)

    def take(self) -> str | None:
        """One that was ready when last seen (it may have died since), or None."""
        self._taken.set()
        return self._ready.popleft() if self._ready else None

    async def run(self) -> None:
        """Keep `size` ready, for ever. A failing engine is asked again after a growing pause."""
        delays = backoff()
        while True:
            self._taken.clear()
            try:
                while len(self._ready) < self._size:
                    self._ready.append(await self._make())
            except RuntimeFailure:
                await asyncio.sleep(next(delays))
                continue
            delays = backoff()
            await self._taken.wait()
