"""A request of HTTP/1.1, and what its head must be: as strict as a server must be that others' proxies stand before.

The parser (llhttp) refuses what makes the length of a body ambiguous: two lengths, a length with chunks, sizes that are
no hexadecimal number, spaces before a colon, folded lines, line ends without CR. `read_head` refuses the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from minik8s.api.errors import BadRequest, MethodNotAllowed, RequestEntityTooLarge, UnsupportedMediaType
from minik8s.apiserver.body import MAX_BODY

if TYPE_CHECKING:
    from minik8s.apiserver.http1 import Connection

MAX_LINE = 16 * 1024  # bytes of a request's target, and of one header
MAX_HEADERS = 128  # lines; Kubernetes' clients send about ten


class Request:
    """`path` and `query` are as on the wire. `headers` have lower case names and doubled ones joined by ", "; `lines`
    are all of them as they came. `upgrade`: what follows the head is no HTTP any more, if we agree."""

    __slots__ = (
        "body", "connection", "expects", "headers", "keep_alive", "lines", "method", "modern", "path", "query",
        "upgrade",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        method: str,
        target: str,
        headers: dict[str, str],
        lines: Sequence[tuple[bytes, bytes]],
    ) -> None:
        self.connection = connection
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.lines = lines
        self.body = b""
        self.modern = True  # HTTP/1.1: its client understands chunks
        self.keep_alive = True
        self.upgrade = False
        self.expects = False  # the client waits for `100 Continue` before it sends the body


def read_head(
    connection: Connection, method: bytes, target: bytes, version: str, lines: Sequence[tuple[bytes, bytes]]
) -> Request:
    """The request that begins with this head. Raises StatusError for one that is not to be served."""
    if version not in ("1.1", "1.0"):
        raise BadRequest(f"HTTP/{version} is not spoken here, only HTTP/1.1 and HTTP/1.0")
    if method == b"CONNECT":
        raise MethodNotAllowed("this is no proxy: CONNECT is not served")
    headers: dict[str, str] = {}
    for name, value in lines:
        if len(value) > MAX_LINE:
            raise BadRequest(f"a header of the request is longer than {MAX_LINE} bytes")
        key = _lower(name)
        text = value.decode("utf-8", "surrogateescape").rstrip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    request = Request(connection, method.decode("latin-1"), _target(target), headers, lines)
    request.modern = version == "1.1"
    _check(request)
    return request


@lru_cache(maxsize=1024)
def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _target(target: bytes) -> str:
    """Path and query of a request line, which may have a whole URL (RFC 9112, section 3.2.2)."""
    if len(target) > MAX_LINE:
        raise BadRequest(f"the target of the request is longer than {MAX_LINE} bytes")
    text = target.decode("latin-1")
    if text.startswith("/"):
        return text
    scheme, mark, rest = text.partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        raise BadRequest(f'the target of the request is no path: "{text[:60]}"')
    return "/" + rest.partition("/")[2]


def _check(request: Request) -> None:
    headers = request.headers
    host = headers.get("host")
    if (host is None and request.modern) or (host is not None and "," in host):
        raise BadRequest("this is no HTTP request: it must have one Host header")
    length = headers.get("content-length")
    if length is not None and int(length) > MAX_BODY:
        raise RequestEntityTooLarge(f"the body is larger than {MAX_BODY} bytes")
    coding = headers.get("transfer-encoding")
    if coding is not None and (coding.lower() != "chunked" or not request.modern):
        raise BadRequest(f'the transfer encoding "{coding[:60]}" is not understood, only chunked in HTTP/1.1')
    packed = headers.get("content-encoding", "identity")
    if packed.lower() != "identity":
        raise UnsupportedMediaType(f'the body is packed as "{packed[:60]}": send it as it is')
    if "expect" in headers:
        if headers["expect"].lower() != "100-continue":
            raise BadRequest(f'the expectation "{headers["expect"][:60]}" is not understood, only 100-continue')
        request.expects = request.modern
