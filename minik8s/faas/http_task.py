"""HTTP tasks: a request with the task's parameters, whose answer is the result.

Parameters with `Method`, `Headers`, `QueryParameters` or `RequestBody` (the words of Step Functions' HTTP task) say how
to ask; the result is then `{StatusCode, Headers, ResponseBody}`. Any other parameters are POSTed as JSON, as to a
function, and the result is what the body holds. `Idempotency-Key` is the same when a task is repeated.
"""

from __future__ import annotations

from typing import Any

import msgspec

from minik8s.faas.outbound import Outbound, Refused, Unreachable
from minik8s.faas.workflow import errors
from minik8s.faas.workflow.data import Json
from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.execution import MAX_DATA

FIELDS = frozenset(("Method", "Headers", "QueryParameters", "RequestBody"))
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
SOCKET = "States.Http.Socket"


class HttpTasks:
    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    async def perform(self, url: str, parameters: Any, key: str) -> Any:
        """Raises StateError: States.Http.StatusCode.NNN, States.Http.Socket and the like."""
        asked = parameters if isinstance(parameters, dict) and FIELDS & parameters.keys() else None
        options: Json = _options(asked) if asked is not None else {"method": "POST", "body": _encode(parameters)}
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "minik8s-workflow"}
        options["headers"] = headers | options.get("headers", {}) | {"Idempotency-Key": key}
        try:  # without a limit on the time: the run's own timer is it
            reply = await self._outbound.send(options.pop("method"), url, largest=MAX_DATA, **options)
        except Refused as error:
            raise StateError(errors.PERMISSIONS, str(error)) from None
        except Unreachable as error:
            raise StateError(SOCKET, f"{url}: {error}") from None
        if reply.cut:
            raise StateError(errors.DATA_LIMIT, f"{url} answers with more than {MAX_DATA} bytes")
        if not 200 <= reply.code < 300:
            text = reply.body[:1000].decode(errors="replace")
            raise StateError(f"States.Http.StatusCode.{reply.code}", text or f"{url} answered {reply.code}")
        document = _document(reply.body)
        if asked is None:
            return document
        return {"StatusCode": reply.code, "Headers": reply.headers, "ResponseBody": document}


def _options(asked: Json) -> Json:
    """What the request is to be, for the client. StateError if it cannot be."""
    if unknown := asked.keys() - FIELDS:
        raise StateError(
            errors.RUNTIME, f"{', '.join(sorted(unknown))}: an HTTP task knows {', '.join(sorted(FIELDS))}"
        )
    method = asked.get("Method", "POST" if "RequestBody" in asked else "GET")
    if method not in METHODS:
        raise StateError(errors.RUNTIME, f"Method {method!r} is none of {', '.join(METHODS)}")
    options: Json = {"method": method, "headers": _texts(asked, "Headers")}
    if "QueryParameters" in asked:
        options["query"] = _texts(asked, "QueryParameters")
    if "RequestBody" in asked:
        options["body"] = _encode(asked["RequestBody"])
    return options


def _texts(asked: Json, field: str) -> dict[str, str]:
    found = asked.get(field) or {}
    if not isinstance(found, dict) or not all(isinstance(value, str | int | float) for value in found.values()):
        raise StateError(errors.RUNTIME, f"{field} must be an object of texts")
    return {name: str(value) for name, value in found.items()}


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _document(body: bytes) -> Any:
    """The JSON value of a body; its text where it is none."""
    try:
        return msgspec.json.decode(body) if body else None
    except msgspec.DecodeError:
        return body.decode(errors="replace")
