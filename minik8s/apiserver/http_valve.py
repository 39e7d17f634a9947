"""Whether a transport takes more: who writes much waits while it does not."""

from __future__ import annotations

import asyncio


class Valve:
    """`shut` and `open` come from the transport's `pause_writing` and `resume_writing`; look at `is_shut` before
    waiting, which is rare."""

    __slots__ = ("_opened", "is_shut")

    def __init__(self) -> None:
        self.is_shut = False
        self._opened: asyncio.Future[None] | None = None

    def shut(self) -> None:
        self.is_shut = True

    def open(self) -> None:
        self.is_shut = False
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    async def wait(self) -> None:
        """Return once most of what was written is on its way."""
        while self.is_shut:
            self._opened = asyncio.get_running_loop().create_future()
            await self._opened
