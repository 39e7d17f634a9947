"""A body on its way from one connection to another, no faster than the slower of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

HIGH = 128 * 1024  # bytes that may wait here before whoever sends them has to wait


class Body:
    """Fed by a parser, read by one task. `full(True)` tells the feeder to pause, `full(False)` to go on."""

    __slots__ = ("_chunks", "_error", "_full", "_stopped", "_waiter", "ended", "received", "waiting")

    def __init__(self, full: Callable[[bool], None], whole: bytes | None = None) -> None:
        """`whole`: all of it, where that is here from the beginning."""
        self._full = full
        self._chunks: list[bytes] = [whole] if whole else []
        self._stopped = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.waiting = self.received = len(whole) if whole else 0  # bytes; and in all
        self.ended = whole is not None

    # -- for the feeder

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self.waiting += len(data)
        self.received += len(data)
        if self.waiting > HIGH and not self._stopped:
            self._stopped = True
            self._full(True)
        if self._waiter is not None:
            self._wake()

    def end(self) -> None:
        self.ended = True
        if self._waiter is not None:
            self._wake()

    def fail(self, error: Exception) -> None:
        """It will not come to its end. What waits is dropped."""
        if not self.ended and self._error is None:
            self._error = error
            if self._waiter is not None:
                self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- for the reader

    def take(self) -> bytes:
        """All that waits, which may be nothing."""
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.waiting = 0
        if self._stopped:
            self._stopped = False
            self._full(False)
        return data

    async def read(self) -> bytes:
        """What has come, at least a byte; b"" at the end. Raises what it failed with."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None:
            raise self._error
        return self.take()

    async def all(self, limit: int) -> bytes:
        """The whole of it. ValueError if it has more than `limit` bytes."""
        pieces, size = [], 0
        while piece := await self.read():
            size += len(piece)
            if size > limit:
                raise ValueError(f"more than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)


NOTHING = Body(lambda stopped: None, b"")  # for what is a head alone
