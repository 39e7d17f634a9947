"""The HTTP shell: TLS, credentials, bodies and streams of bytes around the handler. One handler function, no routes."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qsl

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from minik8s.api.errors import BadRequest, RequestEntityTooLarge, StatusError
from minik8s.apiserver import routes
from minik8s.apiserver.auth import User
from minik8s.apiserver.body import MAX_BODY
from minik8s.apiserver.connection import Server
from minik8s.apiserver.handler import Handler
from minik8s.apiserver.request import ApiRequest, ApiResponse, error_response
from minik8s.apiserver.routes import RequestInfo
from minik8s.apiserver.served import SUBRESOURCES

GZIP_FROM = 128 * 1024  # bytes, as Kubernetes: below, compressing costs more than it saves
KEEPALIVE = 180.0  # seconds a connection may be idle
WRITE_TIMEOUT = 60.0  # seconds a client may take to accept what is sent
UNTIMED = 32 * 1024  # bytes: what fits below the mark at which a transport makes its writers wait
SLICE = 256 * 1024  # bytes of a large body that are written at once
READ_TIMEOUT = 60.0  # seconds a client may take to send a body
HANDSHAKE_TIMEOUT = 10.0  # seconds for TLS
FIRST_REQUEST_TIMEOUT = 30.0  # seconds until a new connection must have sent the head of a request
MAX_CONNECTIONS = 4096
BACKLOG = 1024
# Cheaper than to read each path twice: what it does not find is no stream.
_MAYBE_STREAMED = re.compile("|".join(f"/{name}" for name, row in SUBRESOURCES.items() if row.streamed))


class StreamProxy(Protocol):
    """Serves log, exec, attach, portforward and proxy: bytes between a client and a node."""

    async def serve(self, info: RequestInfo, user: User, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        """`user` has been found to be allowed, `body` is read. Raises StatusError while no response has begun."""
        ...


class ApiServer:
    """`serve` listens until it is cancelled."""

    def __init__(self, handler: Handler, *, streams: StreamProxy | None = None) -> None:
        self.handler = handler
        self.streams = streams
        self._silent: set[web.RequestHandler] = set()  # connections without a request so far

    @asynccontextmanager
    async def listening(
        self, host: str | None, port: int, context: ssl.SSLContext | None = None
    ) -> AsyncIterator[tuple[str, int]]:
        """Listen as long as the body runs; yields (address, port) of the first socket."""
        loop = asyncio.get_running_loop()
        server = Server(
            self._serve,
            request_factory=self._request,
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE,
            access_log=None,
            max_field_size=16 * 1024,
            max_line_size=16 * 1024,
            lingering_time=1.0,
        )
        accept = partial(self._accept, server)
        handshake = HANDSHAKE_TIMEOUT if context is not None else None
        listener = await loop.create_server(
            accept, host, port, ssl=context, backlog=BACKLOG, ssl_handshake_timeout=handshake
        )
        try:
            yield listener.sockets[0].getsockname()[:2]
        finally:
            listener.close()
            server.pre_shutdown()
            await server.shutdown(timeout=1.0)

    async def serve(self, host: str | None, port: int, context: ssl.SSLContext | None = None) -> None:
        async with self.listening(host, port, context):
            await asyncio.Event().wait()

    def _accept(self, server: Server) -> web.RequestHandler:
        """A new connection. It must say something soon; where there are too many, the oldest ends after its request."""
        connections = server.connections
        if len(connections) >= MAX_CONNECTIONS:
            connections[0].close()
        protocol = server()
        self._silent.add(protocol)
        asyncio.get_running_loop().call_later(FIRST_REQUEST_TIMEOUT, self._expire, protocol)
        return protocol

    def _expire(self, protocol: web.RequestHandler) -> None:
        if protocol in self._silent:
            self._silent.discard(protocol)
            protocol.force_close()

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        self._silent.discard(protocol)
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)

    async def _serve(self, http: web.BaseRequest) -> web.StreamResponse:
        try:
            request = await _api_request(http)
            if self.streams is not None and _MAYBE_STREAMED.search(request.path):
                info = routes.parse(request.method, request.path, request.query)
                if _is_streamed(info):
                    user = await self.handler.admit(request, info)
                    self.handler.served(info)
                    return await self.streams.serve(info, user, http, request.body)
        except StatusError as error:
            return _plain(error_response(error), http)
        response = await self.handler.handle(request)
        if response.stream is not None:
            return await _send_stream(http, response)
        if _is_simple(response, http):
            return Whole(response)
        return _plain(response, http) if len(response.body) < UNTIMED else await _send_large(response, http)


class Whole(web.StreamResponse):
    """A small answer, sent in one write. What aiohttp does for the general case costs more than all else of a GET."""

    def __init__(self, response: ApiResponse) -> None:
        # Nothing of the base class is used but its interface, so that it need not be prepared.
        self._response = response

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        response = self._response
        head = _head(response.code, response.content_type)
        date = _date(int(time.time()))
        transport.write(b"%s%s%d\r\n\r\n%s" % (head, date, len(response.body), response.body))

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing: all has been sent."""


def _is_simple(response: ApiResponse, http: web.BaseRequest) -> bool:
    """Whether `Whole` can answer: an ordinary client, a small body, no further headers."""
    return (
        not response.headers
        and len(response.body) < UNTIMED
        and http.method != "HEAD"
        and http.version == HttpVersion11
        and http.keep_alive
    )


