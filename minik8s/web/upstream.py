"""The API server as one user sees it: requests, streams and WebSockets with that user's credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import msgspec
from yarl import URL

from minik8s.api.errors import ServiceUnavailable, StatusError, Timeout, from_status
from minik8s.web import login as logins

REQUEST = aiohttp.ClientTimeout(total=60, connect=10)
STREAM = aiohttp.ClientTimeout(total=None, connect=10)
SILENT_WATCH = aiohttp.ClientTimeout(total=None, connect=10, sock_read=150)  # bookmarks come every 60 s
CHANNELS = "v4.channel.k8s.io"


class Upstream:
    """`server` is `https://host:port`, `ca` the file with its CA. All methods raise StatusError. `close` it."""

    def __init__(self, server: str, ca: str, login: logins.Login) -> None:
        headers = {"authorization": f"Bearer {login.token}"} if login.token else {}
        connector = aiohttp.TCPConnector(limit=0, ssl=logins.context(login, ca), keepalive_timeout=30)
        self._server = server.rstrip("/")
        self._http = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=REQUEST,
            raise_for_status=_refused,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._http.close()

    async def request(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        body: bytes = b"",
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        headers = {"accept": accept, **({"content-type": content_type} if body else {})}
        with _translated():
            async with self._http.request(
                method, self._url(path, query), data=body or None, headers=headers, allow_redirects=False
            ) as answer:
                return await answer.read()

    @asynccontextmanager
    async def stream(
        self, path: str, query: Sequence[tuple[str, str]], *, watch: bool
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The answer as it comes, in pieces; a watch whose peer is silent for too long ends with Timeout."""
        with _translated():
            timeout = SILENT_WATCH if watch else STREAM
            async with self._http.get(self._url(path, query), timeout=timeout, allow_redirects=False) as answer:
                yield answer.content.iter_any()

    @asynccontextmanager
    async def channels(
        self, path: str, query: Sequence[tuple[str, str]]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket of `v4.channel.k8s.io`: the first byte of each message names the stream."""
        with _translated():
            opening = self._http.ws_connect(self._url(path, query), protocols=(CHANNELS,), heartbeat=30, max_msg_size=0)
            async with opening as socket:
                yield socket

    def _url(self, path: str, query: Sequence[tuple[str, str]]) -> URL:
        return (
            URL(self._server + path, encoded=True).with_query(list(query))
            if query
            else URL(self._server + path, encoded=True)
        )


async def _refused(answer: aiohttp.ClientResponse) -> None:
    if answer.status < 400:
        return
    data = await answer.read()
    try:
        status = msgspec.json.decode(data, type=dict)
    except msgspec.DecodeError:
        status = {"message": data[:500].decode(errors="replace")}
    raise from_status(status, code=answer.status)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except StatusError:
        raise
    except TimeoutError as error:
        raise Timeout("the API server did not answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ServiceUnavailable(f"cannot reach the API server: {error or type(error).__name__}") from error
