"""HTTP tasks against a real server: what is asked, what comes back, what goes wrong, and where they may not go."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from minik8s.aio import background
from minik8s.faas.egress import Egress, networks
from minik8s.faas.http_task import HttpTasks
from minik8s.faas.outbound import Outbound
from minik8s.faas.workflow.errors import StateError


async def answer(request: web.Request) -> web.StreamResponse:
    path = request.path
    if path == "/fail":
        return web.Response(status=503, text="no room")
    if path == "/away":
        return web.Response(status=302, headers={"Location": "/echo"})
    if path == "/huge":
        return web.Response(body=b"x" * 300_000)
    if path == "/text":
        return web.Response(text="plain")
    told = {
        "method": request.method,
        "query": dict(request.query),
        "key": request.headers["Idempotency-Key"],
        "mine": request.headers.get("X-Mine", ""),
        "body": json.loads(await request.text() or "null"),
    }
    return web.json_response(told)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest_asyncio.fixture
async def tasks() -> AsyncIterator[HttpTasks]:
    outbound = Outbound(
        Egress(allowed=networks("127.0.0.1/32")), lambda ns, name: "127.0.0.1" if (ns, name) == ("shop", "web") else ""
    )
    async with background(outbound.run()):
        yield HttpTasks(outbound)


async def failure(tasks: HttpTasks, url: str, parameters: Any = None) -> StateError:
    with pytest.raises(StateError) as caught:
        await tasks.perform(url, parameters, "k")
    return caught.value


async def test_any_input_is_posted(server: str, tasks: HttpTasks) -> None:
    told = await tasks.perform(f"{server}/echo", {"x": [1, None]}, "uid-3")
    assert told == {"method": "POST", "query": {}, "key": "uid-3", "mine": "", "body": {"x": [1, None]}}


async def test_a_request_as_it_is_described(server: str, tasks: HttpTasks) -> None:
    asked = {"Method": "PUT", "Headers": {"X-Mine": "a", "Idempotency-Key": "forged"}, "QueryParameters": {"q": 1},
             "RequestBody": "b"}  # fmt: skip
    told = await tasks.perform(f"{server}/echo", asked, "k")
    assert told["StatusCode"] == 200
    assert told["Headers"]["content-type"].startswith("application/json")
    assert told["ResponseBody"] == {"method": "PUT", "query": {"q": "1"}, "key": "k", "mine": "a", "body": "b"}
    assert await tasks.perform(f"{server}/text", {"Method": "GET"}, "k") | {"Headers": {}} == {
        "StatusCode": 200, "Headers": {}, "ResponseBody": "plain",
    }  # fmt: skip


async def test_names_of_services(server: str, tasks: HttpTasks) -> None:
    port = server.rpartition(":")[2]
    assert (await tasks.perform(f"http://web.shop.svc.cluster.local:{port}/echo", 1, "k"))["body"] == 1


async def test_failures_have_names(server: str, tasks: HttpTasks) -> None:
    error = await failure(tasks, f"{server}/fail")
    assert (error.error, error.cause) == ("States.Http.StatusCode.503", "no room")
    assert (await failure(tasks, f"{server}/away")).error == "States.Http.StatusCode.302"  # not followed
    assert (await failure(tasks, f"{server}/huge")).error == "States.DataLimitExceeded"
    assert (await failure(tasks, "http://127.0.0.1:1/")).error == "States.Http.Socket"
    assert (await failure(tasks, "http://nowhere.invalid/")).error == "States.Http.Socket"
    assert (await failure(tasks, f"{server}/echo", {"Method": "BREW"})).error == "States.Runtime"
    assert (await failure(tasks, f"{server}/echo", {"Method": "GET", "Boddy": 1})).error == "States.Runtime"
    assert (await failure(tasks, f"{server}/echo", {"Headers": {"a": "b\nc"}})).error == "States.Http.Socket"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2/", "http://[::1]/", "http://169.254.169.254/latest", "http://localhost:1/",
            "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/", "http://10.9.8.7/"],
)  # fmt: skip
async def test_the_master_itself_is_out_of_bounds(url: str) -> None:
    outbound = Outbound(Egress(own=["10.9.8.7"]))
    async with background(outbound.run()):
        assert (await failure(HttpTasks(outbound), url)).error == "States.Permissions"


@pytest.mark.parametrize("address", ["10.244.0.5", "192.0.2.1", "2001:db8::1"])
def test_the_rest_of_the_world_is_free(address: str) -> None:
    assert Egress(own=["10.9.8.7"]).refusal(address) == ""
