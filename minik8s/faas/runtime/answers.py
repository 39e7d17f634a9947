"""Arguments for the code out of a request, and an answer out of what it returns or raises."""

from __future__ import annotations

import base64
import json
import os
import traceback
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from minik8s.faas.runtime.contracts import Contract
from minik8s.faas.runtime.http1 import Header
from minik8s.faas.runtime.serverless import BadParameters, CloudEvent, Context, Invoke, Request, Response
from minik8s.faas.runtime.settings import Settings

MAX_TRACEBACK: Final = 8 * 2**10  # bytes: it stands in statuses of objects
FAILED: Final = (b"minik8s-error", b"FunctionError")
_OWN: Final = str(Path(__file__).parent)
_JSON: Final = [(b"content-type", b"application/json")]
_TEXT: Final = [(b"content-type", b"text/plain; charset=utf-8")]
_BYTES: Final = [(b"content-type", b"application/octet-stream")]
_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_EVENT_JSON: Final = "application/cloudevents+json"


class Answer(NamedTuple):
    """`body`: bytes, or pieces that are sent as chunks when they come."""

    status: int
    headers: list[Header]
    body: bytes | Iterable[Any] | AsyncIterable[Any]


class NotHeld(TypeError):
    """JSON cannot hold what the code has returned."""


class InvokeNotDeclared(PermissionError):
    """Code named a function in `Invoke` that is not among its `invokes`."""


# -- to the code


def call(contract: Contract, settings: Settings, request: Request, deadline: float) -> Any:
    """Let the code answer: its result, or for asynchronous code the awaitable or generator of it. `deadline` is of
    time.monotonic(). Raises BadParameters."""
    kind, takes, target = contract.name, contract.takes, contract.target
    if takes is None:
        params = request.params
        if not isinstance(params, dict):
            raise BadParameters("the parameters must be a JSON object, for they are passed by name")
        return target(**params)
    if takes == 0:
        return target()
    if kind == "main":
        return target(request.params)
    if kind == "action":
        return target(request)
    if kind == "cloudevent":
        return target(read_event(request))
    context = Context(request, settings.function, settings.namespace, settings.revision, deadline)
    return target(*(request.params, context)[:takes])


def read_event(request: Request) -> CloudEvent:
    """A CloudEvent in binary or structured mode; any other request is one of type `http`. Raises BadParameters."""
    if request.content_type == _EVENT_JSON:
        given = request.json
        if not isinstance(given, dict):
            raise BadParameters("a structured CloudEvent is a JSON object")
        data = given.pop("data", None)
        if "data_base64" in given:
            data = base64.b64decode(given.pop("data_base64"))
        return CloudEvent(given, data)
    attributes = {name[3:]: value for name, value in request.headers.items() if name.startswith("ce-")}
    if "specversion" not in attributes:
        attributes = {"type": "http", "source": request.path, "id": request.call_id}
    kind = request.content_type
    if kind:
        attributes["datacontenttype"] = request.headers["content-type"]
    if kind.endswith(("json", "urlencoded")) or not kind:
        return CloudEvent(attributes, request.params)
    return CloudEvent(attributes, request.text if kind.startswith("text/") else request.body)


# -- from the code


def render(result: Any, contract: Contract, settings: Settings) -> Answer:
    """Raises NotHeld, InvokeNotDeclared."""
    if type(result) is dict and contract.name != "handler":  # what most code returns, without the many questions below
        return Answer(200, _JSON, dumps(result))
    if isinstance(result, Response):
        headers = _raw(result.headers)
        body, own = _body(result.body)
        if result.content_type is not None:
            headers.append((b"content-type", result.content_type.encode("latin-1")))
        elif not any(name.lower() == b"content-type" for name, _ in headers):
            headers += own
        return Answer(result.http_status, headers, body)
    if isinstance(result, Invoke):
        target = result.name.lower().replace("_", "-")
        if target not in {name.lower().replace("_", "-") for name in settings.invokes}:
            raise InvokeNotDeclared(
                f"Invoke({result.name!r}): not among the function's invokes {list(settings.invokes)}"
            )
        return Answer(200, [*_JSON, (b"minik8s-invoke", target.encode())], dumps(result.params))
    if isinstance(result, CloudEvent):
        return _event(result)
    if contract.name == "cloudevent" and result is None:
        return Answer(204, [], b"")
    if contract.name == "handler" and isinstance(result, dict) and isinstance(result.get("statusCode"), int):
        return _proxied(result)
    body, own = _body(result)
    return Answer(200, list(own), body)


