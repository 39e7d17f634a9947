"""Answers of HTTP/1.1 as bytes: heads, and bodies that are packed where it pays. Pure but for the date."""

from __future__ import annotations

import time
import zlib
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from minik8s.apiserver.http_request import Request
from minik8s.apiserver.request import ApiResponse

GZIP_FROM = 128 * 1024  # bytes, as Kubernetes: below, compressing costs more than it saves
BODYLESS = (204, 304)  # codes of answers that have neither body nor length
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def whole(response: ApiResponse, request: Request) -> bytes:
    """A small answer in one piece."""
    body = response.body
    if response.headers or not request.modern or not request.keep_alive or request.method == "HEAD":
        head = head_of(response, request, len(body))
        return head if request.method == "HEAD" or response.code in BODYLESS else head + body
    return b"%s%s%d\r\n\r\n%s" % (_start(response.code, response.content_type), _sized(), len(body), body)


def head_of(response: ApiResponse, request: Request, length: int | None) -> bytes:
    """The head of any answer; `length` None for a stream: chunks, or all until the connection is closed."""
    lines = [f"{name.title()}: {_one_line(value)}\r\n" for name, value in response.headers.items()]
    if length is not None and response.code not in BODYLESS:
        lines.append(f"Content-Length: {length}\r\n")
    elif length is None and request.modern:
        lines.append("Transfer-Encoding: chunked\r\n")
    if not request.keep_alive:
        lines.append("Connection: close\r\n")
    elif not request.modern:
        lines.append("Connection: keep-alive\r\n")
    more = "".join(lines).encode("utf-8", "surrogateescape")
    return b"%s%s%s\r\n" % (_start(response.code, response.content_type), _dated(int(time.time())), more)


def refusal(response: ApiResponse) -> bytes:
    """The answer to what was no request, after which the connection ends."""
    head = b"%s%sConnection: close\r\nContent-Length: %d\r\n\r\n"
    body = response.body
    return head % (_start(response.code, response.content_type), _dated(int(time.time())), len(body)) + body


def packed(response: ApiResponse, request: Request) -> ApiResponse:
    """A big answer compressed, for a client that understands that."""
    accepted = request.headers.get("accept-encoding", "")
    if len(response.body) < GZIP_FROM or "gzip" not in accepted or "content-encoding" in response.headers:
        return response
    packer = zlib.compressobj(1, wbits=31)
    body = packer.compress(response.body) + packer.flush()
    headers = {**response.headers, "content-encoding": "gzip", "vary": "Accept-Encoding"}
    return ApiResponse(response.code, body, response.content_type, headers)


def chunk(data: bytes) -> bytes:
    """One chunk of a stream. An empty one would end it."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def _one_line(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")


@lru_cache(maxsize=64)
def _start(code: int, content_type: str) -> bytes:
    return f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\nContent-Type: {content_type}\r\n".encode()


def _sized() -> bytes:
    return _dated(int(time.time())) + b"Content-Length: "


@lru_cache(maxsize=1)
def _dated(second: int) -> bytes:
    return f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
