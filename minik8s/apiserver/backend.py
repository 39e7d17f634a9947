"""Hand a request on to a backend, and the client's connection with it: bytes are copied, not understood.

What the backend answers reaches the client as it is, in whatever form, and however long it lasts. The client's own
bytes follow only after `101 Switching Protocols`: before that they would be further requests, which the backend would
take for ours, with our rights.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from minik8s.api.errors import ServiceUnavailable
from minik8s.apiserver.http_request import Request
from minik8s.takeover import CHUNK, cause, first_of, pump

CONNECT_SECONDS = 10.0  # for a backend to accept a connection
ANSWER_SECONDS = 60.0  # for a backend to begin its answer

# Of one connection only (RFC 9110, section 7.6.1), or of the client's dealings with us.
_OURS = frozenset((
    b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"proxy-authenticate",
    b"proxy-authorization", b"proxy-connection", b"host", b"content-length", b"expect", b"authorization",
    b"impersonate-user", b"impersonate-group", b"impersonate-uid",
))  # fmt: skip


class Backend(NamedTuple):
    """Where to connect, by TLS if there is a `context`. `said` names it in errors."""

    address: str
    port: int
    context: ssl.SSLContext | None
    said: str

    @property
    def authority(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


async def hand_over(request: Request, backend: Backend, target: str, body: bytes = b"") -> None:
    """Let `backend` answer a request under the path and query `target`. ServiceUnavailable if it does not."""
    upgrade = request.upgrade
    async with _connected(backend) as (reader, writer):
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                writer.write(_head(request, backend, target, len(body), upgrade=upgrade) + body)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise _unreachable(backend, f"it took the request and did not answer ({_words(error)})") from None
        async with request.connection.taken_over() as (from_client, to_client):
            to_client.write(head)
            if upgrade and head[:13].endswith(b" 101 "):
                await first_of(pump(reader, to_client), pump(from_client, writer))
            else:
                await first_of(pump(reader, to_client, length=_length(request.method, head)))


@asynccontextmanager
async def _connected(backend: Backend) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                backend.address, backend.port, ssl=backend.context, limit=CHUNK
            )
    except (OSError, TimeoutError) as error:
        raise _unreachable(backend, _words(error)) from None
    try:
        yield reader, writer
    finally:
        writer.transport.abort()  # either it has said all, or nobody listens


def _head(request: Request, backend: Backend, target: str, length: int, *, upgrade: bool) -> bytes:
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {backend.authority}"]
    lines.append(f"Connection: {'Upgrade' if upgrade else 'close'}")
    if length or request.method not in ("GET", "HEAD"):
        lines.append(f"Content-Length: {length}")
    skipped = _OURS if upgrade else _OURS | {b"upgrade"}
    passed_on = [b"%s: %s" % line for line in request.lines if line[0].lower() not in skipped]
    return b"\r\n".join(["\r\n".join(lines).encode(), *passed_on, b"", b""])


def _length(method: str, head: bytes) -> int | None:
    """How long the answer's body is; None: until the backend closes, as it was asked to."""
    said = re.search(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", head, re.IGNORECASE)
    if method == "HEAD":
        return 0
    return int(said[1]) if said else None


def _unreachable(backend: Backend, why: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"{backend.said} does not answer at {backend.authority}: {why}")


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, OSError):
        return cause(error)
    return "the connection was closed"
