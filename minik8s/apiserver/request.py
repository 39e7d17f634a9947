"""A request and its answer without HTTP: what the loopback transport and the HTTP server both hand to the handler."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from minik8s.api.errors import StatusError
from minik8s.apiserver.auth import User

JSON = "application/json"
Frames = AsyncGenerator[Sequence[bytes], None]
Push = Callable[[bytes], bool]


class ApiRequest(msgspec.Struct, gc=False):
    """`path` is as on the wire (percent-encoded, no query); `headers` are lower case, only those that matter.

    Who asks is either known (`user`), or to be found out from the certificate's subject and the bearer token.
    `push`, if given, sends a chunk of HTTP past a stream whose reader waits for more; it says whether it has taken it.
    """

    method: str
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes = b""
    user: User | None = None
    common_name: str = ""
    organizations: tuple[str, ...] = ()
    token: str = ""
    remote: str = ""
    push: Push | None = None


class ApiResponse(msgspec.Struct):
    """Either a `body` or a `stream` of batches of frames, which whoever takes the response must `aclose()`.

    `waited`: seconds for which nothing was done because the caller asked to wait; they make no request a slow one.
    """

    code: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = {}
    stream: Frames | None = None
    waited: float = 0.0


def json_response(value: Any, code: int = 200) -> ApiResponse:
    return ApiResponse(code, msgspec.json.encode(value))


def error_response(error: StatusError) -> ApiResponse:
    headers = {"retry-after": str(error.retry_after)} if error.retry_after else {}
    status = error.to_status()
    try:
        body = msgspec.json.encode(status)
    except UnicodeEncodeError:  # it quotes a header, and that was no UTF-8
        body = json.dumps(status, ensure_ascii=False).encode(errors="replace")
    return ApiResponse(error.code, body, headers=headers)
