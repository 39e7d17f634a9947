"""The transport of components in the master's own process: the handler is called, there is no socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager

import msgspec

from minik8s.api.errors import from_status
from minik8s.apiserver.auth import User
from minik8s.apiserver.handler import Handler
from minik8s.apiserver.request import ApiRequest, ApiResponse


class LoopbackTransport:
    """A client `Transport` that acts as `user`, with that user's rights and no others."""

    def __init__(self, handler: Handler, user: User) -> None:
        self._handler = handler
        self._user = user

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = "application/json",
    ) -> bytes:
        headers = {"content-type": content_type, "accept": "application/json"}
        response = await self._handler.handle(ApiRequest(method, path, query or {}, headers, body, self._user))
        return _body(response)

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[Sequence[bytes]]]:
        response = await self._handler.handle(ApiRequest("GET", path, query or {}, user=self._user))
        if response.stream is None:
            _body(response)
            raise TypeError(f"{path} answers with an object, not with a stream")
        async with aclosing(response.stream) as frames:
            yield frames


def _body(response: ApiResponse) -> bytes:
    if response.code >= 400:
        raise from_status(msgspec.json.decode(response.body), code=response.code)
    return response.body
