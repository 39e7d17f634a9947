"""What the API server answers about asynchronous calls of a Function.

    POST   …/functions/NAME/calls               202 {"id", "url"}: it is durable, and will be made
    GET    …/functions/NAME/calls/ID            how it stands, and its result
    GET    …/functions/NAME/deadletters         those that were given up; ?limit=&continue=
    POST   …/functions/NAME/deadletters         {"ids": [...]}, or {} for all: make them again
    DELETE …/functions/NAME/deadletters?id=A,B  or all

The body of the first is what the function gets. `Idempotency-Key` makes sure that a request that is sent twice is one
call; `X-Callback-Url` is told the result. An envelope (queue.py) has all that in the body.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from minik8s.api.errors import BadRequest, NotFound, RequestEntityTooLarge, TooManyRequests
from minik8s.api.kinds.function import RESOURCE, Function
from minik8s.api.resource import Json
from minik8s.apiserver import body
from minik8s.apiserver.request import ApiResponse, json_response
from minik8s.apiserver.verbs import Call as Asked
from minik8s.client.base import Client
from minik8s.clock import rfc3339_milli
from minik8s.faas.queue.dispatcher import Dispatcher
from minik8s.faas.queue.outcome import document
from minik8s.faas.queue.queue import ENVELOPE, QUEUED, Call, Envelope, Record, new_id

VERSION = RESOURCE.api_version
LARGEST = 1024 * 1024  # bytes of a payload; as much as AWS Lambda takes of an asynchronous one
MOST = 100_000  # calls of one function that wait
MOST_BYTES = 512 * 2**20  # of all payloads that wait
PAGE, LONGEST_PAGE = 100, 500
PATH = re.compile(r"([/?][\x21-\x7e]*)?")
METHOD = re.compile(r"[A-Z]{1,20}")
KEY = re.compile(r"[\x20-\x7e]{1,255}")
HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
OURS = ("content-type", "traceparent", "tracestate")  # of a request to the API server that are also for the function
DROPPED = frozenset((
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade", "host", "content-length", "expect", "prefer", "x-minik8s-async", "idempotency-key", "x-callback-url",
    "minik8s-revision", "minik8s-call",
))  # fmt: skip
Answer = Callable[[Asked], Awaitable[ApiResponse]]


class QueueApi:
    """`records` answers GET …/calls without an id, where somebody keeps records of calls."""

    def __init__(self, client: Client, dispatcher: Dispatcher) -> None:
        self._client = client
        self._dispatcher = dispatcher
        self.records: Answer | None = None

    def subresources(self) -> Mapping[tuple[str, str], Answer]:
        return {
            ("calls", "create"): self.put,
            ("calls", "get"): self.read,
            ("deadletters", "get"): self.dead,
            ("deadletters", "create"): self.redrive,
            ("deadletters", "delete"): self.purge,
        }

    async def put(self, asked: Asked) -> ApiResponse:
        function = await self._function(asked)
        call = self._call(asked, function)
        waiting = self._dispatcher.queue.waiting()
        if self._dispatcher.waiting(function) >= MOST or sum(each.bytes for each in waiting.values()) > MOST_BYTES:
            raise TooManyRequests("too many asynchronous calls are waiting: send it again later", retry_after=10)
        id = await self._dispatcher.put(call)
        return json_response({"id": id, "url": f"{asked.info.path}/{id}"}, 202)

    def _call(self, asked: Asked, function: str) -> Call:
        headers, raw = asked.request.headers, asked.request.body
        if headers.get("content-type", "").partition(";")[0].strip().lower() == ENVELOPE:
            given = _envelope(raw)
            sent = {name: value for name, value in given.headers.items() if name not in DROPPED}
            key = given.key or given.headers.get("idempotency-key", "")
            callback = given.callbackUrl or given.headers.get("x-callback-url", "")
        else:
            given = Envelope(body=raw)
            sent = {name: headers[name] for name in OURS if headers.get(name)}
            key, callback = headers.get("idempotency-key", ""), headers.get("x-callback-url", "")
        sent.setdefault("traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01")
        if key and not KEY.fullmatch(key):
            raise BadRequest("Idempotency-Key: must be 1 to 255 printable characters of ASCII")
        if callback:
            _check_url(callback)
        if len(given.body) > LARGEST:
            raise RequestEntityTooLarge(f"an asynchronous call carries at most {LARGEST} bytes, not {len(given.body)}")
        now = self._dispatcher.clock()
        return Call(new_id(), function, now, given.method, given.path, sent, given.body, key, callback)

    async def read(self, asked: Asked) -> ApiResponse:
        id = asked.info.rest
        if not id and self.records is not None:
            return await self.records(asked)
        record = await self._dispatcher.queue.find(await self._function(asked), id)
        if record is None:
            raise NotFound(f'the function "{asked.info.name}" has no asynchronous call "{id[:80]}" (any more)')
        return json_response(shown(record, running=self._dispatcher.queue.is_taken(id)))

    async def dead(self, asked: Asked) -> ApiResponse:
        limit = min(_number(asked.query, "limit") or PAGE, LONGEST_PAGE)
        after = _number(asked.query, "continue")
        found = await self._dispatcher.queue.dead(await self._function(asked), after=after, limit=limit + 1)
        meta = {"continue": str(found[limit - 1].number)} if len(found) > limit else {}
        items = [shown(record, running=False) for record in found[:limit]]
        return json_response({"kind": "FunctionCallList", "apiVersion": VERSION, "metadata": meta, "items": items})

    async def redrive(self, asked: Asked) -> ApiResponse:
        given = body.decode_object(asked.request.body) if asked.request.body else {}
        ids = given.get("ids")
        if ids is not None and (not isinstance(ids, list) or not all(isinstance(id, str) for id in ids)):
            raise BadRequest("ids: must be a list of ids of dead letters; leave it out for all")
        return json_response({"redriven": await self._dispatcher.redrive(await self._function(asked), ids)})

    async def purge(self, asked: Asked) -> ApiResponse:
        ids = asked.query["id"].split(",") if asked.query.get("id") else None
        return json_response({"purged": await self._dispatcher.queue.purge(await self._function(asked), ids)})

    async def _function(self, asked: Asked) -> str:
        found = await self._client.get(Function, asked.info.name, asked.info.namespace)
        return found.key


def _envelope(raw: bytes) -> Envelope:
    try:
        given = msgspec.json.decode(raw, type=Envelope)
    except msgspec.DecodeError as error:
        raise BadRequest(f"the envelope of the call cannot be read: {error}") from None
    if not METHOD.fullmatch(given.method):
        raise BadRequest(f"method: {given.method[:20]!r} is none of HTTP's")
    if not PATH.fullmatch(given.path) or {".", ".."} & set(given.path.partition("?")[0].split("/")):
        raise BadRequest(f"path: {given.path[:80]!r} must begin with '/' or '?', and stay below the function's own")
    headers = {name.lower(): value for name, value in given.headers.items()}
    for name, value in headers.items():
        if not HEADER.fullmatch(name) or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
            raise BadRequest(f"headers: {name[:80]!r} cannot be a header with this value")
    return msgspec.structs.replace(given, headers=headers)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or len(url) > 2048 or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise BadRequest("X-Callback-Url: must be a URL that begins with http:// or https://")


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name) or "0"
    if not (text.isascii() and text.isdecimal()) or len(text) > 15:
        raise BadRequest(f"{name}: must be a number, not {text[:40]!r}")
    return int(text)


def shown(record: Record, *, running: bool) -> Json:
    """A call as people see it. Pure."""
    call, result = record.call, record.result
    namespace, _, function = call.function.partition("/")
    spec: Json = {"function": function, "method": call.method, "path": call.path or "/"}
    spec |= {name: value for name, value in (("idempotencyKey", call.key), ("callbackUrl", call.callback),
                                             ("target", call.target)) if value}  # fmt: skip
    status: Json = {"phase": "Running" if running else record.phase, "attempts": record.attempts,
                    "acceptedTime": rfc3339_milli(call.accepted)}  # fmt: skip
    if record.phase != QUEUED:
        status["completionTime"] = rfc3339_milli(record.ended)
    elif record.attempts and not running:
        status["nextAttemptTime"] = rfc3339_milli(record.due)
    if result is not None:
        said = (("code", result.code), ("contentType", result.contentType), ("error", result.error),
                ("cause", result.cause))  # fmt: skip
        status |= {name: value for name, value in said if value}
        status |= _body(result.body, result.contentType) | ({"bodyDropped": True} if result.cut else {})
    return {"kind": "FunctionCall", "apiVersion": VERSION, "metadata": {"name": call.id, "namespace": namespace},
            "spec": spec, "status": status}  # fmt: skip


def _body(data: bytes, content_type: str) -> Json:
    if not data:
        return {}
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"bodyBase64": data}
    is_json: Any = "json" in content_type
    return {"body": document(data) if is_json else text}
