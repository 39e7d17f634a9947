"""The API server on the network: TLS, and what HTTP says, around the handler. One function serves, without routes."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import parse_qsl

from minik8s.api.errors import InternalError, StatusError
from minik8s.apiserver import routes
from minik8s.apiserver.auth import User
from minik8s.apiserver.handler import Handler
from minik8s.apiserver.http_request import Request
from minik8s.apiserver.http_server import Server, listening
from minik8s.apiserver.request import ApiRequest, ApiResponse, error_response
from minik8s.apiserver.routes import RequestInfo
from minik8s.apiserver.served import SUBRESOURCES
from minik8s.log import REPORT, get_logger

# Cheaper than to read each path twice: what it does not find is no stream.
_MAYBE_STREAMED = re.compile("|".join(f"/{name}" for name, row in SUBRESOURCES.items() if row.streamed))

log = get_logger("http")


class StreamProxy(Protocol):
    """Serves log, exec, attach, portforward and proxy: bytes between a client and a node."""

    async def serve(self, info: RequestInfo, user: User, request: Request) -> None:
        """`user` has been found to be allowed. Takes the connection over; raises StatusError before it does."""
        ...


class ApiServer:
    """`serve` listens until it is cancelled."""

    def __init__(self, handler: Handler, *, streams: StreamProxy | None = None) -> None:
        self.handler = handler
        self.streams = streams

    @asynccontextmanager
    async def listening(
        self, host: str | None, port: int, context: ssl.SSLContext | None = None
    ) -> AsyncIterator[tuple[str, int]]:
        """Listen as long as the body runs; yields (address, port) of the first socket."""
        async with listening(Server(self._serve), host, port, context) as address:
            yield address

    async def serve(self, host: str | None, port: int, context: ssl.SSLContext | None = None) -> None:
        async with self.listening(host, port, context):
            await asyncio.Event().wait()

    async def _serve(self, request: Request) -> ApiResponse | None:
        try:
            asked = _api_request(request)
            if self.streams is not None and _MAYBE_STREAMED.search(request.path):
                info = routes.parse(asked.method, asked.path, asked.query)
                if _is_streamed(info):
                    user = await self.handler.admit(asked, info)
                    self.handler.served(info)
                    await self.streams.serve(info, user, request)
                    return None
            return await self.handler.handle(asked)
        except StatusError as error:
            return error_response(error)
        except ConnectionError:
            raise
        except Exception as error:
            log.exception("request failed", method=request.method, path=request.path, remedy=REPORT)
            if request.connection.taken:
                raise ConnectionAbortedError("half of another answer may have been sent already") from error
            return error_response(InternalError(f"an internal error occurred: {type(error).__name__}"))


def _is_streamed(info: RequestInfo) -> bool:
    return bool(info.subresource) and info.subresource in SUBRESOURCES and SUBRESOURCES[info.subresource].streamed


def _api_request(request: Request) -> ApiRequest:
    headers: Mapping[str, str] = request.headers
    if "impersonate-user" in headers:
        groups = [value.decode(errors="surrogateescape") for name, value in request.lines if name.lower() == _GROUP]
        headers = {**headers, "impersonate-group": "\n".join(groups)}
    authorization = headers.get("authorization", "")
    token = authorization[7:].strip() if authorization[:7].lower() == "bearer " else ""
    common_name, organizations = ("", ()) if token else request.connection.subject  # a token counts more
    return ApiRequest(
        request.method,
        request.path,
        dict(parse_qsl(request.query, keep_blank_values=True)) if request.query else {},
        headers,
        request.body,
        None,
        common_name,
        organizations,
        token,
        push=request.connection.push if request.modern else None,
    )


_GROUP = b"impersonate-group"
