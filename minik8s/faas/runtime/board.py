"""Shared memory in which workers tell the supervisor how far each connection is, without a message per call.

It is what makes a worker's death cost its own calls only: the supervisor holds a copy of each connection, and sees here
which of them nobody has begun to read from.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import Final, NamedTuple

SLOTS: Final = 4096  # connections at a time
_RECORD: Final = struct.Struct("<QdQ")

IDLE: Final = 0  # nothing was taken off the connection that is not answered in full
READING: Final = 1  # some bytes of a request were taken
CALLING: Final = 2  # the code runs
ANSWERING: Final = 3  # bytes of the answer may have been sent, and the code still runs
SENDING: Final = 4  # bytes of the answer may have been sent, and the code has ended
OFFERED: Final = 5  # a request has come, and the worker was given the connection
UNTOUCHED: Final = (IDLE, OFFERED)


class Record(NamedTuple):
    state: int
    since: float  # time.monotonic(), the same clock in all processes, of the last call's begin
    calls: int  # with this worker


class Board:
    """Made before the first fork. Slots are given out by the supervisor; one worker at a time writes a slot."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SLOTS * _RECORD.size)
        self._free = list(range(SLOTS - 1, -1, -1))

    def allot(self) -> int | None:
        """A cleared slot, if one is left."""
        if not self._free:
            return None
        slot = self._free.pop()
        _RECORD.pack_into(self._memory, slot * _RECORD.size, IDLE, 0.0, 0)
        return slot

    def release(self, slot: int) -> None:
        self._free.append(slot)

    def read(self, slot: int) -> Record:
        return Record(*_RECORD.unpack_from(self._memory, slot * _RECORD.size))

    def offer(self, slot: int) -> None:
        """Count anew, for another worker."""
        _RECORD.pack_into(self._memory, slot * _RECORD.size, OFFERED, 0.0, 0)

    def mark(self, slot: int, state: int) -> None:
        self._memory[slot * _RECORD.size] = state

    def call(self, slot: int) -> None:
        """The code begins to run."""
        at = slot * _RECORD.size
        calls = _RECORD.unpack_from(self._memory, at)[2]
        _RECORD.pack_into(self._memory, at, CALLING, time.monotonic(), calls + 1)
