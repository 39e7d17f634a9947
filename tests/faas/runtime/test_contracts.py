"""Which programming model is meant, what code is given, and what becomes of what it returns."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest

from minik8s.faas.runtime.answers import InvokeNotDeclared, NotHeld, call, failure, read_event, render, traceback_of
from minik8s.faas.runtime.contracts import Contract, LoadError, contract_of, find_callable, find_module
from minik8s.faas.runtime.serverless import BadParameters, CloudEvent, Invoke, Request, Response
from minik8s.faas.runtime.settings import BadSettings, Settings, read_settings

SETTINGS = Settings("f-00001", "f", "default", invokes=("add", "mul_two"))


def main(params): ...
def nothing(): ...
def optional(params=None): ...
def run(**params): ...
def add(x, y): ...
def keyword(*, x): ...
def action(req): ...
def annotated(what: Request): ...
def handler(event, context): ...
def alone(event): ...
def event(cloudevent): ...
def typed(e: CloudEvent): ...
async def wait(params): ...
async def pieces(params):
    yield 1


async def asgi(scope, receive, send): ...
def wsgi(environ, start_response): ...


class Asgi:
    async def __call__(self, scope, receive, send): ...


class Wsgi:
    def __call__(self, environ, start_response): ...


@pytest.mark.parametrize(
    ("code", "name", "takes", "asynchronous"),
    [
        (main, "main", 1, False),
        (nothing, "main", 0, False),
        (optional, "main", 1, False),
        (run, "main", None, False),
        (add, "main", None, False),
        (keyword, "main", None, False),
        (action, "action", 1, False),
        (annotated, "action", 1, False),
        (handler, "handler", 2, False),
        (alone, "handler", 1, False),
        (event, "cloudevent", 1, False),
        (typed, "cloudevent", 1, False),
        (wait, "main", 1, True),
        (pieces, "main", 1, True),
        (asgi, "asgi", 3, True),
        (Asgi(), "asgi", 3, True),
        (wsgi, "wsgi", 2, False),
        (Wsgi(), "wsgi", 2, False),
        (functools.partial(handler, context=None), "handler", 1, False),
        (dict, "main", 1, False),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:12],
)
def test_signatures(code: Any, name: str, takes: int | None, asynchronous: bool) -> None:
    found = contract_of(code)
    assert (found.name, found.takes, found.asynchronous) == (name, takes, asynchronous)


def test_run_is_called_by_keyword() -> None:
    def run(text: str, limit: int = 3) -> None: ...

    assert contract_of(run).takes is None

    def run(params: Any) -> None: ...  # type: ignore[no-redef]

    assert contract_of(run).takes == 1


def test_which_module(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="none"):
        find_module(tmp_path)
    (tmp_path / "only.py").touch()
    assert find_module(tmp_path) == "only"
    (tmp_path / "other.py").touch()
    with pytest.raises(LoadError, match=r"only.py, other.py"):
        find_module(tmp_path)
    (tmp_path / "index.py").touch()
    assert find_module(tmp_path) == "index"
    (tmp_path / "func").mkdir()
    (tmp_path / "func" / "__init__.py").touch()
    assert find_module(tmp_path) == "func"


def test_which_callable() -> None:
    import json as module

    assert find_callable(module, "dumps") is module.dumps
    assert find_callable(module, "JSONEncoder.encode") is module.JSONEncoder.encode
    for name, text in (("nosuch", "has no 'nosuch'"), ("__doc__", "cannot be called"), ("", "module:name")):
        with pytest.raises(LoadError, match=text):
            find_callable(module, name)


def request(body: bytes = b"", kind: str = "", target: bytes = b"/p%20q?x=1&y=2&y=3", **headers: str) -> Request:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request("POST", target, given + ([(b"content-type", kind.encode())] if kind else []), body, "call-1")


@pytest.mark.parametrize(
    ("asked", "params"),
    [
        (request(), {"x": "1", "y": "3"}),
        (request(b'{"x": 5}', "application/json"), {"x": 5, "y": "3"}),
        (request(b"[1, 2]", "application/json; charset=utf-8"), [1, 2]),
        (request(b'{"x": 5}', "application/x-www-form-urlencoded", b"/"), {"x": 5}),  # what curl -d says
        (request(b"x=5&z=a+b", "application/x-www-form-urlencoded", b"/"), {"x": "5", "z": "a b"}),
        (request(b"words", "text/plain", b"/"), {"body": "words"}),
        (request(b"\xff", "image/png", b"/"), {"body": b"\xff"}),
        (request(b"", "application/json", b"/"), {}),
        (request(b"{", "", b"/"), {"body": "{"}),
    ],
)
def test_parameters(asked: Request, params: Any) -> None:
    assert asked.params == params


def test_a_request_as_code_sees_it() -> None:
    asked = request(b'{"x": 5}', "application/json")
    assert (asked.path, asked.method, asked.query["y"]) == ("/p q", "POST", ["2", "3"])
    assert (asked.param("x"), asked.param("y"), asked.param("z", 9), asked.json) == (5, "3", 9, {"x": 5})
    assert asked.headers["content-TYPE"] == "application/json"
    with pytest.raises(BadParameters, match="not JSON"):
        _ = request(b"{", "application/json").params
    assert request(b"[" * 100_000, "application/json").param  # no call yet
    with pytest.raises(BadParameters):
        _ = request(b"[" * 100_000, "application/json").json


def test_what_code_is_given() -> None:
    def told(code: Any, asked: Request) -> Any:
        return call(contract_of(code), SETTINGS, asked, 1.0)

    asked = request(b'{"x": 5}', "application/json", b"/")
    assert told(lambda params: params, asked) == {"x": 5}
    assert told(lambda **named: named, asked) == {"x": 5}
    assert told(lambda: 7, asked) == 7
    event, context = told(lambda event, context: (event, context), asked)
    assert (event, context.function_name, context.function_version) == ({"x": 5}, "f", "f-00001")
    assert context.aws_request_id == "call-1"
    assert context.get_remaining_time_in_millis() == 0
    with pytest.raises(BadParameters, match="passed by name"):
        told(lambda **named: named, request(b"[1]", "application/json"))


def test_events() -> None:
    binary = read_event(request(b'{"x": 1}', "application/json", ce_specversion="1.0", ce_type="t", ce_id="1"))
    assert (binary["type"], binary.id, binary.data["x"], binary.get("datacontenttype")) == (
        "t", "1", 1, "application/json",
    )  # fmt: skip
    body = b'{"specversion": "1.0", "type": "t", "id": "2", "source": "s", "data_base64": "aGk="}'
    structured = read_event(request(body, "application/cloudevents+json"))
    assert (structured.type, structured.source, structured.data) == ("t", "s", b"hi")
    assert read_event(request(b"a", "text/plain")).data == "a"
    assert read_event(request()).type == "http"
    with pytest.raises(BadParameters):
        read_event(request(b"[]", "application/cloudevents+json"))
    with pytest.raises(AttributeError):
        _ = binary.nosuch


@pytest.mark.parametrize(
    ("result", "status", "kind", "body"),
    [
        ({"a": [1, "ü"]}, 200, "application/json", '{"a":[1,"ü"]}'.encode()),
        (None, 200, "application/json", b"null"),
        ("text", 200, "text/plain; charset=utf-8", b"text"),
        (b"\0", 200, "application/octet-stream", b"\0"),
        (Response("no", http_status=404), 404, "text/plain; charset=utf-8", b"no"),
        (Response({"a": 1}, headers={"X": "y"}), 200, "application/json", b'{"a":1}'),
        (Response("<p>", content_type="text/html"), 200, "text/html", b"<p>"),
        ({"statusCode": 201, "body": "b", "headers": {"Content-Type": "x/y"}}, 201, "x/y", b"b"),
        ({"statusCode": 200, "body": "aGk=", "isBase64Encoded": True}, 200, "application/octet-stream", b"hi"),
        (Invoke("mul-two", {"x": 1}), 200, "application/json", b'{"x":1}'),
        (CloudEvent({"type": "t", "source": "s"}, {"x": 1}), 200, "application/json", b'{"x":1}'),
    ],
)
def test_results(result: Any, status: int, kind: str, body: bytes) -> None:
    answer = render(result, Contract("handler", main, 1, False), SETTINGS)
    assert (answer.status, answer.body) == (status, body)
    assert {name.lower(): value for name, value in answer.headers}[b"content-type"] == kind.encode()


def test_an_event_is_answered_in_binary_mode() -> None:
    answer = render(CloudEvent({"type": "t", "source": "s", "id": "1"}, "d"), contract_of(event), SETTINGS)
    assert (b"ce-type", b"t") in answer.headers
    assert (b"ce-specversion", b"1.0") in answer.headers
    assert render(None, contract_of(event), SETTINGS).status == 204


def test_invoke_names_its_target_as_functions_are_called() -> None:
    assert (b"minik8s-invoke", b"mul-two") in render(Invoke("Mul_Two"), contract_of(main), SETTINGS).headers
    with pytest.raises(InvokeNotDeclared, match="'other'"):
        render(Invoke("other"), contract_of(main), SETTINGS)


def circle() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    "result", [object(), {1, 2}, math.nan, circle(), {"a": b"x"}, "\ud800" * 2 and {"a": "\ud800"}]
)
def test_what_json_cannot_hold(result: Any) -> None:
    with pytest.raises(NotHeld, match="JSON cannot hold"):
        render(result, contract_of(main), SETTINGS)


def test_errors_of_errors() -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert failure(Nasty()).status == 500
    assert failure(BadParameters("x")).status == 400
    deep = RecursionError("x" * 20_000)
    assert len(traceback_of(deep).encode()) <= 8 * 2**10


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"{", "not JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "revision"),
        (b'{"revision": 1}', "revision: 1 is of the wrong type"),
        (b'{"revision": "a", "env": {"a": 1}}', "env"),
        (b'{"revision": "a", "timeoutSeconds": 0}', "timeoutSeconds: 0 must be a positive number"),
        (b'{"revision": "a", "workers": 1.5}', "workers: 1.5"),
        (b'{"revision": "a", "concurrency": true}', "concurrency"),
    ],
)
def test_bad_settings(text: bytes, fault: str) -> None:
    with pytest.raises(BadSettings, match=fault):
        read_settings(text)


def test_settings() -> None:
    read = read_settings(b'{"revision": "a", "maxBodyBytes": 5, "env": {"A": "b"}, "invokes": ["x"], "later": 1}')
    assert read == Settings("a", env={"A": "b"}, max_body_bytes=5, invokes=("x",))
