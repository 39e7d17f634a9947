"""Asynchronous calls, cron triggers and workflows' functions on a whole cluster in memory, with a real HTTP gateway."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from minik8s.api.errors import (
    BadRequest,
    Invalid,
    NotFound,
    RequestEntityTooLarge,
    StatusError,
    TooManyRequests,
    from_status,
)
from minik8s.api.kinds.event import Event
from minik8s.api.kinds.function import RESOURCE, Function
from minik8s.api.kinds.trigger import Trigger
from minik8s.apiserver.auth import AUTHENTICATED, MASTERS, User
from minik8s.apiserver.request import ApiRequest
from minik8s.clock import parse_time, rfc3339
from minik8s.config import Config
from minik8s.faas.queue.queue import ENVELOPE, Call, Envelope
from minik8s.roles.identity import master_identity, server_context
from minik8s.testing import Cluster, cluster
from tests.faas.queue.gateway import Gateway, Raised, define

Json = dict[str, Any]
BASE = RESOURCE.base_path("default")
ADMIN = User("test", (MASTERS, AUTHENTICATED))


@pytest_asyncio.fixture
async def it() -> AsyncIterator[Cluster]:
    async with cluster(workflow_http_allow="127.0.0.0/8") as made:
        yield made


@pytest_asyncio.fixture
async def gateway(it: Cluster) -> AsyncIterator[Gateway]:
    made = Gateway()
    async with made.listening():
        await made.at(it)
        yield made


async def ask(
    it: Cluster, method: str, path: str, body: bytes = b"", headers: Json | None = None, **query: str
) -> Json:
    """As over HTTP; raises StatusError."""
    answer = await it.master.handler.handle(ApiRequest(method, f"{BASE}/{path}", query, headers or {}, body, ADMIN))
    told: Json = msgspec.json.decode(answer.body)
    if answer.code >= 400:
        raise from_status(told, code=answer.code)
    return told | {"code": answer.code}


async def call(it: Cluster, name: str, body: bytes = b"", **headers: str) -> str:
    return str((await ask(it, "POST", f"{name}/calls", body, headers))["id"])


async def stands(it: Cluster, name: str, id: str, phase: str) -> Json:
    async with asyncio.timeout(10):
        while True:
            status: Json = (await ask(it, "GET", f"{name}/calls/{id}"))["status"]
            if status["phase"] == phase:
                return status
            await asyncio.sleep(0.005)


async def test_a_call_and_its_result(it: Cluster, gateway: Gateway) -> None:
    gateway.functions["double"] = lambda n: {"twice": n * 2}
    await define(it, "double")
    told = await ask(it, "POST", "double/calls", b"21", {"content-type": "application/json", "traceparent": "00-t",
                                                        "authorization": "Bearer secret"})  # fmt: skip
    assert told["code"] == 202
    assert told["url"] == f"{BASE}/double/calls/{told['id']}"
    status = await stands(it, "double", told["id"], "Succeeded")
    assert status["body"] == {"twice": 42}
    assert (status["code"], status["attempts"]) == (200, 1)
    ((method, path, headers, body),) = gateway.requests
    assert (method, path, body) == ("POST", "/function/default/double", b"21")
    assert (headers["minik8s-call"], headers["idempotency-key"]) == (told["id"], told["id"])
    assert headers["traceparent"] == "00-t"
    assert "authorization" not in headers  # it was for the API server


async def test_an_envelope_is_the_whole_request(it: Cluster, gateway: Gateway) -> None:
    gateway.functions["f"] = lambda _: web.Response(body=b"\xff\x00", content_type="image/x")
    await define(it, "f")
    given = Envelope("PUT", "/a%20b/c?x=%2F", {"X-Mine": "1", "content-type": "text/x", "Prefer": "respond-async",
                                              "host": "h", "connection": "x"}, b"\x00\x01", "k")  # fmt: skip
    data = msgspec.json.encode(given)
    id = await call(it, "f", data, **{"content-type": ENVELOPE})
    assert await call(it, "f", data, **{"content-type": ENVELOPE}) == id
    status = await stands(it, "f", id, "Succeeded")
    assert base64.b64decode(status["bodyBase64"]) == b"\xff\x00"
    ((method, path, headers, body),) = gateway.requests
    assert (method, path, body) == ("PUT", "/function/default/f/a%20b/c?x=%2F", b"\x00\x01")
    assert (headers["x-mine"], headers["content-type"], headers["idempotency-key"]) == ("1", "text/x", "k")
    assert "prefer" not in headers
    assert headers["host"] != "h"


@pytest.mark.parametrize(
    ("envelope", "text"),
    [(Envelope(path="/../g"), "path:"), (Envelope(path="x"), "path:"), (Envelope(path="/a b"), "path:"),
     (Envelope(method="G T"), "method:"), (Envelope(headers={"a b": "c"}), "headers:"),
     (Envelope(headers={"a": "b\r\nc: d"}), "headers:"), (Envelope(key="ä"), "Idempotency-Key:"),
     (Envelope(callbackUrl="ftp://x"), "X-Callback-Url:"), (Envelope(callbackUrl="http://"), "X-Callback-Url:")],
)  # fmt: skip
async def test_what_cannot_be_a_call_is_refused(it: Cluster, envelope: Envelope, text: str) -> None:
    await define(it, "f")
    with pytest.raises(BadRequest, match=text):
        await call(it, "f", msgspec.json.encode(envelope), **{"content-type": ENVELOPE})


async def test_what_is_not_there_or_too_large(it: Cluster) -> None:
    with pytest.raises(NotFound):
        await call(it, "never")
    await define(it, "f")
    with pytest.raises(RequestEntityTooLarge, match="1048576"):
        await call(it, "f", b"x" * (2**20 + 1))
    with pytest.raises(BadRequest, match="cannot be read"):
        await call(it, "f", b"{", **{"content-type": ENVELOPE})
    with pytest.raises(NotFound, match="any more"):
        await ask(it, "GET", "f/calls/123")
    with pytest.raises(BadRequest, match="ids:"):
        await ask(it, "POST", "f/deadletters", b'{"ids": "a"}')


@pytest.mark.parametrize("limit", ["MOST", "MOST_BYTES"])
async def test_a_full_queue_says_when_to_come_again(it: Cluster, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(f"minik8s.faas.queue.api.{limit}", 2)
    await define(it, "f")
    for _ in range(3 if limit == "MOST_BYTES" else 2):
        await call(it, "f", b"1")
    with pytest.raises(TooManyRequests) as refused:
        await call(it, "f", b"1")
    assert refused.value.retry_after == 10


async def test_a_key_makes_one_call_of_many(it: Cluster, gateway: Gateway) -> None:
    gateway.functions["f"] = lambda p: p
    await define(it, "f")
    ids = await asyncio.gather(*(call(it, "f", b"1", **{"idempotency-key": "order-7"}) for _ in range(20)))
    assert len(set(ids)) == 1
    await stands(it, "f", ids[0], "Succeeded")
    assert len(gateway.requests) == 1


async def test_what_is_given_up_is_a_dead_letter(it: Cluster, gateway: Gateway) -> None:
    def broken(payload: Any) -> Any:
        raise Raised("ValueError", f"not {payload}")

    gateway.functions["f"] = broken
    await define(it, "f", **{"async": {"maxAttempts": 1}})
    ids = [await call(it, "f", b"%d" % number) for number in range(3)]
    for id in ids:
        await stands(it, "f", id, "DeadLetter")
    page = await ask(it, "GET", "f/deadletters", limit="2")
    rest = await ask(it, "GET", "f/deadletters", **{"continue": page["metadata"]["continue"]})
    shown = [*page["items"], *rest["items"]]
    assert sorted(each["metadata"]["name"] for each in shown) == sorted(ids)
    assert shown[0]["status"]["error"] == "ValueError"
    assert shown[0]["status"]["cause"].startswith("not ")
    event = await it.until(Event, lambda each: each.reason == "CallGivenUp")
    assert "ValueError: not" in event.message
    gateway.functions["f"] = lambda payload: payload
    assert (await ask(it, "POST", "f/deadletters", msgspec.json.encode({"ids": ids[:1]})))["redriven"] == 1
    assert (await stands(it, "f", ids[0], "Succeeded"))["body"] == 0
    assert (await ask(it, "DELETE", "f/deadletters", id=ids[1]))["purged"] == 1
    assert (await ask(it, "POST", "f/deadletters"))["redriven"] == 1
    assert (await stands(it, "f", ids[2], "Succeeded"))["body"] == 2
    assert (await ask(it, "GET", "f/deadletters"))["items"] == []


async def test_destinations_and_callbacks(it: Cluster, gateway: Gateway) -> None:
    gateway.functions |= {"f": lambda p: {"sum": p}, "log": lambda p: None}
    await define(it, "log")
    await define(it, "f", **{"async": {"onSuccess": {"function": "log"}}})
    id = await call(it, "f", b"5", **{"x-callback-url": f"{gateway.url}/x/y/log"})
    async with asyncio.timeout(10):
        while len(gateway.requests) < 3:
            await asyncio.sleep(0.005)
    told = {path: (headers, body) for _, path, headers, body in gateway.requests}
    notice = msgspec.json.decode(told["/function/default/log"][1])
    assert (notice["requestContext"]["requestId"], notice["responsePayload"]) == (id, {"sum": 5})
    headers, body = told["/x/y/log"]
    assert (headers["minik8s-call"], headers["minik8s-status"], msgspec.json.decode(body)) == (id, "200", {"sum": 5})


async def test_a_callback_may_not_reach_the_master_itself() -> None:
    gateway = Gateway(f=lambda p: p)
    async with cluster() as it, gateway.listening():
        await gateway.at(it)
        await define(it, "f")
        await call(it, "f", b"5", **{"x-callback-url": f"{gateway.url}/function/default/f"})
        event = await it.until(Event, lambda each: each.reason == "CallGivenUp")
        assert "is an address of the master" in event.message
        assert len(gateway.requests) == 1


async def test_calls_wait_until_the_function_is_ready(it: Cluster, gateway: Gateway) -> None:
    await define(it, "f")
    id = await call(it, "f", b"1")
    async with asyncio.timeout(5):
        while not gateway.requests:
            await asyncio.sleep(0.005)
    assert it.master.calls is not None
    assert it.master.calls.waiting("default/f") == 1
    gateway.functions["f"] = lambda p: p
    assert (await stands(it, "f", id, "Succeeded"))["attempts"] == 1


async def test_a_deleted_function_takes_its_calls_with_it(it: Cluster, gateway: Gateway) -> None:
    await define(it, "f")
    await call(it, "f", b"1")
    assert it.master.calls is not None
    queue = it.master.calls.dispatcher.queue
    await it.client.delete(Function, "f", "default")
    async with asyncio.timeout(5):
        while await queue.functions():
            await asyncio.sleep(0.005)
    assert queue.waiting() == {}


# -- triggers


def trigger(name: str, **spec: Any) -> Json:
    return {"metadata": {"name": name}, "spec": {"function": "f", **spec}}


async def accepted(it: Cluster, name: str, reason: str) -> Trigger:
    return await it.until(Trigger, lambda each: each.metadata.name == name and any(
        c.type == "Accepted" and c.reason == reason for c in each.status.conditions))  # fmt: skip


async def test_of_two_for_one_path_the_older_has_it(it: Cluster) -> None:
    await define(it, "f")
    first = {"http": {"method": "get", "path": "/x"}}
    await it.client.create(Trigger, trigger("a", **first), "default")
    await accepted(it, "a", "Accepted")
    await it.client.create(Trigger, trigger("b", **first), "default")
    told = await accepted(it, "b", "Conflict")
    assert told.status.conditions[0].message == "GET /x is the older Trigger default/a's"
    await it.client.create(Trigger, trigger("c", http={"path": "/x"}), "default")
    await accepted(it, "c", "Accepted")  # any other method
    await it.client.delete(Trigger, "a", "default")
    await accepted(it, "b", "Accepted")
    await it.client.delete(Function, "f", "default")
    await accepted(it, "b", "FunctionNotFound")
    await define(it, "f")
    await accepted(it, "b", "Accepted")


@pytest.mark.parametrize(
    ("cron", "field"),
    [({"schedule": "0 0 30 2 *"}, "schedule"), ({"schedule": "@daily", "timeZone": "Mars/Olympus"}, "timeZone")],
)
async def test_what_never_comes_is_refused(it: Cluster, cron: Json, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        await it.client.create(Trigger, trigger("t", cron=cron), "default")
    assert [cause["field"] for cause in refused.value.details["causes"]] == [f"spec.cron.{field}"]


async def test_the_clock_calls_and_makes_up_for_one_missed_time(it: Cluster, gateway: Gateway) -> None:
    assert it.master.calls is not None
    dispatcher = it.master.calls.dispatcher
    offset = 0.0
    real = dispatcher.clock
    dispatcher.clock = lambda: real() + offset
    gateway.functions["f"] = lambda p: p
    await define(it, "f")
    made = await it.client.create(
        Trigger, trigger("t", cron={"schedule": "0 * * * *", "payload": {"n": None}}), "default"
    )
    waiting = await accepted(it, "t", "Accepted")
    begun = parse_time(made.metadata.creationTimestamp)
    if waiting.status.lastScheduleTime:  # the full hour was just now
        gateway.requests.clear()
    offset = 86_400.0  # a day passes in which nobody looked
    await it.client.patch(Trigger, "t", "default", {"spec": {"cron": {"payload": {"n": 1}}}})
    done = await it.until(Trigger, lambda each: parse_time(each.status.lastScheduleTime) > begun + 80_000)
    assert done.status.lastScheduleTime == rfc3339((real() + offset) // 3600 * 3600)
    async with asyncio.timeout(5):
        while not gateway.requests:
            await asyncio.sleep(0.005)
    ((_, path, headers, body),) = gateway.requests
    assert (path, body) == ("/function/default/f", b'{"n":1}')
    assert (headers["minik8s-trigger"], headers["minik8s-schedule-time"]) == ("t", done.status.lastScheduleTime)


# -- workflows


async def run(it: Cluster, resource: str, payload: Any) -> Any:
    from minik8s.api.kinds.workflow import Workflow
    from minik8s.api.kinds.workflowrun import ENDED, WorkflowRun

    definition = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": resource, "End": True}}}
    await it.client.create(Workflow, {"metadata": {"name": "w"}, "spec": {"definition": definition}}, "default")
    body = {"metadata": {"name": "r"}, "spec": {"workflowRef": {"name": "w"}, "input": payload}}
    await it.client.create(WorkflowRun, body, "default")
    return (await it.until(WorkflowRun, lambda each: each.status.phase in ENDED)).status


async def test_a_workflow_calls_functions(it: Cluster, gateway: Gateway) -> None:
    gateway.functions["add-five"] = lambda p: {"x": p["x"] + 5}
    await define(it, "add-five")
    status = await run(it, "add_Five", {"x": 5})
    assert (status.phase, status.output) == ("Succeeded", {"x": 10})
    headers = gateway.requests[0][2]
    assert headers["idempotency-key"] == headers["minik8s-call"]


async def test_a_hop_asks_for_an_invoke_and_gets_it(it: Cluster, gateway: Gateway) -> None:
    gateway.functions["f"] = lambda p: web.json_response({"n": p["n"]}, headers={"Minik8s-Invoke": "g"})
    await define(it, "f")
    status = await run(it, "invoke:f", {"params": {"n": 1}, "to": ["g"]})
    assert (status.phase, status.output) == ("Succeeded", {"next": "g", "params": {"n": 1}, "chain": ["f"]})
    assert gateway.requests[0][2]["minik8s-invoke"] == "return"


async def test_an_exception_has_its_name_in_the_run(it: Cluster, gateway: Gateway) -> None:
    def broken(payload: Any) -> Any:
        raise Raised("NoRoom", "the hotel is full")

    gateway.functions["hotel"] = broken
    await define(it, "hotel")
    status = await run(it, "hotel", {})
    assert (status.phase, status.error) == ("Failed", "NoRoom")
    assert msgspec.json.decode(status.cause) == {
        "errorMessage": "the hotel is full", "errorType": "NoRoom", "stackTrace": ["Traceback:", "  line"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "error"),
    [(web.Response(status=503, headers={"Minik8s-Error": "LoadError"}, text="no"), "Function.LoadError"),
     (web.Response(status=418, text="tea"), "Function.StatusCode.418"),
     (web.Response(text="x" * 300_000), "States.DataLimitExceeded")],
)  # fmt: skip
async def test_other_failures_have_names(it: Cluster, gateway: Gateway, answer: web.Response, error: str) -> None:
    gateway.functions["f"] = lambda p: answer
    await define(it, "f")
    assert (await run(it, "f", {})).error == error


async def test_a_function_that_is_not_there(it: Cluster) -> None:
    status = await run(it, "other/never", {})
    assert status.error == "Function.NotFound"
    assert 'no function "never" in the namespace "other"' in status.cause


async def test_a_gateway_that_is_not_there_is_waited_for(it: Cluster, gateway: Gateway) -> None:
    good, gateway.url = gateway.url, "http://127.0.0.1:1"
    await gateway.at(it)
    gateway.functions["f"] = lambda p: p
    await define(it, "f")
    running = asyncio.create_task(run(it, "f", 7))
    await asyncio.sleep(0.1)
    gateway.url = good
    await gateway.at(it)
    assert (await running).output == 7


async def test_a_gateway_that_speaks_tls(it: Cluster) -> None:
    gateway = Gateway(f=lambda p: p)
    identity = it.master.identity
    async with gateway.listening(server_context(identity.serving, identity.ca_file)):
        await gateway.at(it)
        await define(it, "f")
        assert (await run(it, "f", 7)).output == 7


async def test_a_gateway_that_is_somebody_else(it: Cluster, tmp_path: Path) -> None:
    """Whose certificate is of another authority: nothing is sent to it."""
    gateway = Gateway(f=lambda p: p)
    strange = master_identity(Config(data_dir=tmp_path, node_ip="127.0.0.1"))
    async with gateway.listening(server_context(strange.serving, strange.ca_file)):
        await gateway.at(it)
        await define(it, "f")
        id = await call(it, "f", b"1")
        assert it.master.calls is not None
        answer = await it.master.calls.functions.make(Call(id, "default/f", 0.0))
        assert "certificate" in answer.cause
        assert (answer.not_run, gateway.requests) == (True, [])


async def test_who_may_not(it: Cluster) -> None:
    await define(it, "f")
    stranger = it.master.client(User("stranger", (AUTHENTICATED,)))
    for method, path in (("POST", "f/calls"), ("GET", "f/deadletters"), ("GET", "f/calls/x")):
        with pytest.raises(StatusError, match="forbidden"):
            await stranger.transport.request(method, f"{BASE}/{path}")
    node = it.master.client(User("system:node:node", ("system:nodes", AUTHENTICATED)))
    assert msgspec.json.decode(await node.transport.request("POST", f"{BASE}/f/calls", body=b"1"))["id"]
