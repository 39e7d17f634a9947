"""All connections of one listener, and what they share."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from minik8s.apiserver.http1 import Connection
from minik8s.apiserver.http_connections import Connections
from minik8s.apiserver.http_request import Request
from minik8s.apiserver.request import ApiResponse
from minik8s.apiserver.tls_listener import BACKLOG, TlsListener

SHUTDOWN = 1.0  # seconds that requests have to be finished when the server stops

Serve = Callable[[Request], Awaitable[ApiResponse | None]]  # None: the connection has been taken over


class Server(Connections[Connection]):
    """Call it to make a connection."""

    most = 4096

    def __init__(self, serve: Serve) -> None:
        super().__init__()
        self.serve = serve

    def __call__(self) -> Connection:
        return Connection(self)

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


@asynccontextmanager
async def listening(
    server: Server, host: str | None, port: int, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[str, int]]:
    """Listen as long as the body runs, by TLS if there is a `context`; yields (address, port) of the first socket."""
    listener: TlsListener | asyncio.Server
    if context is None:
        listener = await asyncio.get_running_loop().create_server(server, host, port, backlog=BACKLOG)
    else:
        listener = TlsListener(context, server)
        await listener.listen(host, port)
    try:
        yield listener.sockets[0].getsockname()[:2]
    finally:
        listener.close()
        await server.close()