@lru_cache(maxsize=64)
def _head(code: int, content_type: str) -> bytes:
    return f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\nContent-Type: {content_type}\r\n".encode()


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return f"Date: {formatdate(second, usegmt=True)}\r\nContent-Length: ".encode()


def _is_streamed(info: RequestInfo) -> bool:
    return bool(info.subresource) and info.subresource in SUBRESOURCES and SUBRESOURCES[info.subresource].streamed


async def _api_request(http: web.BaseRequest) -> ApiRequest:
    path, _, text = http.raw_path.partition("?")
    headers: Mapping[str, str] = http.headers
    if "impersonate-user" in headers:
        groups = http.headers.getall("impersonate-group", [])
        headers = {key.lower(): value for key, value in headers.items()} | {"impersonate-group": "\n".join(groups)}
    body = b""
    if http.can_read_body and not _upgrades(http):
        body = await _read_body(http)
    authorization = headers.get("authorization", "")
    token = authorization[7:].strip() if authorization[:7].lower() == "bearer " else ""
    common_name, organizations = ("", ()) if token else _certificate(http)  # a token counts more
    return ApiRequest(
        http.method,
        path,
        dict(parse_qsl(text, keep_blank_values=True)) if text else {},
        headers,
        body,
        None,
        common_name,
        organizations,
        token,
    )


def _upgrades(http: web.BaseRequest) -> bool:
    return "upgrade" in http.headers.get("connection", "").lower()


async def _read_body(http: web.BaseRequest) -> bytes:
    if (http.content_length or 0) > MAX_BODY:
        raise RequestEntityTooLarge(f"the body is larger than {MAX_BODY} bytes")
    try:
        if http.content.is_eof():  # it has come with the head, as small ones do: nothing to wait for
            return _limited(http.content.read_nowait())
        async with asyncio.timeout(READ_TIMEOUT):
            return await http.read()
    except web.HTTPRequestEntityTooLarge:
        raise RequestEntityTooLarge(f"the body is larger than {MAX_BODY} bytes") from None
    except TimeoutError:
        raise BadRequest(f"the body did not come within {READ_TIMEOUT:g} seconds") from None
    except (HttpProcessingError, web.RequestPayloadError, zlib.error) as error:
        raise BadRequest(f"the body cannot be read: {error}") from None


def _limited(body: bytes) -> bytes:
    if len(body) > MAX_BODY:  # it may have been compressed
        raise RequestEntityTooLarge(f"the body is larger than {MAX_BODY} bytes")
    return body


def _certificate(http: web.BaseRequest) -> tuple[str, tuple[str, ...]]:
    """Common name and organizations of the client's certificate, which TLS has verified."""
    transport = http.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    if not certificate:
        return "", ()
    pairs = [pair for name in certificate.get("subject", ()) for pair in name]
    names = [value for key, value in pairs if key == "commonName"]
    return (names[0] if names else ""), tuple(value for key, value in pairs if key == "organizationName")


def _plain(response: ApiResponse, http: web.BaseRequest) -> web.Response:
    headers, body = _compressed(response, http)
    return web.Response(status=response.code, body=body, headers=headers)


def _compressed(response: ApiResponse, http: web.BaseRequest) -> tuple[dict[str, str], bytes]:
    """Headers and body; big ones are compressed for clients that understand that."""
    headers = {"content-type": response.content_type, **response.headers}
    body = response.body
    if (
        len(body) >= GZIP_FROM
        and "content-encoding" not in headers
        and "gzip" in http.headers.get("accept-encoding", "")
    ):
        packer = zlib.compressobj(1, wbits=31)
        body = packer.compress(body) + packer.flush()
        headers |= {"content-encoding": "gzip", "vary": "Accept-Encoding"}
    return headers, body


async def _send_large(response: ApiResponse, http: web.BaseRequest) -> web.StreamResponse:
    """Slice by slice, so that the client reads one while the next is encrypted; one that does not fetch is cut off."""
    headers, body = _compressed(response, http)
    out = web.StreamResponse(status=response.code, headers={**headers, "content-length": str(len(body))})
    slices = memoryview(body) if http.method != "HEAD" else memoryview(b"")
    try:
        async with asyncio.timeout(WRITE_TIMEOUT):
            await out.prepare(http)
            for start in range(0, len(slices), SLICE):
                await out.write(slices[start : start + SLICE])
            await out.write_eof()
            await http.writer.drain()
    except TimeoutError:
        if http.transport is not None:
            http.transport.abort()
    return out


async def _send_stream(http: web.BaseRequest, response: ApiResponse) -> web.StreamResponse:
    """Send frames as they come. A client that does not read for too long is cut off."""
    assert response.stream is not None
    out = web.StreamResponse(status=response.code, headers={"content-type": response.content_type, **response.headers})
    out.enable_chunked_encoding()
    transport = http.transport
    direct = transport if http.method != "HEAD" else None
    async with aclosing(response.stream) as batches:
        try:
            await out.prepare(http)
            async for batch in batches:
                data = b"".join(batch)
                if direct is not None and direct.get_write_buffer_size() + len(data) < UNTIMED:
                    if direct.is_closing():
                        return out
                    # A chunk for the socket's buffer: no need to wait, and watches are many.
                    direct.write(b"%x\r\n%s\r\n" % (len(data), data))
                    continue
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await out.write(data)
            await out.write_eof()
        except TimeoutError:
            if transport is not None:
                transport.abort()
        except ConnectionError:
            pass  # the client has gone
    return out
