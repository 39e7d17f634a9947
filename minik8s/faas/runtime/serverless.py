"""What a function's code may import as `serverless`: the request it gets, and what it may return."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote

_UNREAD = object()


class BadParameters(ValueError):
    """The body says that it is JSON, or a form, and is not."""


class Headers(Mapping[str, str]):
    """By name, in any case. Of a header that came twice the values are joined by a comma."""

    __slots__ = ("_found", "_raw")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._found: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._found is None:
            self._found = {}
            for name, value in self._raw:
                key, text = name.decode("latin-1"), value.decode("latin-1")
                self._found[key] = f"{self._found[key]}, {text}" if key in self._found else text
        return self._found

    def __getitem__(self, name: str) -> str:
        return self._all()[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


class Request:
    """What was asked: `method`, `path`, `query`, `headers`, `body` (bytes), and `json`, the body decoded.

    `param(name)` looks among the members of a JSON object or the fields of a form in the body, then in the query.
    """

    def __init__(self, method: str, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes, call: str) -> None:
        self.method = method
        self.raw_headers = headers
        self.body = body
        self.call_id = call
        path, _, query = target.partition(b"?")
        self.raw_path = path
        self.query_string = query.decode("latin-1")
        self._json: Any = _UNREAD
        self._params: Any = _UNREAD

    @cached_property
    def path(self) -> str:
        return unquote(self.raw_path.decode("latin-1"))

    @cached_property
    def headers(self) -> Headers:
        return Headers(self.raw_headers)

    @cached_property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.query_string, keep_blank_values=True) if self.query_string else {}

    @property
    def content_type(self) -> str:
        for name, value in self.raw_headers:
            if name == b"content-type":
                return value.decode("latin-1").partition(";")[0].strip().lower()
        return ""

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    @property
    def json(self) -> Any:
        """None without a body. Raises BadParameters."""
        if self._json is _UNREAD:
            try:
                self._json = json.loads(self.body.decode()) if self.body.strip() else None
            except (ValueError, RecursionError) as error:
                raise BadParameters(f"the body is not JSON: {error}") from None
        return self._json

    @property
    def params(self) -> Any:
        """What `main(params)` gets: the query's parameters with those of the body over them, or the body's value if
        that is no object. A body that is neither JSON nor a form is under "body". Raises BadParameters."""
        if self._params is _UNREAD:
            self._params = self._merged()
        return self._params

    def _merged(self) -> Any:
        asked = {name: values[-1] for name, values in self.query.items()} if self.query_string else {}
        if not self.body:
            return asked
        kind = self.content_type
        if kind == "application/json" or kind.endswith("+json"):
            value = self.json
        elif kind in ("", "text/plain", "application/x-www-form-urlencoded"):  # what curl and old clients say of JSON
            value = self._guessed(kind)
        else:
            value = {"body": self.text if kind.startswith("text/") else self.body}
        return {**asked, **value} if asked and isinstance(value, dict) else value

    def _guessed(self, kind: str) -> Any:
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            if kind.endswith("urlencoded"):
                return dict(parse_qsl(self.text, keep_blank_values=True))
            return {"body": self.text}

    def param(self, name: str, default: Any = None) -> Any:
        found = self.params
        return found.get(name, default) if isinstance(found, dict) else default


class Response:
    """An answer: text, bytes, anything that JSON can hold, or an iterable of pieces that are sent as they come."""

    def __init__(
        self,
        body: Any = b"",
        content_type: str | None = None,
        http_status: int | HTTPStatus = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.body = body
        self.content_type = content_type
        self.http_status = int(http_status)
        self.headers = dict(headers or {})


class Invoke:
    """Let another function answer, with these parameters. It must be among the function's `invokes`."""

    def __init__(self, name: str, params: Any = None) -> None:
        self.name = name
        self.params = {} if params is None else params


class CloudEvent:
    """An event as cloudevents.io has it: its attributes, and `data` (decoded if it is JSON)."""

    def __init__(self, attributes: Mapping[str, Any], data: Any = None) -> None:
        self.attributes = {"specversion": "1.0", **attributes}
        self.data = data

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self.__dict__.get("attributes", {}):
            raise AttributeError(name)
        return self.attributes[name]


class Context:
    """The second argument of `handler(event, context)`, with the names that such handlers know."""

    def __init__(self, request: Request, function: str, namespace: str, revision: str, deadline: float) -> None:
        self.request = request
        self.function_name = function
        self.function_version = revision
        self.namespace = namespace
        self.aws_request_id = self.call_id = request.call_id
        self.invoked_function_arn = f"{namespace}/{function}"
        self.deadline = deadline  # time.monotonic()

    @property
    def traceparent(self) -> str:
        return self.request.headers.get("traceparent", "")

    def get_remaining_time_in_millis(self) -> int:
        import time

        return max(0, int((self.deadline - time.monotonic()) * 1000))
