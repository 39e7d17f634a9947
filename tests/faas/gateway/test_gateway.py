"""The gateway before pods that are HTTP servers: every promise that it makes to clients, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from minik8s.api.errors import Conflict
from minik8s.api.kinds.function import LABEL, Function
from minik8s.api.kinds.functionrevision import FunctionRevision
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod as PodObject
from minik8s.api.kinds.trigger import Trigger
from minik8s.faas.gateway import view
from tests.faas.gateway.site import site


async def test_a_call_reaches_the_function_with_path_query_headers_and_body() -> None:
    async with site() as it:
        await it.simple()
        code, said, headers = await it.call("/function/default/f/a/b?x=1&y=%20", data="hello", headers={"X-Own": "z"})
        assert code == 200
        assert said["path"] == "/a/b?x=1&y=%20"
        assert (said["method"], said["body"], said["headers"]["X-Own"]) == ("POST", "hello", "z")
        assert said["headers"]["X-Forwarded-For"] == "127.0.0.1"
        assert said["headers"]["Minik8s-Revision"] == "f-00001"
        assert headers["X-Custom"] == "yes"
        assert headers["Minik8s-Call"] == said["headers"]["Minik8s-Call"]
        assert (await it.call("/function/default/f", "GET"))[1]["path"] == "/"
        assert len(it.pods["f-0"].puts) == 1  # the code went there once
        assert len({request.transport for request in it.pods["f-0"].calls}) == 1  # over one connection


async def test_what_a_client_says_of_us_is_not_believed() -> None:
    async with site() as it:
        await it.simple()
        forged = {"Minik8s-Revision": "other", "Minik8s-Invoke": "x", "Connection": "x-private", "X-Private": "1"}
        _, said, _ = await it.call(headers=forged)
        assert said["headers"]["Minik8s-Revision"] == "f-00001"
        assert not {"X-Private", "Minik8s-Invoke"} & said["headers"].keys()
        _, said, headers = await it.call(headers={"Minik8s-Call": "my-own-1"})
        assert said["headers"]["Minik8s-Call"] == headers["Minik8s-Call"] == "my-own-1"


async def test_unknown_functions_are_told_with_names_alike() -> None:
    async with site() as it:
        await it.simple("hello")
        code, said, headers = await it.call("/function/default/helo")
        assert (code, headers["Minik8s-Error"]) == (404, "NotFound")
        assert "did you mean 'hello'" in said["message"]
        code, said, _ = await it.call("/function/defalt/hello")
        assert "did you mean 'default'" in said["message"]
        assert (await it.call("/nothing"))[0] == 404
        assert (await it.call("/healthz", "GET"))[:2] == (200, {"status": "ok"})


async def test_triggers_lead_to_functions() -> None:
    async with site() as it:
        await it.simple()
        for name, http in (("a", {"path": "/hello", "method": "GET"}), ("b", {"path": "/shop/*"})):
            spec = {"function": "f", "http": http}
            await it.client.create(Trigger, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
        await it.until(lambda: it.gateway.view.routes.find("GET", "/shop/x")[0])
        assert (await it.call("/hello?a=1", "GET"))[1]["path"] == "/hello?a=1"
        assert (await it.call("/shop/cart/3", "PUT"))[1]["path"] == "/shop/cart/3"
        code, _, headers = await it.call("/hello", "POST")
        assert (code, headers["Allow"]) == (405, "GET")


async def test_traffic_is_shared_as_told_and_every_share_is_loaded() -> None:
    async def old(request: web.Request) -> web.Response:
        return web.Response(text="old")

    async def new(request: web.Request) -> web.Response:
        return web.Response(text="new")

    async with site(old=old, new=new) as it:
        await it.function("f")
        await it.revision("f", "old")
        await it.revision("f", "new", number=2)
        await it.traffic("f", v1=80, v2=20)
        await it.pod("f-0", "f")
        said = [(await it.call())[1] for _ in range(300)]
        assert 25 <= said.count(b"new") <= 110
        await it.traffic("f", v2=100)
        await it.until(lambda: it.gateway.view.targets["default/f"].shares == (("f-00002", 100),))
        assert {(await it.call())[1] for _ in range(20)} == {b"new"}


async def test_calls_wait_for_the_first_pod_and_the_scaler_is_told_at_once() -> None:
    async with site() as it:
        await it.simple(pods=0)
        calls = [asyncio.create_task(it.call()) for _ in range(5)]
        await it.asked.wait()
        (entry,) = it.demands[0]["functions"]["default/f"]
        assert it.demands[0]["gateway"] == "here"
        assert entry["waiting"] >= 1
        assert entry["shape"] == "s"
        await it.pod("f-0", "f")
        assert [(await call)[0] for call in calls] == [200] * 5
        shown = it.gateway.records.shown("default", "f")["items"]
        assert [each["cold"] for each in shown] == [True] * 5
        assert all(0 < each["waitSeconds"] + each["loadSeconds"] < each["seconds"] for each in shown)
        await it.until(lambda: it.demands[-1]["functions"]["default/f"][0]["concurrency"] == 0)  # the last, and silence


async def test_the_connection_that_brought_the_code_carries_the_call_that_waited_for_it() -> None:
    async with site() as it:
        await it.simple(pods=0)
        call = asyncio.create_task(it.call())
        await it.asked.wait()
        pod = await it.pod("f-0", "f")
        assert (await call)[0] == 200
        assert (await it.call())[0] == 200
        assert len(pod.ports) == 3
        assert len(set(pod.ports)) == 1


async def test_a_pod_that_does_not_listen_yet_is_tried_until_it_does() -> None:
    async with site() as it:
        await it.simple(pods=0)
        pod = await it.pod("f-0", "f", listening=False)
        call = asyncio.create_task(it.call())
        await it.until(lambda: it.gateway.view.targets["default/f"].busy)
        await asyncio.sleep(0.05)
        await pod.start()
        assert (await call)[0] == 200


async def test_a_promised_pod_is_called_before_it_carries_the_functions_label() -> None:
    async with site() as it:
        await it.simple(pods=0)
        pod = await it.pod("pooled", "")
        it.promises = [it.promise("pooled")]
        assert (await it.call())[0] == 200
        (replica,) = it.fleet().replicas.values()
        label = {"metadata": {"labels": {LABEL: "f"}}}
        claimed = await it.client.patch(PodObject, "pooled", "default", label)
        await it.gateway.view._pods.caught_up(claimed.metadata.resourceVersion)
        assert list(it.fleet().replicas.values()) == [replica]  # it keeps its connections, and what is loaded
        assert not it.gateway.view._expected  # it stays
        assert (await it.call())[0] == 200
        assert len(set(pod.ports)) == 1


async def test_a_promised_pod_that_becomes_somebody_elses_is_left() -> None:
    async with site() as it:
        await it.simple(pods=0)
        await it.pod("pooled", "")
        it.promises = [it.promise("pooled")]
        assert (await it.call())[0] == 200
        label = {"metadata": {"labels": {LABEL: "g"}}}
        await it.client.patch(PodObject, "pooled", "default", label)
        await it.until(lambda: not it.fleet().replicas)
        assert len(it.fleet("g").replicas) == 1


async def test_a_promise_that_is_not_kept_is_soon_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "KEPT", 0.05)
    async with site() as it:
        await it.simple(pods=0)
        await it.pod("pooled", "")
        it.promises = [it.promise("pooled")]
        assert (await it.call())[0] == 200
        it.promises = []
        await it.until(lambda: not it.fleet().replicas)
        label = {"metadata": {"labels": {LABEL: "f"}}}
        await it.client.patch(PodObject, "pooled", "default", label)
        assert (await it.call())[0] == 200


async def test_a_pod_that_does_not_take_code_now_is_asked_again() -> None:
    async with site() as it:
        await it.simple(pods=0)
        call = asyncio.create_task(it.call())
        await it.asked.wait()
        pod = await it.pod("f-0", "f", listening=False)
        pod.sulks = 3
        await pod.start()
        assert (await call)[0] == 200
        assert pod.sulks == 0


async def test_a_dead_pod_is_left_for_others_without_a_failed_call() -> None:
    async with site() as it:
        await it.simple(pods=2)
        for _ in range(4):
            assert (await it.call())[0] == 200
        await it.pods["f-0"].stop()
        assert {(await it.call())[0] for _ in range(50)} == {200}


async def test_draining_pods_are_left_and_their_calls_go_on() -> None:
    going = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await going.wait()
        return web.Response(text="done")

    async with site(slow=slow) as it:
        await it.simple(code="slow", pods=1)
        first = asyncio.create_task(it.call())
        await it.until(lambda: it.pods["f-0"].calls)
        await it.delete_pod("f-0")
        await it.pod("f-1", "f")
        await it.until(lambda: not it.gateway.view._places.get("default/f-0"))
        second = asyncio.create_task(it.call())
        await it.until(lambda: it.pods["f-1"].calls)
        going.set()
        assert (await first)[:2] == (await second)[:2] == (200, b"done")
        assert len(it.pods["f-0"].calls) == len(it.pods["f-1"].calls) == 1


async def test_a_pod_that_is_gone_fails_its_calls_at_once_and_only_those() -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with site(hang=hang) as it:
        await it.simple(code="hang")
        call = asyncio.create_task(it.call())
        await it.until(lambda: it.pods["f-0"].calls)
        await it.client.delete(PodObject, "f-0", "default", grace=0)
        code, said, headers = await call
        assert (code, headers["Minik8s-Error"]) == (502, "WorkerLost")
        assert "f-00001" in said["message"]


async def test_pods_of_a_lost_node_are_left() -> None:
    async with site() as it:
        await it.client.create(Node, {"metadata": {"name": "there"}})
        await it.simple(pods=0)
        await it.pod("f-0", "f", node="there")
        await it.pod("f-1", "f")
        assert (await it.call())[0] == 200
        down = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
        await it.client.patch(Node, "there", None, down, subresource="status")
        await it.until(lambda: len(it.fleet().replicas) == 1)
        before = len(it.pods["f-0"].calls)
        for _ in range(10):
            assert (await it.call())[0] == 200
        assert len(it.pods["f-0"].calls) == before


async def test_concurrency_holds_at_each_pod_and_load_is_spread() -> None:
    async def brief(request: web.Request) -> web.Response:
        await asyncio.sleep(0.01)
        return web.Response(text="x")

    async with site(brief=brief) as it:
        await it.simple(code="brief", pods=2, concurrency=3)
        codes = await asyncio.gather(*(it.call() for _ in range(40)))
        assert {code for code, _, _ in codes} == {200}
        assert [pod.most for pod in it.pods.values()] == [3, 3]
        assert min(len(pod.calls) for pod in it.pods.values()) >= 15


async def test_beyond_the_cap_calls_are_refused_with_a_time_to_come_again() -> None:
    going = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await going.wait()
        return web.Response(text="x")

    async with site(queue=2, slow=slow) as it:
        await it.simple(code="slow", concurrency=1, scale={"maxReplicas": 2})
        calls = [asyncio.create_task(it.call()) for _ in range(4)]
        await it.until(lambda: it.gateway.view.targets["default/f"].busy == 4)
        code, _, headers = await it.call()
        assert (code, headers["Retry-After"], headers["Minik8s-Error"]) == (429, "1", "TooManyRequests")
        going.set()
        assert [(await call)[0] for call in calls] == [200] * 4


async def test_bodies_that_are_too_large_are_refused_whether_they_tell_or_not() -> None:
    async with site() as it:
        await it.simple(maxBodyBytes=100_000)
        assert (await it.call(data=b"x" * 100_000))[0] == 200
        assert (await it.call(data=b"x" * 100_001))[0] == 413

        async def pieces() -> Any:
            for _ in range(20):
                yield b"x" * 10_000

        code, _, headers = await it.call(data=pieces())
        assert (code, headers["Minik8s-Error"]) == (413, "BodyTooLarge")
        assert (await it.call(data=b"x"))[0] == 200


async def test_a_function_that_takes_too_long_is_given_up() -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with site(hang=hang) as it:
        await it.simple(code="hang", timeoutSeconds=1)
        code, _, headers = await it.call()
        assert (code, headers["Minik8s-Error"]) == (504, "Timeout")
        await it.until(lambda: it.pods["f-0"].in_flight == 0)  # the runtime saw that nobody waits
        record = it.gateway.records.shown("default", "f")["items"][0]
        assert record["status"] == 504
        assert record["seconds"] >= 1


async def test_a_client_that_goes_cancels_its_call() -> None:
    cancelled = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with site(hang=hang) as it:
        await it.simple(code="hang", concurrency=1)
        with pytest.raises(TimeoutError):
            await it.call(timeout=aiohttp.ClientTimeout(total=0.1))
        await asyncio.wait_for(cancelled.wait(), 5)
        await it.until(lambda: it.gateway.view.targets["default/f"].busy == 0)
        assert it.fleet().replicas["default/f-0"].in_flight == 0
        assert it.gateway.records.shown("default", "f")["items"][0]["status"] == 499


async def test_a_client_that_goes_while_waiting_gives_its_turn_to_the_next() -> None:
    going = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await going.wait()
        return web.Response(text="x")

    async with site(slow=slow) as it:
        await it.simple(code="slow", concurrency=1)
        first = asyncio.create_task(it.call())
        await it.until(lambda: it.pods["f-0"].calls)
        with pytest.raises(TimeoutError):
            await it.call(timeout=aiohttp.ClientTimeout(total=0.1))
        third = asyncio.create_task(it.call())
        await it.until(lambda: it.fleet().waiting == 1)
        going.set()
        assert (await first)[0] == (await third)[0] == 200


async def test_answers_stream_as_they_come_and_no_faster_than_they_are_taken() -> None:
    step = asyncio.Event()
    sent = 0

    async def stream(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await step.wait()
        for _ in range(400):
            await response.write(b"x" * 65536)
            sent += 65536
        return response

    async with site(stream=stream) as it:
        await it.simple(code="stream")
        async with it.http.post(it.url + "/function/default/f") as answer:
            assert await answer.content.readany() == b"first"
            step.set()
            await asyncio.sleep(0.3)
            assert sent < 20 << 20  # sockets hold some megabytes, the gateway next to nothing
            size = 0
            while data := await answer.content.readany():
                size += len(data)
            assert size == 400 * 65536


async def test_requests_stream_too() -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(request: web.Request) -> web.Response:
        total = 0
        async for piece in request.content.iter_any():
            total += len(piece)
            heard.put_nowait(piece)
        return web.Response(text=str(total))

    async with site(listen=listen) as it:
        await it.simple(code="listen")

        async def pieces() -> Any:
            yield b"one"
            assert await asyncio.wait_for(heard.get(), 5) == b"one"  # before the rest is sent
            for _ in range(100):
                yield b"y" * 65536

        assert (await it.call(data=pieces()))[1] == 3 + 100 * 65536


async def test_both_sides_may_stream_at_once() -> None:
    async def parrot(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece.upper())
        return response

    async with site(parrot=parrot) as it:
        await it.simple(code="parrot", maxBodyBytes=1000)
        reader, writer = await asyncio.open_connection(*it.url[7:].split(":"))
        writer.write(b"POST /function/default/f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        async with asyncio.timeout(5):
            for word in (b"one", b"two", b"six"):
                writer.write(b"3\r\n%s\r\n" % word)
                await reader.readuntil(word.upper())
            writer.write(b"0\r\n\r\n")
            assert (await reader.read()).endswith(b"0\r\n\r\n")
        for _ in range(2):  # more than the function takes: what was begun breaks off
            reader, writer = await asyncio.open_connection(*it.url[7:].split(":"))
            writer.write(b"POST /function/default/f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            async with asyncio.timeout(5):
                writer.write(b"3\r\none\r\n")
                await reader.readuntil(b"ONE")
                writer.write(b"7d0\r\n%s\r\n" % (b"x" * 2000))
                rest = b""
                with suppress(ConnectionResetError):
                    rest = await reader.read()
                assert not rest.endswith(b"0\r\n\r\n")


async def test_an_answer_that_breaks_off_does_so_for_the_client() -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with site(half=half) as it:
        await it.simple(code="half")
        with pytest.raises(aiohttp.ClientPayloadError):
            await it.call()
        record = (await it.until(lambda: it.gateway.records.shown("default", "f")["items"]))[0]
        assert "broke off" in record["error"]


async def test_traces_are_taken_up_and_begun() -> None:
    async with site() as it:
        await it.simple()
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
        said = (await it.call(headers={"traceparent": parent, "tracestate": "a=1"}))[1]["headers"]
        assert said["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
        assert said["traceparent"].endswith("-00")
        assert "b7ad6b7169203331" not in said["traceparent"]
        assert said["tracestate"] == "a=1"
        said = (await it.call(headers={"traceparent": "nonsense", "tracestate": "a=1"}))[1]["headers"]
        assert len(said["traceparent"]) == 55
        assert "tracestate" not in said


async def test_chains_are_followed_and_recorded_and_cycles_refused() -> None:
    def to(name: str) -> Any:
        async def invoke(request: web.Request) -> web.Response:
            params = json.loads(await request.read() or b"{}")
            seen = [*params.get("seen", []), request.headers["traceparent"][3:35]]
            return web.json_response({"seen": seen}, headers={"Minik8s-Invoke": name})

        return invoke

    async with site(a=to("b"), b=to("C_last"), loop=to("loop"), out=to("b")) as it:
        await it.simple("a", "a", invokes=["b"])
        await it.simple("b", "b", invokes=["c-last"])
        await it.simple("c-last", "echo")
        await it.simple("loop", "loop", invokes=["loop"])
        await it.simple("out", "out")
        code, said, _ = await it.call("/function/default/a", json={})
        assert code == 200
        seen = json.loads(said["body"])["seen"]
        assert len(seen) == 2
        assert set(seen) == {said["headers"]["traceparent"][3:35]}
        assert said["headers"]["Content-Type"] == "application/json"
        shown = it.gateway.records.shown("default")
        assert {(each["function"], each["parent"]) for each in shown["items"]} == {
            ("a", ""),
            ("b", "a"),
            ("c-last", "b"),
        }
        assert {(each["from"], each["to"]) for each in shown["edges"]} == {("a", "b"), ("b", "c-last")}
        code, said, headers = await it.call("/function/default/b", json={}, headers={"Minik8s-Invoke": "return"})
        assert (code, headers["Minik8s-Invoke"], list(said)) == (200, "c-last", ["seen"])
        assert headers["Minik8s-Call"]
        code, _, headers = await it.call("/function/default/c-last", headers={"Minik8s-Invoke": "return"})
        assert (code, headers.get("Minik8s-Invoke")) == (200, None)
        code, said, headers = await it.call("/function/default/loop", json={})
        assert (code, headers["Minik8s-Error"]) == (508, "InvokeError")
        assert "loop -> loop" in said["message"]
        assert "does not declare" in (await it.call("/function/default/out", json={}))[1]["message"]


async def test_new_revisions_are_tried_where_pods_are_and_told_of() -> None:
    async with site() as it:
        await it.function("f")
        await it.revision("f", ready=None)
        await it.revision("f", "broken code", number=2, ready=None)
        await it.pod("f-0", "f")

        async def verdict(name: str) -> Any:
            found = await it.client.get(FunctionRevision, name, "default")
            return found.status.conditions and found.status

        for name, status, reason in (("f-00001", "True", "Loaded"), ("f-00002", "False", "LoadError")):
            async with asyncio.timeout(5):
                while not (found := await verdict(name)):
                    await asyncio.sleep(0.005)
            assert (found.conditions[0].status, found.conditions[0].reason) == (status, reason)
        assert found.conditions[0].message == "Traceback: broken code"
        assert (await verdict("f-00001")).contract == "main"


async def test_a_function_that_is_made_anew_is_not_taken_for_the_old_one() -> None:
    async with site() as it:

        async def made_anew(code: str, status: str) -> None:
            await it.function("f")
            await it.revision("f", code, ready=None)
            assert (await it.judged("f-00001")).status == status

        async def deleted() -> None:
            for kind, name in ((FunctionRevision, "f-00001"), (Function, "f")):
                await it.client.delete(kind, name, "default")

        pod = await it.pod("f-0", "f")  # of those that share it
        await made_anew("broken code", "False")
        await deleted()
        await made_anew("echo", "True")
        await it.traffic("f", v1=100)
        assert (await it.call())[0] == 200
        await deleted()
        await made_anew("echo", "True")
        await it.traffic("f", v1=100)
        assert (await it.call())[0] == 200
        assert len(pod.puts) == 3


async def test_only_a_fault_that_nobody_will_mend_is_an_answer() -> None:
    async with site(hold=0.3) as it:
        await it.function("f")
        code, said, headers = await it.call()  # no revision yet: there may be one soon
        assert (code, headers["Minik8s-Error"], headers["Retry-After"]) == (503, "Unavailable", "5")
        ready = {"type": "Ready", "status": "False", "reason": "LoadError", "message": "Traceback: no module named x"}
        await it.status("f", conditions=[ready])
        await it.until(lambda: it.gateway.view.targets["default/f"].hopeless)
        code, said, headers = await it.call()
        assert (code, headers["Minik8s-Error"]) == (503, "LoadError")
        assert "no module named x" in said["message"]


async def test_a_call_held_for_a_function_follows_what_becomes_of_it() -> None:
    async with site() as it:
        await it.function("f")
        await it.function("g")
        first, second = asyncio.create_task(it.call()), asyncio.create_task(it.call("/function/default/g"))
        await it.until(lambda: it.gateway.view.targets["default/f"].busy and it.gateway.view.targets["default/g"].busy)
        await it.revision("f")
        await it.traffic("f", v1=100)
        await it.until(lambda: ("default/f", "s") in it.gateway.view.loads)
        await it.revision("f", number=2, shape="t")  # the pods that come are of another shape
        await it.traffic("f", v2=100)
        await it.pod("f-0", "f", shape="t")
        assert (await first)[0] == 200
        await it.client.delete(Function, "g", "default")
        assert (await second)[0] == 404


async def test_code_is_put_once_for_all_who_wait_and_anew_where_it_was_dropped() -> None:
    async with site() as it:
        await it.simple(pods=0)
        calls = [asyncio.create_task(it.call()) for _ in range(8)]
        await it.asked.wait()
        pod = await it.pod("f-0", "f")
        assert {(await call)[0] for call in calls} == {200}
        assert len(pod.puts) == 1
        assert it.transport.fetched == ["f-00001"]
        assert pod.puts[0]["namespace"] == "default"
        pod.revisions.clear()
        codes = await asyncio.gather(*(it.call() for _ in range(8)))
        assert {code for code, _, _ in codes} == {200}
        assert len(pod.puts) == 2
        pod.revisions.clear()
        code, said, _ = await it.call(data=_chunks(b"abc"))  # cannot be sent twice: nothing has run
        assert code == 503 or said["body"] == "abc"
        assert (await it.call())[0] == 200


async def _chunks(*pieces: bytes) -> Any:
    for piece in pieces:
        yield piece


async def test_what_keeps_a_revision_from_being_tried_is_told_until_it_is_gone() -> None:
    async with site() as it:
        missing = True

        def settings(name: str) -> dict[str, str]:
            if missing:
                raise Conflict("the ConfigMap settings has no key b")
            return {"revision": name}

        it.transport.settings = settings
        await it.function("f")
        await it.revision("f", ready=None)
        pod = await it.pod("f-0", "f")

        async def said() -> list[Any]:
            found = await it.client.get(FunctionRevision, "f-00001", "default")
            return [(each.status, each.message) for each in found.status.conditions]

        async with asyncio.timeout(5):
            while not (await said()):
                await asyncio.sleep(0.005)
            ((status, message),) = await said()
            assert status == "Unknown"
            assert "the ConfigMap settings has no key b" in message
            missing = False
            while (await said())[0][0] != "True":
                await asyncio.sleep(0.005)
        assert len(pod.puts) == 1


async def test_calls_for_later_are_handed_to_the_queue() -> None:
    async with site() as it:
        await it.simple()
        for headers in ({"Prefer": "respond-async"}, {"X-Minik8s-Async": "true"}):
            more = {"Idempotency-Key": "k", "X-Own": "1", **headers}
            code, said, _ = await it.call("/function/default/f/sub?q=1", data=b"body", headers=more)
            assert (code, said) == (202, {"id": "c-1"})
        sent = it.later[0]
        assert sent["path"] == "/sub?q=1"
        assert sent["key"] == "k"
        assert sent["headers"]["x-own"] == "1"
        assert not it.pods["f-0"].calls


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /function/default/f HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET /function/default/f HTTP/1.0\r\n\r\n", b"200"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST /function/default/f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"400"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"405"),
        (b"GET /function/default/f HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", b"200"),
        (b"HEAD /function/default/f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"200"),
    ],
)  # fmt: skip
async def test_what_is_no_request_is_refused(raw: bytes, status: bytes) -> None:
    async with site() as it:
        await it.simple()
        reader, writer = await asyncio.open_connection(*it.url[7:].split(":"))
        writer.write(raw)
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer[9:12] == status, answer[:300]
        writer.close()


async def test_requests_that_come_together_are_answered_in_order() -> None:
    async with site() as it:
        await it.simple()
        reader, writer = await asyncio.open_connection(*it.url[7:].split(":"))
        for number in range(30):
            writer.write(b"GET /function/default/f/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            answer = await reader.read()
        places = [answer.index(b'"path": "/%d"' % number) for number in range(30)]
        assert places == sorted(places)
        assert answer.count(b"HTTP/1.1 200") == 31
        writer.close()


async def test_expect_continue_is_answered_when_the_body_is_wanted() -> None:
    async with site() as it:
        await it.simple(maxBodyBytes=1000)
        for length, first in ((10, b"HTTP/1.1 100"), (200_000, b"HTTP/1.1 413")):
            reader, writer = await asyncio.open_connection(*it.url[7:].split(":"))
            head = b"POST /function/default/f HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % length)
            async with asyncio.timeout(5):
                line = await reader.readline()
                assert line.startswith(first)
            writer.close()


async def test_pods_come_and_go_under_load_and_no_call_fails() -> None:
    async def brief(request: web.Request) -> web.Response:
        await asyncio.sleep(0.002)
        return web.Response(text="x")

    async with site(brief=brief) as it:
        await it.simple(code="brief", pods=1, concurrency=4)
        over = asyncio.Event()
        codes: list[int] = []

        async def client() -> None:
            while not over.is_set():
                codes.append((await it.call())[0])

        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(client())
            for number in range(1, 8):
                await it.pod(f"f-{number}", "f")
                await it.until(lambda n=number: it.pods[f"f-{n}"].calls)  # type: ignore[misc]
                old = f"f-{number - 1}"
                await it.delete_pod(old)
                await it.until(lambda o=old: f"default/{o}" not in it.gateway.view._places)  # type: ignore[misc]
                await it.until(lambda o=old: it.pods[o].in_flight == 0)  # type: ignore[misc]
                await it.pods[old].stop()
                await it.revision("f", "brief", number=number + 1)
                await it.traffic("f", **{f"v{number + 1}": 100})
            over.set()
        assert len(codes) > 100
        assert set(codes) == {200}


async def test_at_the_end_calls_may_finish_and_clients_are_told_to_leave() -> None:
    going = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await going.wait()
        return web.Response(text="done")

    async with site(slow=slow) as it:
        await it.simple(code="slow")
        async with it.gateway.listening(socket.create_server(("127.0.0.1", 0))) as (host, port):
            call = asyncio.create_task(it.http.post(f"http://{host}:{port}/function/default/f"))
            await it.until(lambda: it.pods["f-0"].calls)
            asyncio.get_running_loop().call_later(0.4, going.set)
        answer = await call
        assert (answer.status, await answer.text()) == (200, "done")


async def test_the_page_of_records() -> None:
    async with site() as it:
        await it.simple()
        await it.call()
        content, body = await it.gateway.page({"namespace": "default", "name": "f"})
        (item,) = json.loads(body)["items"]
        assert content == "application/json"
        assert item["function"] == "f"
        assert item["revision"] == "f-00001"
        assert item["status"] == 200
        assert len(item["traceId"]) == 32
