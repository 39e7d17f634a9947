"""What probes and lifecycle hooks do to a container: run a command, ask by HTTP, open a port, call gRPC's health.

Each attempt either returns (it worked) or raises `HandlerFailed` with the words for the event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from minik8s import KUBERNETES_VERSION
from minik8s.api.kinds.pod import (
    Container,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    HTTPHeader,
    LifecycleHandler,
    Probe,
    TCPSocketAction,
)
from minik8s.api.meta import IntOrString
from minik8s.kubelet import grpc_health
from minik8s.runtime.base import Runtime, RuntimeFailure

if TYPE_CHECKING:
    import aiohttp

BODY_LIMIT = 10 * 1024  # bytes of an HTTP answer that are read
WORDS_LIMIT = 500  # characters of output that an event repeats
USER_AGENT = f"kube-probe/{KUBERNETES_VERSION.removeprefix('v').rpartition('.')[0]}"


class HandlerFailed(Exception):
    """It did not work; the text is what an event says."""


class Handlers:
    """Runs handlers against containers; the HTTP client is made when it is first needed."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def run(
        self,
        handler: Probe | LifecycleHandler,
        container: Container,
        container_id: str,
        ip: str,
        *,
        timeout: float,
    ) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._attempt(handler, container, container_id, ip, timeout)
        except TimeoutError:
            raise HandlerFailed(f"timeout: no answer within {timeout:g}s") from None

    async def _attempt(
        self, handler: Probe | LifecycleHandler, container: Container, container_id: str, ip: str, timeout: float
    ) -> None:
        if handler.exec is not None:
            await self._exec(handler.exec, container_id, timeout)
        elif handler.httpGet is not None:
            await self._http(handler.httpGet, container, ip)
        elif handler.tcpSocket is not None:
            await self._tcp(handler.tcpSocket, container, ip)
        elif isinstance(handler, Probe) and handler.grpc is not None:
            await self._grpc(handler.grpc, ip)
        elif isinstance(handler, LifecycleHandler) and handler.sleep is not None:
            await asyncio.sleep(handler.sleep.seconds)

    async def _exec(self, action: ExecAction, container_id: str, timeout: float) -> None:
        try:
            # The engine's own limit is a little longer: ours gives the message.
            result = await self._runtime.exec_sync(container_id, action.command, timeout + 1)
        except RuntimeFailure as error:
            raise HandlerFailed(str(error)) from None
        if result.exit_code != 0:
            output = result.output.decode(errors="replace")[:WORDS_LIMIT]
            raise HandlerFailed(output or f"command exited with code {result.exit_code}")

    async def _http(self, action: HTTPGetAction, container: Container, ip: str) -> None:
        import aiohttp

        host, port = action.host or ip, port_number(action.port, container)
        path = action.path if action.path.startswith("/") else f"/{action.path}"
        authority = f"[{host}]" if ":" in host else host
        url = f"{action.scheme.lower()}://{authority}:{port}{path}"
        try:
            status, body = await self._get(url, host, _headers(action.httpHeaders))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise HandlerFailed(f'Get "{url}": {error}') from None
        if not 200 <= status < 400:
            raise HandlerFailed(f"HTTP probe failed with statuscode: {status}{body}")

    async def _get(self, url: str, host: str, headers: dict[str, str]) -> tuple[int, str]:
        """Follow redirects on the same host only; one that leads elsewhere counts as an answer, as in Kubernetes."""
        import aiohttp
        from yarl import URL

        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=False)
            self._session = aiohttp.ClientSession(connector=connector)
        where = URL(url, encoded=True)
        for _ in range(10):
            async with self._session.get(where, headers=headers, allow_redirects=False) as answer:
                body = await answer.content.read(BODY_LIMIT)
                location = answer.headers.get("Location", "")
                if not 300 <= answer.status < 400 or not location:
                    return answer.status, ""
                del body
                target = where.join(URL(location))
                if urlsplit(str(target)).hostname != host:
                    return answer.status, ""
                where = target
        raise ValueError("stopped after 10 redirects")

    async def _tcp(self, action: TCPSocketAction, container: Container, ip: str) -> None:
        try:
            _, writer = await asyncio.open_connection(action.host or ip, port_number(action.port, container))
        except OSError as error:
            raise HandlerFailed(f"dial tcp {action.host or ip}:{action.port}: {error.strerror or error}") from None
        writer.close()

    async def _grpc(self, action: GRPCAction, ip: str) -> None:
        try:
            await grpc_health.check(ip, action.port, action.service)
        except (grpc_health.HealthCheckFailed, OSError) as error:
            raise HandlerFailed(str(error)) from None


def port_number(port: IntOrString, container: Container) -> int:
    """A port by number or by the name that the container's spec gives it; HandlerFailed for an unknown name."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    for known in container.ports:
        if known.name == port:
            return known.containerPort
    raise HandlerFailed(f"couldn't find port: {port}")


def _headers(headers: Sequence[HTTPHeader]) -> dict[str, str]:
    return {"User-Agent": USER_AGENT, "Accept": "*/*"} | {header.name: header.value for header in headers}