def _body(value: Any) -> tuple[bytes | Iterable[Any] | AsyncIterable[Any], list[Header]]:
    if isinstance(value, str):
        return value.encode(errors="replace"), _TEXT
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), _BYTES
    if isinstance(value, (Iterator, AsyncIterable)):
        return value, _TEXT
    return dumps(value), _JSON


def _proxied(result: Mapping[str, Any]) -> Answer:
    """The form in which handlers behind an API gateway answer: statusCode, headers, body, isBase64Encoded."""
    body, own = _body(result.get("body") or b"")
    if result.get("isBase64Encoded"):
        body, own = base64.b64decode(result.get("body") or ""), _BYTES
    headers = _raw(result.get("headers") or {})
    if not any(name.lower() == b"content-type" for name, _ in headers):
        headers += own
    return Answer(result["statusCode"], headers, body)


def _event(event: CloudEvent) -> Answer:
    attributes = {"id": os.urandom(16).hex(), **event.attributes}
    body, own = _body(b"" if event.data is None else event.data)
    kind = attributes.pop("datacontenttype", None)
    headers = [(f"ce-{name}".encode("latin-1"), str(value).encode()) for name, value in attributes.items()]
    return Answer(200, headers + ([(b"content-type", str(kind).encode())] if kind else own), body)


def _raw(headers: Mapping[str, Any]) -> list[Header]:
    """Framing is the server's: what code says of it is left out."""
    pairs = ((name, str(value)) for name, value in headers.items())
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in pairs
            if name.lower() not in ("content-length", "transfer-encoding", "connection")]  # fmt: skip


def dumps(value: Any) -> bytes:
    """Raises NotHeld."""
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotHeld(f"JSON cannot hold what the function returned ({type(value).__name__}): {error}") from None


def piece(value: Any) -> bytes:
    """One piece of a stream: text and bytes as they are, anything else as a line of JSON. Raises NotHeld."""
    if isinstance(value, str):
        return value.encode(errors="replace")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return dumps(value) + b"\n"


def failure(error: BaseException) -> Answer:
    """What the client is told of an error of the code."""
    if isinstance(error, BadParameters):
        return Answer(400, [*_JSON, (b"minik8s-error", b"BadParameters")], _told(error, ""))
    ours = isinstance(error, (NotHeld, InvokeNotDeclared))  # it has returned, and no line of it is at fault
    return Answer(500, [*_JSON, FAILED], _told(error, "" if ours else traceback_of(error)))


def _told(error: BaseException, trace: str) -> bytes:
    text = {"error": type(error).__name__, "message": _text(error)[:MAX_TRACEBACK], "traceback": trace}
    return json.dumps(text).encode()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the code's own class may fail at this, too
        return "(the error cannot be shown)"


def traceback_of(error: BaseException) -> str:
    """The traceback from the code's first line on, at most MAX_TRACEBACK bytes; the end matters most."""
    trace = error.__traceback__
    while trace is not None and (
        trace.tb_frame.f_code.co_filename.startswith((_OWN, "<frozen")) or _importing(trace.tb_frame.f_code.co_filename)
    ):
        trace = trace.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
    except Exception:  # as above
        text = f"{type(error).__name__}: (the error cannot be shown)\n"
    data = text.encode(errors="backslashreplace")
    return text if len(data) <= MAX_TRACEBACK else "…" + data[-MAX_TRACEBACK + 4 :].decode(errors="ignore")


def _importing(filename: str) -> bool:
    return filename.endswith("importlib/__init__.py")
