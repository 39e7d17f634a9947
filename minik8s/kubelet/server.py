"""The kubelet's own HTTPS server: what the API server asks a node for: logs, exec, attach, port-forward, figures.

Only the API server may ask, known by its client certificate; everybody may ask for `/healthz`.
Protocols end here: the API server hands a client's bytes on without looking at them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
from aiohttp import web

from minik8s.api.errors import (
    BadRequest,
    Forbidden,
    StatusError,
    Unauthorized,
    from_status,
)
from minik8s.clock import Clock, system_clock
from minik8s.kubelet.engine import EnginePages
from minik8s.kubelet.lookup import PodLookup, Pods
from minik8s.kubelet.streaming import portforward, spdy_exec, websocket
from minik8s.kubelet.streaming.log_answer import answer_log
from minik8s.kubelet.streaming.logs import parse_log_options
from minik8s.kubelet.streaming.multiplex import spdy_connection
from minik8s.kubelet.streaming.session import Streaming, converse
from minik8s.kubelet.streaming.spdy_exec import SpdyChannels, Taken
from minik8s.kubelet.streaming.websocket import Frames, SocketLink, WebSocketChannels
from minik8s.log import get_logger
from minik8s.runtime.base import PortStream, Runtime, Streams
from minik8s.takeover import wants_upgrade

MASTERS = "system:masters"  # the API server's client certificate is of this group
_TRUE = ("1", "true")

log = get_logger("kubelet")
Page = Callable[[], Awaitable[tuple[str, bytes]]]  # content type and body
Asked = Callable[[Mapping[str, str]], Awaitable[tuple[str, bytes]]]  # the same, of a query
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KubeletServer:
    """`pages` are further paths, such as `/metrics` and `/stats/summary`, each with who makes them; `queried` such as
    depend on the query. `readers` are (user, path) of who besides the API server may ask for what."""

    def __init__(
        self,
        runtime: Runtime,
        lookup: PodLookup,
        pods: Pods,
        *,
        pages: Mapping[str, Page] | None = None,
        queried: Mapping[str, Asked] | None = None,
        readers: Collection[tuple[str, str]] = (),
        clock: Clock = system_clock,
    ) -> None:
        self._runtime = runtime
        self._lookup = lookup
        self._pods = pods
        self._pages = dict(pages or {})
        self._queried = dict(queried or {})
        self._readers = frozenset(readers)
        self._clock = clock
        self._engine = EnginePages(runtime, pods, clock=clock)
        self._answering: set[asyncio.Task[object]] = set()

    # -- listening

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._noted, _errors, self._only_the_api_server])
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/pods", self._list)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for method in ("GET", "POST"):
            app.router.add_route(method, "/exec/{namespace}/{pod}/{container}", self._exec)
            app.router.add_route(method, "/attach/{namespace}/{pod}/{container}", self._attach)
            app.router.add_route(method, "/portForward/{namespace}/{pod}", self._port_forward)
        self._engine.add_to(app)
        for path, page in self._pages.items():
            app.router.add_get(path, _shown(page))
        for path, asked in self._queried.items():
            app.router.add_get(path, _told(asked))
        return app

    @asynccontextmanager
    async def listening(self, host: str, port: int, context: ssl.SSLContext | None) -> AsyncIterator[tuple[str, int]]:
        """Listen as long as the body runs; yields address and port. Without TLS nobody is let in but to /healthz."""
        runner = web.AppRunner(self.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, ssl_context=context).start()
            yield runner.addresses[0][:2]
        finally:
            for task in self._answering:  # shells and followed logs would not end by themselves
                task.cancel()
            await runner.cleanup()

    @web.middleware
    async def _only_the_api_server(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/healthz":
            certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
            if not certificate:
                raise Unauthorized("Unauthorized: the kubelet knows its clients by certificate")
            names = [pair for name in certificate.get("subject", ()) for pair in name]
            who = next((value for key, value in names if key == "commonName"), "")
            if ("organizationName", MASTERS) not in names and (who, request.path) not in self._readers:
                raise Forbidden(f'Forbidden (user="{who}", path="{request.path}")')
        return await handler(request)

    @web.middleware
    async def _noted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            return await handler(request)
        finally:
            self._answering.discard(task)

    # -- answers

    async def _list(self, request: web.Request) -> web.StreamResponse:
        body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(self._pods.list())}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        namespace, pod, container = _place(request)
        options = parse_log_options(request.query, pod, self._clock())
        found = await self._lookup.logged(namespace, pod, container, previous=options.previous)
        return await answer_log(request, self._runtime, found.id, options)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        command = request.query.getall("command", [])
        if not command:
            raise BadRequest("you must specify at least 1 command for the container")
        asked = _asked(request)
        found = await self._lookup.running(*_place(request))
        opened = self._runtime.exec(
            found.id, command, stdin=asked.stdin, tty=asked.tty, stdout=asked.stdout, stderr=asked.stderr
        )
        return await _converse(request, asked, opened)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        """With a terminal if the container has one, whatever the client asks for."""
        asked = _asked(request)
        found = await self._lookup.running(*_place(request))
        opened = self._runtime.attach(
            found.id, stdin=asked.stdin and found.stdin, tty=found.tty, stdout=asked.stdout, stderr=asked.stderr
        )
        return await _converse(request, asked, opened)

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        pod = self._lookup.pod(namespace, name)
        said = f"pod {name}, uid {pod.metadata.uid}"

        @asynccontextmanager
        async def dial(port: int) -> AsyncIterator[PortStream]:
            async with self._runtime.dial(await self._lookup.sandbox(namespace, name), port) as inside:
                yield inside

        if _upgrade(request) == "spdy":
            async with spdy_exec.upgraded(request, portforward.PROTOCOL) as connection:
                await portforward.forward_streams(connection, dial, said)
            return Taken()
        ports: list[int] = []
        if not set(portforward.TUNNELS) & websocket.offered(request):
            ports = portforward.parse_ports(request.query.getall("port", []) + request.query.getall("ports", []))
        socket = await websocket.accepted(request, portforward.TUNNELS + portforward.CHANNELS)
        if socket.ws_protocol in portforward.TUNNELS:
            async with spdy_connection(SocketLink(socket)) as connection:
                await portforward.forward_streams(connection, dial, said)
        else:
            await portforward.forward_channels(Frames(socket), ports, dial, said)
        return socket


def _place(request: web.Request) -> tuple[str, str, str]:
    match = request.match_info
    return match["namespace"], match["pod"], match["container"]


def _asked(request: web.Request) -> Streaming:
    on = {name: request.query.get(name) in _TRUE for name in ("input", "output", "error", "tty")}
    if not (on["input"] or on["output"] or on["error"]):
        raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
    return Streaming(on["input"], on["output"], on["error"] and not on["tty"], on["tty"])


def _upgrade(request: web.Request) -> str:
    """`spdy` or `websocket`."""
    wanted = request.headers.get("upgrade", "").lower()
    if wants_upgrade(request.headers) and wanted in ("spdy/3.1", "websocket"):
        return wanted.partition("/")[0]
    raise BadRequest("Upgrade request required: SPDY/3.1 or websocket")


async def _converse(
    request: web.Request, asked: Streaming, opened: AbstractAsyncContextManager[Streams]
) -> web.StreamResponse:
    """A session in the protocol that the client speaks."""
    if _upgrade(request) == "websocket":
        socket = await websocket.accepted(request, websocket.PROTOCOLS)
        channels = WebSocketChannels(socket)
        await channels.greet()
        await converse(channels, opened)
        return socket
    async with spdy_exec.upgraded(request, spdy_exec.PROTOCOL) as connection:
        streams = await SpdyChannels.accept(connection, asked)
        if streams is not None:
            await converse(streams, opened)
    return Taken()


async def _healthz(request: web.Request) -> web.StreamResponse:
    return web.Response(text="ok")


def _shown(page: Page) -> Handler:
    async def show(request: web.Request) -> web.StreamResponse:
        content_type, body = await page()
        return web.Response(body=body, headers={"content-type": content_type})

    return show


def _told(asked: Asked) -> Handler:
    async def tell(request: web.Request) -> web.StreamResponse:
        content_type, body = await asked(request.query)
        return web.Response(body=body, headers={"content-type": content_type})

    return tell


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as a Status, after which the connection is closed: nobody should go on after a refused upgrade."""
    try:
        return await handler(request)
    except StatusError as error:
        status = error
    except web.HTTPException as error:
        status = from_status({"message": error.text}, code=error.status)
    response = web.json_response(status.to_status(), status=status.code)
    response.force_close()
    return response
