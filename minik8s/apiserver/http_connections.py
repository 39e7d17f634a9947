"""What the connections of one listener share, whoever answers on them: a buffer, and room for so many."""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar

READ = 64 * 1024  # bytes read at once


class Connection(Protocol):
    transport: asyncio.Transport

    @property
    def busy(self) -> bool:
        """Something is being answered, or on its way here."""
        ...


C = TypeVar("C", bound=Connection)


class Connections(Generic[C]):
    """At most `most` at once. They share a buffer, as each is read, and what was read parsed, in one go."""

    most: int

    def __init__(self) -> None:
        self.connections: dict[C, None] = {}  # from the oldest on
        self.buffer = memoryview(bytearray(READ))  # asyncio's TLS writes to slices of it

    def admit(self, connection: C) -> bool:
        """Whether there is room for one more; the oldest that does nothing makes some."""
        if len(self.connections) >= self.most:
            idle = next((one for one in self.connections if not one.busy), None)
            if idle is None:
                return False
            self.connections.pop(idle)
            idle.transport.abort()
        self.connections[connection] = None
        return True
