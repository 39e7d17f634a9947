"""HTTP/1.1 without input or output: bytes in, requests out; answers in, bytes out."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

import httptools

MAX_HEAD: Final = 64 * 2**10  # bytes of request line and headers
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

Header = tuple[bytes, bytes]

_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_BODILESS: Final = (204, 304)
_SHORT: Final = 128  # bytes of a header that is remembered


class Refused(Exception):
    """The request cannot be served and the connection cannot go on. `status` and text are the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Gone(Exception):
    """The client is not there any more, or not in time."""


class Incoming:
    """A request; header names are lower case. `parts` are the pieces of the body that have come."""

    __slots__ = (
        "call", "complete", "expects", "headers", "keep_alive", "method", "parts", "size", "target", "version",
    )  # fmt: skip

    def __init__(self) -> None:
        self.call = ""  # the call's id, once somebody has asked for it
        self.method = ""
        self.target = b""
        self.version = "1.1"
        self.headers: list[Header] = []
        self.parts: list[bytes] = []
        self.size = 0  # bytes of the body so far
        self.keep_alive = True
        self.expects = False  # the client waits for "100 Continue" before it sends the body
        self.complete = False

    def header(self, name: bytes) -> bytes | None:
        for each, value in self.headers:
            if each == name:
                return value
        return None

    @property
    def body(self) -> bytes:
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)


class Reader:
    """The requests of one connection, in order: `ready` has those that are whole, or, if `early`, whose head is.

    Whatever was sent behind a request (pipelining) waits in `ready`, too. Callbacks of the parser are on_*.
    """

    def __init__(self, max_body: int, *, early: bool = False) -> None:
        self.ready: deque[Incoming] = deque()
        self.current: Incoming | None = None  # the one that is not whole yet
        self._max_body = max_body
        self._early = early
        self._head = 0  # bytes fed while no body is read
        self._in_head = True
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes | memoryview) -> None:
        """Raises Refused."""
        if self._in_head:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Other protocols are not spoken here, which a server may say by going on in this one; but what the client
            # sends next it may not send in HTTP.
            last = self.ready[-1] if self.ready else self.current
            if last is not None:
                last.keep_alive = False
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            raise cause if isinstance(cause, Refused) else Refused(400, f"bad request: {error}") from None
        except httptools.HttpParserError as error:
            raise Refused(400, f"bad request: {error}") from None
        if self._in_head and self._head > MAX_HEAD:
            raise Refused(431, f"the request's head is larger than {MAX_HEAD} bytes")

    @property
    def idle(self) -> bool:
        """Nothing is half read, nothing waits."""
        return self.current is None and not self.ready

    def on_message_begin(self) -> None:
        self.current = Incoming()
        self._headers = self.current.headers
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        assert self.current is not None
        self.current.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        request = self.current
        assert request is not None
        request.method = self._parser.get_method().decode("latin-1")
        request.version = self._parser.get_http_version()
        request.keep_alive = self._parser.should_keep_alive()
        self._in_head, self._head = False, 0
        for name, value in request.headers:
            if name == b"content-length":
                if int(value) > self._max_body:
                    raise self._too_large()
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    raise Refused(417, "the only expectation that is met here is 100-continue")
                request.expects = request.version != "1.0"
        if self._early:
            self.ready.append(request)

    def on_body(self, body: bytes) -> None:
        request = self.current
        assert request is not None
        request.size += len(body)
        if request.size > self._max_body:
            raise self._too_large()
        request.parts.append(body)
        request.expects = False

    def on_message_complete(self) -> None:
        request = self.current
        assert request is not None
        request.complete, request.expects = True, False
        self.current, self._in_head, self._head = None, True, 0
        if not self._early:
            self.ready.append(request)

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than {self._max_body} bytes, the function's maxBodyBytes")


def head(status: int, headers: Iterable[Header], *, length: int | None, close: bool) -> bytes:
    """The head of an answer; no `length` means chunks (of a HTTP/1.1 client). A line break in a header is refused:
    ValueError."""
    parts = [_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status]
    for name, value in headers:
        parts.append(_line(name, value) if len(value) < _SHORT else _line.__wrapped__(name, value))
    if status not in _BODILESS:
        parts.append(b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length)
    if close:
        parts.append(b"connection: close\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


@lru_cache(maxsize=256)  # code says the same again and again
def _line(name: bytes, value: bytes) -> bytes:
    if b"\n" in value or b"\r" in value or b"\n" in name or b"\r" in name or not name:
        raise ValueError(f"header {name!r} holds a line break, or is empty")
    return b"%b: %b\r\n" % (name, value)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: int, headers: Iterable[Header], body: bytes, *, close: bool = False, method: str = "GET") -> bytes:
    """An answer in one piece."""
    start = head(status, headers, length=len(body), close=close)
    return start if method == "HEAD" or status in _BODILESS else start + body


def json_answer(status: int, value: Any, headers: Iterable[Header] = (), *, close: bool = False) -> bytes:
    body = json.dumps(value).encode()
    return whole(status, [(b"content-type", b"application/json"), *headers], body, close=close)


def error(status: int, kind: str, text: str, headers: Iterable[Header] = (), *, close: bool = False) -> bytes:
    """An answer that is the runtime's own: `kind` stands in the header Minik8s-Error, too."""
    told = [(b"minik8s-error", kind.encode()), *headers]
    return json_answer(status, {"error": kind, "message": text}, told, close=close)
