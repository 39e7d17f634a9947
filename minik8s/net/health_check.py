"""`healthCheckNodePort`: tells balancers outside, by HTTP, whether this node has an endpoint of a Service.

200 while it has a ready one, 503 otherwise; the body is kube-proxy's. Only Services of type LoadBalancer with
`externalTrafficPolicy: Local` ask for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from minik8s.log import get_logger

LONGEST_REQUEST = 5.0  # seconds

log = get_logger("proxy")


class HealthCheck(NamedTuple):
    """What one port says."""

    namespace: str
    name: str
    local_endpoints: int

    def answer(self) -> bytes:
        body = json.dumps(
            {
                "service": {"namespace": self.namespace, "name": self.name},
                "localEndpoints": self.local_endpoints,
                "serviceProxyHealthy": True,
            }
        )
        status = "200 OK" if self.local_endpoints else "503 Service Unavailable"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"{head}X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}".encode()


class HealthCheckServers:
    """One listener for each port that is wanted; `serve` makes it so, `close` ends all."""

    def __init__(self, host: str = "0.0.0.0") -> None:
        self._host = host
        self._checks: Mapping[int, HealthCheck] = {}
        self._servers: dict[int, asyncio.Server] = {}

    async def serve(self, checks: Mapping[int, HealthCheck]) -> None:
        """`checks` by port. A port that cannot be had is told in the log and tried again at the next call."""
        self._checks = dict(checks)
        for port in self._servers.keys() - checks.keys():
            self._servers.pop(port).close()
        for port in checks.keys() - self._servers.keys():
            try:
                self._servers[port] = await asyncio.start_server(self._answers(port), self._host, port)
            except OSError as error:
                log.warning(
                    "a health check cannot listen",
                    port=port,
                    error=str(error),
                    remedy="free that port of this host; it is tried again when services change",
                )

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def _answers(self, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(LONGEST_REQUEST):
                    await reader.readuntil(b"\r\n\r\n")
                    check = self._checks.get(port)
                    if check is not None:
                        writer.write(check.answer())
                        await writer.drain()
            except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                pass  # whoever does not ask in time, or in too many words, gets no answer
            finally:
                writer.close()

        return answer
