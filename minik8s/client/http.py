"""The transport of components that are not in the master's process: HTTPS to one API server."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import aiohttp
import msgspec
from aiohttp.connector import AddrInfoType
from yarl import URL

from minik8s import __version__
from minik8s.api.errors import ServiceUnavailable, StatusError, Timeout, from_status

REQUEST_TIMEOUT = 60.0  # seconds for a whole request that is no watch
CONNECT_TIMEOUT = 10.0  # seconds; TCP and TLS
CONNECTIONS = 16  # requests at once, watches apart: each connection costs a TLS handshake, worth dozens of requests
SILENCE = 150.0  # seconds without a byte after which a watch's peer is dead: bookmarks come every 60
# When the way to the server is cut nobody says so, and TCP itself would wait a quarter of an hour. What is sent has to
# be acknowledged within this many milliseconds, and an idle connection (a watch) is tried after so many seconds.
UNACKNOWLEDGED, IDLE, TRY_AGAIN, TRIES = 10_000, 10, 5, 2


class HttpTransport:
    """A client `Transport`; an async context manager that keeps connections open while it is entered.

    `server` is `https://host:port`; `context` trusts the cluster's CA and may hold a client certificate. `token` is a
    bearer token, or a function that reads it where it changes (a mounted ServiceAccount token). A request is sent once:
    whether to try again is for the caller, who knows what it meant.
    """

    def __init__(
        self, server: str, context: ssl.SSLContext | None = None, *, token: str | Callable[[], str] = ""
    ) -> None:
        self._server = server.rstrip("/")
        self._context = context
        self._token = token
        self._session: aiohttp.ClientSession | None = None
        self._answers: set[aiohttp.ClientResponse] = set()  # that are being read
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def __aenter__(self) -> Self:
        self._session = self._new_session()
        return self

    def _new_session(self) -> aiohttp.ClientSession:
        # Watches hold a connection each, so there is no limit on those.
        connector = aiohttp.TCPConnector(
            limit=0, ssl=self._context or True, keepalive_timeout=60, socket_factory=_watchful_socket
        )
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, connect=CONNECT_TIMEOUT)
        headers = {"user-agent": f"minik8s/{__version__}", "accept": "application/json"}
        return aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)

    async def reconnect(self) -> None:
        """Drop all connections, watches too: the way to the server has changed. What is under way fails."""
        old, self._session = self._session, self._new_session()
        for answer in self._answers:  # closing a session does not wake those who read
            answer.content.set_exception(aiohttp.ClientConnectionError("the way to the server has changed"))
        if old is not None:
            await old.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = "application/json",
    ) -> bytes:
        """See `Transport`. Raises StatusError: the server's own, Timeout, or ServiceUnavailable (out of reach)."""
        headers = {**self._authorization(), **({"content-type": content_type} if body else {})}
        with _translated(self._server):
            async with (
                self._turns,
                self._open().request(method, self._url(path, query), data=body or None, headers=headers) as answer,
            ):
                with self._reading(answer):
                    data = await answer.read()
                if answer.status >= 400:
                    raise _error(data, answer.status)
                return data

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[Sequence[bytes]]]:
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=SILENCE)
        with _translated(self._server):
            async with self._open().get(
                self._url(path, query), headers=self._authorization(), timeout=timeout
            ) as answer:
                if answer.status >= 400:
                    raise _error(await answer.read(), answer.status)
                with self._reading(answer):
                    yield _lines(answer.content, self._server)

    @contextmanager
    def _reading(self, answer: aiohttp.ClientResponse) -> Iterator[None]:
        self._answers.add(answer)
        try:
            yield
        finally:
            self._answers.discard(answer)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise ServiceUnavailable("the connection to the API server is closed")
        return self._session

    def _url(self, path: str, query: Mapping[str, str] | None) -> URL:
        # Paths come encoded already; yarl must not do it again.
        return URL(f"{self._server}{path}{'?' + urlencode(query) if query else ''}", encoded=True)

    def _authorization(self) -> dict[str, str]:
        token = self._token if isinstance(self._token, str) else self._token()
        return {"authorization": f"Bearer {token}"} if token else {}


def _watchful_socket(info: AddrInfoType) -> socket.socket:
    """A socket that notices within seconds that its peer is out of reach."""
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED),
        (socket.TCP_KEEPIDLE, IDLE),
        (socket.TCP_KEEPINTVL, TRY_AGAIN),
        (socket.TCP_KEEPCNT, TRIES),
    ):
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


class _translated:  # noqa: N801 - reads as a statement
    """Turns aiohttp's errors, and only those, into ours."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, TimeoutError):
            raise Timeout(f"{self._server} did not answer in time") from error
        if isinstance(error, (aiohttp.ClientError, OSError)):
            raise ServiceUnavailable(f"cannot reach {self._server}: {error or type(error).__name__}") from error


async def _lines(content: aiohttp.StreamReader, server: str) -> AsyncIterator[Sequence[bytes]]:
    """Batches of whole lines. A last line that is cut off is dropped: the connection broke within it."""
    rest = b""
    while True:
        with _translated(server):
            chunk = await content.readany()
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        if batch := [line for line in lines if line]:
            yield batch


def _error(data: bytes, code: int) -> StatusError:
    try:
        status = msgspec.json.decode(data)
    except msgspec.DecodeError:
        status = {"message": data[:500].decode(errors="replace")}
    return from_status(status if isinstance(status, dict) else {}, code=code)
