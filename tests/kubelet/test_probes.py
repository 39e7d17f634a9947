"""Probes against real sockets, and the counting of their results."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from minik8s.api.kinds.pod import (
    Container,
    ContainerPort,
    GRPCAction,
    HTTPGetAction,
    HTTPHeader,
    Probe,
    TCPSocketAction,
)
from minik8s.kubelet.handlers import HandlerFailed, Handlers
from minik8s.kubelet.probes import Count, count
from minik8s.runtime.fake import FakeRuntime

CONTAINER = Container(name="app", ports=(ContainerPort(name="web", containerPort=0),))


def test_thresholds():
    probe = Probe(successThreshold=2, failureThreshold=3)
    verdicts, tally = [], Count()
    for result in (True, True, False, False, True, False, False, False, True, True):
        tally = count(probe, tally, result)
        verdicts.append(tally.verdict)
    assert verdicts == [None, True, True, True, True, True, True, False, False, True]


@pytest.fixture
async def handlers() -> AsyncIterator[Handlers]:
    handlers = Handlers(FakeRuntime())
    yield handlers
    await handlers.close()


@asynccontextmanager
async def http(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def probe(handlers: Handlers, probe: Probe, timeout: float = 2) -> str:
    """ "" when it succeeds, else why not."""
    try:
        await handlers.run(probe, CONTAINER, "id", "127.0.0.1", timeout=timeout)
    except HandlerFailed as error:
        return str(error) or "failed"
    return ""


async def test_http(handlers: Handlers):
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["X-Probe"] == "1"
        if request.path == "/redirect":
            return web.Response(status=302, headers={"Location": "/ok"})
        if request.path == "/away":
            return web.Response(status=302, headers={"Location": "http://192.0.2.1/"})
        if request.path == "/loop":
            return web.Response(status=302, headers={"Location": "/loop"})
        if request.path == "/slow":
            await asyncio.sleep(5)
        return web.Response(status=200 if request.path == "/ok" else 503)

    async with http(answer) as port:

        def get(path: str) -> Probe:
            return Probe(httpGet=HTTPGetAction(path=path, port=port, httpHeaders=(HTTPHeader("X-Probe", "1"),)))

        assert await probe(handlers, get("/ok")) == ""
        assert await probe(handlers, get("/redirect")) == ""
        assert await probe(handlers, get("/away")) == ""
        assert await probe(handlers, get("/bad")) == "HTTP probe failed with statuscode: 503"
        assert "10 redirects" in await probe(handlers, get("/loop"))
        assert "timeout" in await probe(handlers, get("/slow"), 0.2)
    assert "Get " in await probe(handlers, get("/ok"))


async def test_tcp(handlers: Handlers):
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await probe(handlers, Probe(tcpSocket=TCPSocketAction(port=port))) == ""
    server.close()
    await server.wait_closed()
    assert "dial tcp" in await probe(handlers, Probe(tcpSocket=TCPSocketAction(port=port)))
    assert "couldn't find port" in await probe(handlers, Probe(tcpSocket=TCPSocketAction(port="nope")))


@pytest.mark.parametrize(("status", "words"), [(1, ""), (2, "NOT_SERVING"), (None, "does not implement")])
async def test_grpc(handlers: Handlers, status: int | None, words: str):
    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        writer.write(frame(4, 0, 0, b""))
        if status is None:
            writer.write(frame(1, 5, 1, b"\x88"))
        else:
            message = bytes((8, status))
            writer.write(frame(1, 4, 1, b"\x88") + frame(0, 0, 1, b"\0" + struct.pack(">I", 2) + message))
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    result = await probe(handlers, Probe(grpc=GRPCAction(port=port, service="s")))
    assert (words in result) if words else result == ""
    server.close()


async def test_grpc_of_a_real_server(handlers: Handlers):
    grpc = pytest.importorskip("grpc")

    async def check(request: bytes, context: object) -> bytes:
        services = {b"": b"\x08\x01", b"\x0a\x03bad": b"\x08\x02"}
        if request not in services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")  # type: ignore[attr-defined]
        return services[request]

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        assert await probe(handlers, Probe(grpc=GRPCAction(port=port))) == ""
        assert "NOT_SERVING" in await probe(handlers, Probe(grpc=GRPCAction(port=port, service="bad")))
        assert "does not implement" in await probe(handlers, Probe(grpc=GRPCAction(port=port, service="unknown")))
    finally:
        await server.stop(None)
