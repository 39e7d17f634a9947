"""The runtime as the gateway sees it: revisions in and out, every programming model, HTTP's corners."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minik8s.archives import pack_files
from tests.faas.runtime.pod import Pod, children, pod, wait_for

ECHO = "def main(params):\n    return params\n"


def test_load_call_unload(runtime: Pod) -> None:
    assert runtime.call("life-00001", {}).headers["minik8s-runtime"] == "not-loaded"
    assert runtime.load("life-00001", "def main(params):\n    return {'sum': params['x'] + 5}\n") == "main"
    assert runtime.call("life-00001", {"x": 5}).json == {"sum": 10}
    assert runtime.load("life-00001", "raise SystemExit") == "main"  # a name means what it meant first
    assert runtime.revisions()["life-00001"]["calls"] == 1
    assert runtime.control("DELETE", "/-/revisions/life-00001").status == 200
    assert runtime.control("DELETE", "/-/revisions/life-00001").status == 404
    assert runtime.call("life-00001", {}).headers["minik8s-runtime"] == "not-loaded"


def test_code_of_a_name_that_means_another_function_now_replaces_the_old(own: Pod) -> None:
    lazy = {"func.py": "def main(params):\n    import other\n    return other.NUMBER\n", "other.py": "NUMBER = {}\n"}
    for number in (1, 2):
        files = {path: text.format(number) for path, text in lazy.items()}
        assert own.load("f-00001", files, revisionUid=f"uid-{number}") == "main"
        (old, *_) = children(own.pid)
        if number == 1:
            first = old
    wait_for(lambda: not Path(f"/proc/{first}").exists())  # what it had on disk goes with it
    assert own.call("f-00001", {}).json == 2
    assert own.revisions()["f-00001"]["workers"] == 1


def test_several_revisions_at_once_and_the_newest_by_default(own: Pod) -> None:
    assert own.ask("POST", "/", b"{}").status == 404
    for number in (2, 1):
        own.load(f"v-0000{number}", f"def main(params):\n    return {number}\n")
    assert [own.call(f"v-0000{number}", {}).json for number in (1, 2, 1)] == [1, 2, 1]
    assert own.ask("POST", "/", b"{}").json == 2


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import nosuchmodule\n", "No module named 'nosuchmodule'"),
        ("def main(:\n", "SyntaxError"),
        ("raise ValueError('at import')\n", 'func.py", line 1'),
        ("import os\nos._exit(3)\n", "exited with status 3"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "signal 11"),
        ("raise SystemExit('enough')\n", "enough"),
        ("x = 1\n", "LoadError: module func has no main"),
        ("async def app(scope, receive, send):\n    await receive()\n"
         "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n", "no database"),
    ],
)  # fmt: skip
def test_code_that_cannot_be_loaded(runtime: Pod, code: str, text: str) -> None:
    reply = runtime.put("bad-00001", code)
    assert (reply.status, reply.json["reason"]) == (422, "LoadError")
    assert text in reply.json["message"]
    assert "minik8s/faas/runtime" not in reply.json["message"]
    assert "bad-00001" not in runtime.revisions()


def test_a_second_load_waits_for_the_first(runtime: Pod) -> None:
    slow = "import time\ntime.sleep(0.3)\n" + ECHO
    with ThreadPoolExecutor(3) as threads:
        replies = list(threads.map(lambda _: runtime.put("slow-00001", slow), range(3)))
    assert [reply.status for reply in replies] == [200] * 3
    assert len({reply.json["seconds"] for reply in replies}) == 1


def test_who_may_load(runtime: Pod) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        assert runtime.ask("PUT", "/-/revisions/a-00001", b"x", headers).status == 401
        assert runtime.ask("GET", "/-/revisions", None, headers).status == 401
    assert runtime.control("POST", "/-/revisions/a-00001", b"").status == 405
    assert runtime.control("GET", "/-/nosuch").status == 404
    assert b"function_runtime_calls_total" in runtime.ask("GET", "/-/metrics").body


def test_who_may_not_load_need_not_send(runtime: Pod) -> None:
    with runtime.socket() as sock:
        sock.sendall(b"PUT /-/revisions/a-00001 HTTP/1.1\r\nContent-Length: 60000000\r\nExpect: 100-continue\r\n\r\n")
        assert read_all(sock).startswith(b"HTTP/1.1 401 ")


def test_the_supervisor_is_spoken_to_over_one_connection(runtime: Pod) -> None:
    one = b"GET /-/ready HTTP/1.1\r\n\r\n"
    with runtime.socket() as sock:
        sock.sendall(one * 3 + b"POST / HTTP/1.1\r\nMinik8s-Revision: no-00001\r\nContent-Length: 0\r\n\r\n")
        answers = read_all(sock)
    assert answers.count(b"ok\n") == 3
    assert b"not-loaded" in answers


@pytest.mark.parametrize(
    ("name", "body", "text"),
    [
        ("a-00001", b"", "4 bytes"),
        ("a-00001", b"\0\0\0\x09{}", "4 bytes"),
        ("a-00001", b"\0\0\0\x02{}archive", "revision"),
        ("a-00001", b'\0\0\0\x12{"revision": "b"}  ', "'b'"),
        ("..", b'\0\0\0\x12{"revision": ".."}', "'..'"),
    ],
)
def test_loads_that_make_no_sense(runtime: Pod, name: str, body: bytes, text: str) -> None:
    reply = runtime.control("PUT", f"/-/revisions/{name}", body)
    assert reply.status == 400
    assert text in reply.json["message"]


def test_archives_that_must_not_be_unpacked(runtime: Pod) -> None:
    reply = runtime.put_bytes("evil-00001", b"no archive")
    assert (reply.status, "cannot be read" in reply.json["message"]) == (422, True)


def test_a_folder_of_code_with_settings(runtime: Pod) -> None:
    files = {
        "pkg/__init__.py": "", "pkg/mod.py": "import os\nfrom .data import value\nclass A:\n    @staticmethod\n"
        "    def go(params):\n        return [value, os.environ['GREETING'], open('note.txt').read()]\n",
        "pkg/data.py": "value = 42\n", "note.txt": "note",
    }  # fmt: skip
    runtime.load("folder-00001", files, handler="pkg.mod:A.go", env={"GREETING": "hi"})
    assert runtime.call("folder-00001", {}).json == [42, "hi", "note"]


# -- programming models


def test_action_with_invoke(runtime: Pod) -> None:
    code = """
        from serverless import Invoke, Request, Response
        def action(req: Request):
            match req.param("op"):
                case "+": return Invoke("addition", params={"x": req.param("x")})
                case "*": return Invoke("other")
                case ">": return Response({"bigger": True}, headers={"X-From": "here"})
            return Response("what?", http_status=400)
    """
    assert runtime.load("calc-00001", code, invokes=["addition"]) == "action"
    invoked = runtime.call("calc-00001", {"op": "+", "x": 1})
    assert (invoked.headers["minik8s-invoke"], invoked.json) == ("addition", {"x": 1})
    said = runtime.call("calc-00001", {"op": "*"}).json
    assert (said["error"], said["traceback"]) == ("InvokeNotDeclared", "")
    bigger = runtime.call("calc-00001", path="/some/path?op=%3E")
    assert (bigger.headers["x-from"], bigger.json) == ("here", {"bigger": True})
    assert runtime.call("calc-00001", {}).status == 400


def test_handler_cloudevent_and_wsgi(runtime: Pod) -> None:
    code = """
        def handler(event, context):
            return {"statusCode": 201, "body": context.aws_request_id + event["a"]}
    """
    assert runtime.load("h-00001", code) == "handler"
    reply = runtime.call("h-00001", {"a": "!"}, Minik8s_Call="id-7")
    assert (reply.status, reply.body) == (201, b"id-7!")
    code = """
        from serverless import CloudEvent
        def on(event: CloudEvent):
            return CloudEvent({"type": "pong", "source": "me"}, event.data)
    """
    assert runtime.load("ce-00001", code) == "cloudevent"
    reply = runtime.call("ce-00001", {"x": 1}, Ce_Specversion="1.0", Ce_Type="ping", Ce_Id="1", Ce_Source="s")
    assert (reply.headers["ce-type"], reply.json) == ("pong", {"x": 1})
    code = """
        class App:
            def __call__(self, environ, start_response):
                start_response("202 Accepted", [("X-Path", environ["PATH_INFO"]), ("Content-Length", "1")])
                return iter([b"a", environ["wsgi.input"].read()])
        app = App()
    """
    assert runtime.load("wsgi-00001", code) == "wsgi"
    reply = runtime.call("wsgi-00001", body=b"bc", path="/p")
    assert (reply.status, reply.headers["x-path"], reply.body) == (202, "/p", b"abc")


def test_streams(runtime: Pod) -> None:
    runtime.load("gen-00001", "def main(params):\n    for i in range(3):\n        yield {'i': i}\n")
    runtime.load("agen-00001", "import asyncio\nasync def main(params):\n    for i in range(3):\n"
                 "        await asyncio.sleep(0)\n        yield f'{i};'\n")  # fmt: skip
    runtime.load("fail-00001", "def main(params):\n    yield 'a'\n    raise ValueError\n")
    runtime.load("early-00001", "async def main(params):\n    raise ValueError('early')\n    yield 1\n")
    for _ in range(2):
        assert runtime.call("gen-00001", {}).body == b'{"i":0}\n{"i":1}\n{"i":2}\n'
        assert runtime.call("agen-00001", {}).body == b"0;1;2;"
        assert runtime.call("early-00001", {}).json["message"] == "early"
    with runtime.socket() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nMinik8s-Revision: fail-00001\r\nContent-Length: 0\r\n\r\n")
        assert read_all(sock).endswith(b"1\r\na\r\n")  # and no last chunk


def test_asgi_with_lifespan_and_bodies_that_stream_both_ways(runtime: Pod) -> None:
    code = """
        state = []
        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                while True:
                    message = await receive()
                    state.append(message["type"])
                    await send({"type": message["type"] + ".complete"})
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-state", state[0].encode())]})
            while True:
                message = await receive()
                await send({"type": "http.response.body", "body": message["body"].upper(), "more_body": True})
                if not message["more_body"]:
                    break
            await send({"type": "http.response.body"})
    """
    assert runtime.load("asgi-00001", code) == "asgi"
    assert runtime.call("asgi-00001", body=b"hello").body == b"HELLO"
    with runtime.socket() as sock:
        sock.sendall(
            b"POST / HTTP/1.1\r\nMinik8s-Revision: asgi-00001\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        seen = b""
        while not seen.endswith(b"3\r\nABC\r\n"):  # the answer begins before the question ends
            seen += sock.recv(1000)
        assert b"x-state: lifespan.startup" in seen
        sock.sendall(b"0\r\n\r\n")
        while not seen.endswith(b"\r\n0\r\n\r\n"):
            seen += sock.recv(1000)


def test_asgi_applications_that_fail(runtime: Pod) -> None:
    code = """
        async def app(scope, receive, send):
            if scope["path"] == "/early":
                raise ValueError("early")
            if scope["path"] == "/nothing":
                return
            if scope["path"] == "/length":
                await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"4")]})
                await send({"type": "http.response.body", "body": b"ab", "more_body": True})
                return await send({"type": "http.response.body", "body": b"cd"})
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            raise ValueError("late")
    """
    runtime.load("fails-00001", code)
    connection = runtime.connect()
    assert runtime.call("fails-00001", path="/early", on=connection).json["message"] == "early"
    assert runtime.call("fails-00001", path="/nothing", on=connection).json["error"] == "RuntimeError"
    assert runtime.call("fails-00001", path="/length", on=connection).body == b"abcd"
    with pytest.raises(http.client.IncompleteRead):
        runtime.call("fails-00001", path="/late", on=connection)


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_large_answers_to_clients_that_take_their_time(runtime: Pod, kind: str) -> None:
    name = f"large-0000{len(kind)}"
    runtime.load(name, f"{kind} main(params):\n    return b'x' * 30_000_000\n")
    with runtime.socket() as sock:
        sock.sendall(f"POST / HTTP/1.1\r\nMinik8s-Revision: {name}\r\nConnection: close\r\n\r\n".encode())
        assert sock.recv(1) == b"H"
        runtime.control("DELETE", f"/-/revisions/{name}")  # its process sees the call through
        assert len(read_all(sock)) > 30_000_000


def test_what_an_application_does_after_its_answer_holds_nobody_up(runtime: Pod, tmp_path: Path) -> None:
    code = f"""
        import asyncio, pathlib
        done = []
        async def app(scope, receive, send):
            if scope["type"] != "http":
                return
            await send({{"type": "http.response.start", "status": 200, "headers": []}})
            await send({{"type": "http.response.body", "body": str(len(done)).encode()}})
            while not pathlib.Path({str(tmp_path)!r}, "go").exists():
                await asyncio.sleep(0.01)
            done.append(1)
    """
    runtime.load("after-00001", code)
    connection = runtime.connect()
    assert [runtime.call("after-00001", on=connection).body for _ in range(3)] == [b"0"] * 3
    (tmp_path / "go").touch()
    wait_for(lambda: runtime.call("after-00001", on=connection).body >= b"3")


# -- HTTP


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.fixture(scope="module", params=["def main", "async def main"])
def echo(request: pytest.FixtureRequest, runtime: Pod) -> str:
    name = f"echo{len(request.param)}-00001"
    runtime.load(name, f"{request.param}(params):\n    return params\n", maxBodyBytes=1000)
    return name


def test_pipelining_and_keep_alive(runtime: Pod, echo: str) -> None:
    one = b"POST /?n=%d HTTP/1.1\r\nMinik8s-Revision: " + echo.encode() + b"\r\nContent-Length: 0\r\n\r\n"
    last = one.replace(b"Content-Length", b"Connection: close\r\nContent-Length")
    with runtime.socket() as sock:
        sock.sendall(b"".join(one % number for number in range(9)) + last % 9)
        answers = read_all(sock)
    assert [int(part[:1]) for part in answers.split(b'{"n":"')[1:]] == list(range(10))
    assert answers.count(b"HTTP/1.1 200 OK") == 10


def test_bodies(runtime: Pod, echo: str) -> None:
    head = b"POST / HTTP/1.1\r\nMinik8s-Revision: " + echo.encode() + b"\r\nConnection: close\r\n"
    with runtime.socket() as sock:  # in chunks, byte by byte
        for byte in head + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n':
            sock.sendall(bytes([byte]))
        assert read_all(sock).endswith(b'{"a":1}')
    with runtime.socket() as sock:
        sock.sendall(head + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert read_all(sock).endswith(b"{}")
    for size in (1001, 10_000_000):
        reply = runtime.call(echo, body=b"x" * size)
        assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert runtime.call(echo, body=b"{", Content_Type="application/json").status == 400
    assert runtime.call(echo, method="HEAD").body == b""
    with runtime.socket() as sock:
        sock.sendall(b"GET /?a=1 HTTP/1.0\r\nMinik8s-Revision: " + echo.encode() + b"\r\n\r\n")
        assert read_all(sock).endswith(b'{"a":"1"}')


def test_a_connection_stays_with_its_revision(runtime: Pod, echo: str) -> None:
    runtime.load("else-00001", ECHO)
    connection = runtime.connect()
    assert runtime.call(echo, {"a": 1}, on=connection).status == 200
    reply = runtime.call("else-00001", {}, on=connection)
    assert (reply.status, reply.headers["minik8s-runtime"], reply.headers["connection"]) == (404, "not-loaded", "close")
    assert runtime.call("else-00001", {"b": 1}, on=connection).json == {"b": 1}  # a new one


def test_rubbish_is_answered(runtime: Pod, echo: str) -> None:
    for sent, status in (
        (b"RUBBISH\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nMinik8s-Revision: " + echo.encode() + b"\r\nBad Header\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", b"431"),
        (b"PUT /-/revisions/x HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"POST /-/ready RUBBISH\r\n\r\n", b"400"),
    ):
        with runtime.socket() as sock:
            sock.sendall(sent)
            assert read_all(sock).split(b" ")[1] == status, sent[:60]


def test_a_client_that_goes_cancels_asynchronous_code(runtime: Pod, tmp_path: Path) -> None:
    code = f"""
        import asyncio, pathlib
        async def main(params):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pathlib.Path({str(tmp_path)!r}, "cancelled").touch()
                raise
    """
    runtime.load("gone-00001", code)
    with runtime.socket() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nMinik8s-Revision: gone-00001\r\nContent-Length: 0\r\n\r\n")
        wait_for(lambda: runtime.revisions()["gone-00001"]["inFlight"] == 1)
    wait_for((tmp_path / "cancelled").exists)
    wait_for(lambda: runtime.revisions()["gone-00001"]["connections"] == 0)


def test_a_generator_learns_that_its_client_has_gone(runtime: Pod, tmp_path: Path) -> None:
    code = f"""
        import pathlib
        def main(params):
            try:
                while True:
                    yield "x" * 10000
            finally:
                pathlib.Path({str(tmp_path)!r}, "closed").touch()
    """
    runtime.load("endless-00001", code)
    with runtime.socket() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nMinik8s-Revision: endless-00001\r\nContent-Length: 0\r\n\r\n")
        assert sock.recv(100)
    wait_for((tmp_path / "closed").exists)


# -- processes


def test_blocking_calls_run_side_by_side_in_processes(runtime: Pod) -> None:
    runtime.load("side-00001", "import os, time\ndef main(params):\n    time.sleep(0.3)\n    return os.getpid()\n",
                 concurrency=4)  # fmt: skip
    with ThreadPoolExecutor(4) as threads:
        pids = {reply.json for reply in threads.map(lambda _: runtime.call("side-00001", {}), range(4))}
    assert len(pids) == 4
    assert runtime.revisions()["side-00001"]["workers"] == 4


def test_nobody_waits_for_a_call_on_another_connection(runtime: Pod, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    runtime.load("wait-00001", "import os, time\ndef main(p):\n    while not os.path.exists(p.get('go', '/')):"
                 "\n        time.sleep(0.01)\n    return os.getpid()\n", concurrency=3)  # fmt: skip
    connections = [runtime.connect() for _ in range(6)]
    for each in connections:
        assert runtime.call("wait-00001", {}, on=each).status == 200
    with ThreadPoolExecutor(2) as threads:
        long = [threads.submit(runtime.call, "wait-00001", {"go": go}, on=each) for each in connections[:2]]
        wait_for(lambda: runtime.revisions()["wait-00001"]["inFlight"] == 2)
        for _ in range(3):
            for each in connections[2:]:
                assert runtime.call("wait-00001", {}, on=each).status == 200
        (tmp_path / "go").touch()
        assert len({each.result().json for each in long}) == 2
    assert runtime.revisions()["wait-00001"]["calls"] == 6 + 2 + 12
    assert runtime.revisions()["wait-00001"]["workers"] == 3


def test_asynchronous_calls_share_a_process(runtime: Pod) -> None:
    runtime.load("share-00001", "import asyncio, os\nhere = []\nasync def main(params):\n    here.append(1)\n"
                 "    while len(here) < 20:\n        await asyncio.sleep(0.01)\n"
                 "    return os.getpid()\n", concurrency=50)  # fmt: skip
    with ThreadPoolExecutor(20) as threads:
        pids = {reply.json for reply in threads.map(lambda _: runtime.call("share-00001", {}), range(20))}
    assert len(pids) == 1


def test_workers_of_a_revision_and_their_randomness(runtime: Pod) -> None:
    code = """
        import os, random, secrets, uuid, time
        first = random.random()
        def main(params):
            time.sleep(0.1)
            return [os.getpid(), first, random.random(), secrets.token_hex(), str(uuid.uuid4())]
    """
    runtime.load("rand-00001", code, workers=3)
    wait_for(lambda: runtime.revisions()["rand-00001"]["workers"] == 3)
    with ThreadPoolExecutor(6) as threads:
        rows = {reply.json[0]: reply.json for reply in threads.map(lambda _: runtime.call("rand-00001", {}), range(6))}
    assert len(rows) > 1
    for column in zip(*rows.values(), strict=True):
        assert len(set(column)) == len(column)


def test_output_stands_in_the_log_behind_the_id_of_its_call(runtime: Pod) -> None:
    code = """
        import logging, sys
        print("loading")
        def main(params):
            print("one\\ntwo")
            print("err", file=sys.stderr)
            logging.warning("warned")
            sys.stdout.buffer.write(b"no end")
    """
    runtime.load("log-00001", code)
    runtime.call("log-00001", {}, Minik8s_Call="call-9")
    wait_for(lambda: "[call-9] no end\n" in runtime.log())
    for line in ("loading", "[call-9] one", "[call-9] two", "[call-9] err", "[call-9] WARNING:root:warned"):
        assert f"{line}\n" in runtime.log()


def test_asynchronous_calls_do_not_mix_their_output(runtime: Pod) -> None:
    runtime.load("mix-00001", "import asyncio\nasync def main(params):\n    for i in range(3):\n"
                 "        print(params['n'], end='')\n        await asyncio.sleep(0.01)\n")  # fmt: skip
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda n: runtime.call("mix-00001", {"n": n}, Minik8s_Call=f"mix-{n}"), range(5)))
    for number in range(5):  # a line without end is logged when the call is over, just after its answer
        wait_for(lambda n=number: f"[mix-{n}] {n}{n}{n}\n" in runtime.log())


def test_packages_of_the_environment_come_before_the_librarys(tmp_path: Path) -> None:
    packages = tmp_path / "environment"
    packages.mkdir()
    (packages / "greeting.py").write_text("text = 'from the environment'\n")
    with pod(tmp_path, FUNCTION_ENVIRONMENT=str(packages)) as made:
        made.load("env-00001", "import greeting, sys\ndef main(params):\n    return [greeting.text, sys.path[1]]\n")
        assert made.call("env-00001", {}).json == ["from the environment", str(packages)]


# -- the end


def test_a_supervisor_that_is_told_to_end_serves_until_it_is_quiet(tmp_path: Path) -> None:
    with pod(tmp_path) as made:
        made.load("drain-00001", "import time\ndef main(params):\n    time.sleep(params['s'])\n    return 'done'\n")
        marker = tmp_path / "bye"
        made.load("life-00001", f"""
            import pathlib
            async def app(scope, receive, send):
                while True:
                    message = await receive()
                    if message["type"] == "lifespan.shutdown":
                        pathlib.Path({str(marker)!r}).touch()
                    await send({{"type": message["type"] + ".complete"}})
        """)  # fmt: skip
        with ThreadPoolExecutor(1) as threads:
            long = threads.submit(made.call, "drain-00001", {"s": 1.5})
            wait_for(lambda: made.revisions()["drain-00001"]["inFlight"] == 1)
            os.kill(made.pid, signal.SIGTERM)
            assert made.call("drain-00001", {"s": 0}).body == b"done"  # on a new connection, and a new process
            assert long.result().body == b"done"
        begun = time.monotonic()
        ended = os.waitid(os.P_PID, made.pid, os.WEXITED | os.WNOWAIT)
        assert 1.5 < time.monotonic() - begun < 5
        assert marker.exists()
        assert ended is not None
        assert ended.si_status == 0


def test_a_pod_that_has_had_code_of_one_function_takes_no_others_and_starts_anew(tmp_path: Path) -> None:
    with pod(tmp_path) as made:
        assert made.load("f-00001", "def main(params):\n    return 'f'\n", tenant="default/f") == "main"
        assert made.load("f-00002", "def main(params):\n    return 'f2'\n", tenant="default/f") == "main"
        reply = made.put("g-00001", "def main(params):\n    return 'g'\n", tenant="default/g")
        assert reply.status == 409
        assert "has had code of another function" in reply.json["message"]
        assert made.call("f-00001").body == b"f"  # calls that were on their way are served
        wait_for(lambda: _refused(made))  # though it is asked again and again, as gateways do


def _refused(pod: Pod) -> bool:
    """Whether it takes no connections any more, not even for other code."""
    try:
        assert pod.put("g-00001", ECHO, tenant="default/g").status == 409
    except OSError:
        return True
    return False


def test_code_changes_under_load_and_no_call_is_lost(own: Pod) -> None:
    own.load("hot-00001", "def main(params):\n    return 1\n")
    seen: list[int] = []
    stop = threading.Event()
    newest = ["hot-00001"]

    def caller() -> None:
        connection, mine = own.connect(), ""
        while not stop.is_set():
            if mine != newest[0]:
                connection, mine = own.connect(), newest[0]
            reply = own.call(mine, {}, on=connection)
            assert reply.status == 200, reply
            seen.append(reply.json)

    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(caller) for _ in range(3)]
        for number in range(2, 6):
            name = f"hot-0000{number}"
            own.load(name, f"def main(params):\n    return {number}\n")
            newest[0] = name
            wait_for(lambda number=number: number in seen)
        stop.set()
        for each in callers:
            each.result()
    assert set(seen) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_connections_of_a_dropped_revision_go_back_to_the_door(own: Pod, kind: str) -> None:
    """No race of a connection closing while a request is on its way."""
    own.load("drop-00001", f"{kind} main(params):\n    return params\n")
    connection = own.connect()
    assert own.call("drop-00001", {"a": 1}, on=connection).status == 200
    own.control("DELETE", "/-/revisions/drop-00001")
    wait_for(lambda: not children(own.pid))
    own.load("drop-00001", "def main(params):\n    return 'again'\n")
    sock = connection.sock
    assert own.call("drop-00001", {}, on=connection).body == b"again"
    assert connection.sock is sock


def test_the_archive_is_what_is_run(runtime: Pod) -> None:
    archive = pack_files({"func.py": b"import json\ndef main(params): return json.dumps(params)\n"})
    assert runtime.put_bytes("raw-00001", archive).status == 200
    assert json.loads(runtime.call("raw-00001", {"a": 1}).body) == {"a": 1}
