"""WSGI applications (PEP 3333)."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

from minik8s.faas.runtime.answers import Answer
from minik8s.faas.runtime.serverless import Request


def run(application: Callable[..., Any], request: Request) -> Answer:
    """An answer in one piece where the application gives it as one, else in pieces."""
    started: list[Any] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        started[:] = [status, headers]
        return written.append

    result = application(environ(request), start_response)
    pieces = _pieces(result)
    first = next(pieces, b"")  # an application may begin its answer as late as with its first piece
    if not started:
        raise RuntimeError("the WSGI application did not call start_response")
    status, headers = started
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers
           if name.lower() not in ("content-length", "transfer-encoding", "connection")]  # fmt: skip
    whole = isinstance(result, (list, tuple)) and len(result) <= 1
    body = b"".join([*written, first])
    if whole:
        close = getattr(result, "close", None)
        if close:
            close()
        return Answer(int(status.split()[0]), raw, body)
    return Answer(int(status.split()[0]), raw, _Rest(body, pieces, result))


def _pieces(result: Any) -> Iterator[bytes]:
    for each in result:
        if each:
            yield each


class _Rest:
    """What is still to come; closes what the application returned."""

    def __init__(self, first: bytes, pieces: Iterator[bytes], result: Any) -> None:
        self._first, self._pieces, self._result = first, pieces, result

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        yield from self._pieces

    def close(self) -> None:
        close = getattr(self._result, "close", None)
        if close:
            close()


def environ(request: Request) -> dict[str, Any]:
    made: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.encode().decode("latin-1"),
        "QUERY_STRING": request.query_string,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": request.headers.get("host", "localhost").partition(":")[0],
        "SERVER_PORT": request.headers.get("host", "").partition(":")[2] or "80",
        "REMOTE_ADDR": request.headers.get("x-forwarded-for", "").partition(",")[0],
        "CONTENT_LENGTH": str(len(request.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.headers.get("x-forwarded-proto", "http"),
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        if key == "CONTENT_TYPE":
            made[key] = value
        elif key != "CONTENT_LENGTH":
            made[f"HTTP_{key}"] = value
    return made
