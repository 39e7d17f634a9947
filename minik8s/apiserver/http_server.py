"""All connections of one listener, and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from minik8s.apiserver.http1 import Connection
from minik8s.apiserver.http_request import Request
from minik8s.apiserver.request import ApiResponse

MAX_CONNECTIONS = 4096
READ = 64 * 1024  # bytes read at once
SHUTDOWN = 1.0  # seconds that requests have to be finished when the server stops

Serve = Callable[[Request], Awaitable[ApiResponse | None]]  # None: the connection has been taken over


class Server:
    """Call it to make a connection. They share a buffer, as each is read, and what was read parsed, in one go."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.connections: dict[Connection, None] = {}  # from the oldest on
        self.buffer = memoryview(bytearray(READ))  # asyncio's TLS writes to slices of it

    def __call__(self) -> Connection:
        return Connection(self)

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more; the oldest that does nothing makes some."""
        if len(self.connections) >= MAX_CONNECTIONS:
            idle = next((one for one in self.connections if not one.busy), None)
            if idle is None:
                return False
            self.connections.pop(idle)
            idle.transport.abort()
        self.connections[connection] = None
        return True

    async def close(self) -> None:
        """End all connections: idle ones at once, others after their answer, streams and slow ones in the midst."""
        tasks = [task for one in list(self.connections) if (task := one.retire()) is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=SHUTDOWN)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for one in list(self.connections):
            one.transport.abort()
