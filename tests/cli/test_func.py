"""Functions on the command line, against a real API server; a server of the test's own answers for the gateway."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cluster_harness import Cli

from minik8s import archives
from minik8s.api.errors import Conflict, NotFound
from minik8s.cli import code, upload
from minik8s.cli.func_templates import MODELS
from minik8s.faas.runtime import serverless
from minik8s.faas.runtime.contracts import contract_of, find_callable

Json = dict[str, Any]
CODE = "def main(params):\n    return params\n"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """What would have gone into the subresource `code`: the server of these tests has no store for it."""
    found: list[tuple[str, bytes]] = []
    monkeypatch.setattr(upload, "send", lambda cluster, where, data: found.append((where, data)))
    return found


class Gateway(ThreadingHTTPServer):
    """Answers by what a test puts into `answers`: path -> (status, headers, pieces of the body)."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], list[bytes]]] = {}
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                gateway.seen.append((self.command, self.path, dict(self.headers), body))
                status, headers, pieces = gateway.answers.get(self.path, (404, {"Minik8s-Error": "NotFound"}, []))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in pieces:
                    self.wfile.write(piece)

            do_GET = do_PUT = do_POST

            def log_message(self, *words: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def gateway(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    made = Gateway()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setenv("MINIK8S_GATEWAY", made.url)
    yield made
    made.shutdown()
    made.server_close()


def spec(cli: Cli, name: str) -> Json:
    found: Json = json.loads(cli.ok("get", "function", name, "-o", "json"))["spec"]
    return found


def files(packed: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as opened:
        return opened.getnames()


# -- init, add, update


@pytest.mark.parametrize("model", MODELS)
def test_init_writes_what_add_takes(cli: Cli, sent: list[tuple[str, bytes]], model: str) -> None:
    cli.ok("func", "init", "hello", "--model", model)
    compile((cli.home / "hello" / "func.py").read_text(), "func.py", "exec")
    assert "is there already" in cli.fails("func", "init", "hello")
    cli.ok("func", "add", "hello", "--no-wait")
    assert files(sent[0][1]) == ["func.py", "requirements.txt"]
    # Its manifest means the same.
    assert "function.faas.minik8s.io/hello configured" in cli.ok("apply", "-f", "hello/function.yaml")
    assert sent[1] == sent[0]


CONTRACTS = {"main": "main", "action": "action", "handler": "handler", "async": "main", "stream": "main",
             "asgi": "asgi", "wsgi": "wsgi"}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_the_runtime_takes_each_model_for_what_it_is(model: str) -> None:
    module = ModuleType("func")
    sys.modules["serverless"] = serverless
    try:
        exec(MODELS[model][1].replace("\n        ", "\n"), vars(module))
    finally:
        del sys.modules["serverless"]
    found = contract_of(find_callable(module, ""))
    assert (found.name, found.asynchronous) == (CONTRACTS[model], model in ("async", "asgi"))


def test_init_explains_names_and_models(cli: Cli) -> None:
    assert 'take "addfive"' in cli.fails("func", "init", "addFive")
    assert 'did you mean "action"?' in cli.fails("func", "init", "x", "--model", "acton")
    assert 'did you mean "rollback"?' in cli.fails("func", "rolback", "x")


def test_add_and_update(cli: Cli, sent: list[tuple[str, bytes]]) -> None:
    cli.file("f/func.py", CODE)
    cli.file("f/requirements.txt", "# none\nrequests>=2.31  # for HTTP\n")
    done = cli.ok("func", "add", "f", "--no-wait", "-e", "A=1", "-e", "B=x=y", "--invokes", "g,h", "--timeout", "1m",
                  "--min", "1", "--idle", "2m", "--memory", "64Mi")  # fmt: skip
    assert done == "function.faas.minik8s.io/f created\n"
    where, packed = sent[0]
    assert where.endswith(f"/namespaces/{cli.namespace}/functions/f/code")
    stored = spec(cli, "f")
    assert stored["code"] == {"sha256": hashlib.sha256(packed).hexdigest(), "size": len(packed)}
    assert stored["requirements"] == ["requests>=2.31"]
    assert stored["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "x=y"}]
    assert stored["timeoutSeconds"] == 60
    assert stored["scale"] | {"minReplicas": 1, "idleSeconds": 120} == stored["scale"]
    assert stored["resources"]["limits"] == {"memory": "64Mi"}
    assert stored["invokes"] == ["g", "h"]

    assert cli.ok("func", "update", "f", "--no-wait") == "function.faas.minik8s.io/f unchanged\n"
    cli.ok("func", "update", "f", "--no-wait", "-e", "A-", "-e", "C=3", "--max", "4")
    assert [each["name"] for each in spec(cli, "f")["env"]] == ["B", "C"]
    assert spec(cli, "f")["scale"]["minReplicas"] == 1
    cli.file("f/requirements.txt", "")
    cli.file("f/func.py", CODE + "# other\n")
    cli.ok("func", "update", "f", "f", "--no-wait")
    assert spec(cli, "f")["requirements"] == []
    assert spec(cli, "f")["code"]["sha256"] == hashlib.sha256(sent[-1][1]).hexdigest()

    assert "minik8s func update f" in cli.fails("func", "add", "f", "--no-wait")
    assert "function.faas.minik8s.io/f" in cli.ok("func", "list", "-o", "name")
    assert "f" in cli.ok("func", "list")
    assert 'function.faas.minik8s.io "f" deleted' in cli.ok("func", "rm", "f")


def test_code_in_other_wrappings(cli: Cli, sent: list[tuple[str, bytes]]) -> None:
    cli.file("add.py", CODE)
    cli.ok("func", "add", "add", "--no-wait")
    assert files(sent[0][1]) == ["add.py"]
    with tarfile.open(cli.home / "b.tar.gz", "w:gz") as made:
        made.add(cli.home / "add.py", "b/func.py")
    cli.ok("func", "add", "b", "--no-wait")
    assert files(sent[1][1]) == ["func.py"]


@pytest.mark.parametrize(("words", "told"), [
    (("add", "absent"), "no ./absent and no ./absent.py here"),
    (("add", "f", "nowhere"), "there is no file or folder 'nowhere'"),
    (("add", "f", "empty"), "there are no files to pack"),
    (("add", "f", "text.txt"), "cannot be read as zip or tar"),
    (("add", "f", "a.py", "-e", "X"), "neither NAME=VALUE nor NAME-"),
    (("add", "f", "a.py", "--timeout", "soon"), "is no duration"),
    (("add", "f", "a.py", "--timeout", "0.5s"), "--timeout 0.5s: whole seconds"),
    (("add", "f", "a.py", "-r", "none.txt"), "-r none.txt: there is no such file"),
    (("add", "F_x", "a.py", "--no-wait"), "for example 'f-x'"),
    (("add", "f", "a.py", "--concurrency", "5000", "--no-wait"), "spec.concurrency"),
    (("add", "f", "a.py", "--concurrency", "0", "--no-wait"), "0 is not in the range x>=1"),
    (("update", "absent", "--max", "3"), 'there is no function "absent"'),
    (("rm", "absent"), 'there is no function "absent"'),
    (("get", "absent"), 'there is no function "absent"'),
    (("traffic", "absent", "1=100"), 'there is no function "absent"'),
    (("calls", "absent"), 'there is no function "absent"'),
    (("invoke", "x", "--watch"), "--watch is for calls that are queued"),
    (("invoke", "x", "-H", "nothing"), "is no header"),
    (("dlq", "purge", "x"), "name the dead letters by their ids, or take --all"),
])  # fmt: skip
def test_mistakes_are_one_line(cli: Cli, sent: list[tuple[str, bytes]], words: tuple[str, ...], told: str) -> None:
    cli.file("a.py", CODE)
    cli.file("text.txt", "hello")
    (cli.home / "empty").mkdir()
    assert told in cli.fails("func", *words)
    assert sent == []


def test_a_misspelt_name_gets_a_suggestion(cli: Cli, sent: list[tuple[str, bytes]]) -> None:
    cli.file("hello.py", CODE)
    cli.ok("func", "add", "hello", "--no-wait")
    assert cli.fails("func", "get", "helo").endswith('did you mean "hello"?')
    assert cli.fails("func", "rm", "Hello").endswith('did you mean "hello"?')


def test_add_waits_and_tells_the_traceback(cli: Cli, sent: list[tuple[str, bytes]]) -> None:
    cli.file("bad.py", CODE)
    waiting = threading.Thread(target=lambda: said.append(cli("func", "add", "bad")))
    said: list[Any] = []
    waiting.start()
    path = f"/apis/faas.minik8s.io/v1/namespaces/{cli.namespace}/functions/bad"

    async def fail(client: Any) -> None:
        condition = {"type": "Ready", "status": "False", "reason": "LoadError", "message": "Traceback …\nNameError: x",
                     "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
        body = json.dumps({"status": {"observedGeneration": 1, "conditions": [condition]}}).encode()
        await client.transport.request("PATCH", f"{path}/status", body=body,
                                       content_type="application/merge-patch+json")  # fmt: skip

    for _ in range(200):
        try:
            cli.server.ask(fail)
            break
        except NotFound:
            waiting.join(0.05)
    waiting.join(10)
    assert said[0].code == 1
    assert "bad cannot be loaded (LoadError):\nTraceback …\nNameError: x" in said[0].err


# -- apply


def test_apply_brings_code_along(cli: Cli, sent: list[tuple[str, bytes]]) -> None:
    cli.file("deep/code/func.py", CODE)
    meta = {"name": "f", "annotations": {"faas.minik8s.io/source": "code"}}
    cli.file("deep/f.yaml", json.dumps({"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": meta}))
    assert cli.ok("apply", "-f", "deep/f.yaml") == "function.faas.minik8s.io/f created\n"
    assert cli.ok("apply", "-f", "deep/f.yaml") == "function.faas.minik8s.io/f unchanged\n"
    assert files(sent[0][1]) == ["func.py"]
    (cli.home / "deep/code/func.py").unlink()
    (cli.home / "deep/code").rmdir()
    assert "code: there is no such file or folder here" in cli.fails("apply", "-f", "deep/f.yaml")


def test_older_manifests_are_taken(cli: Cli, sent: list[tuple[str, bytes]]) -> None:
    folder = cli.home / "up"
    cli.file("up/func.py", "def run(x):\n    return x\n")
    cli.file("up/requirements.txt", "six\n")
    old = f"kind: Function\nmetadata: {{name: addFive}}\nspec: {{userUploadFilePath: {folder}}}\n---\n"
    old += "kind: Ingress\nmetadata: {name: hello}\nspec: {trigger: /hello, invokeAction: addFive, httpType: GET}\n"
    done = cli("apply", "-f", cli.file("old.yaml", old))
    assert done.code == 0, done
    assert done.err.count("older dialect") == 2
    assert spec(cli, "addfive")["requirements"] == ["six"]
    assert json.loads(cli.ok("get", "trigger.faas.minik8s.io", "hello", "-o", "json"))["spec"] == {
        "function": "addfive", "http": {"path": "/hello", "method": "GET"}}  # fmt: skip

    cli.file("calc.py", CODE)
    action = cli.file("action.yaml", "kind: Action\nmetadata: {name: calc}\nspec: {invokeActions: [addFive]}\n")
    cli.ok("apply", "-f", action, "-j", "calc.py")
    assert spec(cli, "calc")["invokes"] == ["addfive"]
    assert files(sent[-1][1]) == ["calc.py"]
    assert "-j absent.py: there is no such file" in cli("apply", "-f", action, "-j", "absent.py").err


# -- calls


def test_trigger_prints_the_answer(cli: Cli, gateway: Gateway) -> None:
    path = f"/function/{cli.namespace}/hello"
    gateway.answers[path] = (200, {"Content-Type": "application/json"}, [b'{"sum":', b" 3}"])
    assert cli.ok("trigger", "hello", "-d", '{"a": 1}') == '{"sum": 3}'
    method, _, headers, body = gateway.seen[0]
    assert (method, headers["Content-Type"], body) == ("POST", "application/json", b'{"a": 1}')
    cli.file("p.json", '{"b": 2}')
    cli.ok("trigger", "hello", "-d", "@p.json")
    cli.ok("trigger", "hello", "-d", "-", stdin='{"c": 3}')
    cli.ok("trigger", "hello")
    assert [seen[3] for seen in gateway.seen[1:]] == [b'{"b": 2}', b'{"c": 3}', b"{}"]
    assert "this is not JSON" in cli.fails("trigger", "hello", "-d", "{a: 1}")


def test_exit_codes_tell_whose_fault_it_was(cli: Cli, gateway: Gateway) -> None:
    base = f"/function/{cli.namespace}"
    gateway.answers[f"{base}/calc"] = (400, {}, [b'{"why": "no operator"}'])
    done = cli("trigger", "calc")
    assert (done.code, done.out) == (4, '{"why": "no operator"}\n')
    assert "calc answered 400 Bad Request" in done.err
    told = {"error": "ZeroDivisionError", "message": "division by zero", "traceback": "Traceback …\n  1 / 0\n"}
    gateway.answers[f"{base}/div"] = (500, {"Minik8s-Error": "FunctionError"}, [json.dumps(told).encode()])
    done = cli("trigger", "div")
    assert (done.code, done.out) == (5, "")
    assert "div answered 500 FunctionError: ZeroDivisionError: division by zero\nTraceback …\n  1 / 0" in done.err
    assert 'there is no function "absent"' in cli.fails("trigger", "absent")
    gateway.answers[f"{base}/div"] = (503, {"Minik8s-Error": "LoadError"}, [b'{"message": "it is broken"}'])
    done = cli("trigger", "div")
    assert (done.code, done.err) == (5, "error: div answered 503 LoadError: it is broken\n")


def test_invoke_is_any_request(cli: Cli, gateway: Gateway) -> None:
    path = f"/function/{cli.namespace}/shop/items/7?full=1"
    gateway.answers[path] = (200, {"X-Served-By": "shop"}, [b"seven"])
    done = cli("func", "invoke", "shop", "-p", "items/7?full=1", "-H", "X-A: 1", "-i")
    assert (done.code, done.out) == (0, "seven")
    assert "X-Served-By: shop" in done.err
    assert (gateway.seen[0][0], gateway.seen[0][2]["X-A"]) == ("GET", "1")
    gateway.answers[f"/function/{cli.namespace}/shop"] = (202, {}, [b'{"id": "c-1"}'])
    assert cli.ok("func", "invoke", "shop", "-d", "{}", "--async", "--key", "once") == "c-1\n"
    headers = gateway.seen[1][2]
    assert (headers["Prefer"], headers["Idempotency-Key"]) == ("respond-async", "once")


def test_without_a_gateway_it_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIK8S_GATEWAY", raising=False)
    assert "no node has a gateway for functions" in cli.fails("trigger", "x")
    assert "no gateway can be reached" in cli.fails("trigger", "x", "--gateway", "http://127.0.0.1:1")


# -- traffic


def revise(cli: Cli, name: str, *states: str) -> None:
    """Revisions as the controllers would have made them; each is Ready True or False."""
    api = f"/apis/faas.minik8s.io/v1/namespaces/{cli.namespace}/functionrevisions"

    async def make(client: Any) -> None:
        for number, state in enumerate(states, 1):
            meta = {"name": f"{name}-{number:05d}"}
            body: Json = {"apiVersion": "faas.minik8s.io/v1", "kind": "FunctionRevision", "metadata": meta,
                          "spec": {"function": name, "number": number}}  # fmt: skip
            await client.transport.request("POST", api, body=json.dumps(body).encode())
            condition = {"type": "Ready", "status": state, "reason": "Loaded" if state == "True" else "LoadError",
                         "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
            patch = json.dumps({"status": {"conditions": [condition]}}).encode()
            await client.transport.request("PATCH", f"{api}/{meta['name']}/status", body=patch,
                                           content_type="application/merge-patch+json")  # fmt: skip
        share = [{"revision": f"{name}-{len(states):05d}", "percent": 100}]
        patch = json.dumps({"status": {"traffic": share}}).encode()
        path = f"/apis/faas.minik8s.io/v1/namespaces/{cli.namespace}/functions/{name}/status"
        await client.transport.request("PATCH", path, body=patch, content_type="application/merge-patch+json")

    cli.server.ask(make)


def test_traffic_and_rollback(cli: Cli, sent: list[tuple[str, bytes]]) -> None:
    cli.file("f.py", CODE)
    cli.ok("func", "add", "f", "--no-wait")
    assert "no older revision" in cli.fails("func", "rollback", "f")
    revise(cli, "f", "True", "False", "True")
    cli.ok("func", "rollback", "f")
    assert spec(cli, "f")["traffic"] == [{"revision": "f-00001", "percent": 100}]  # the one between never worked
    cli.ok("func", "traffic", "f", "1=90", "f-00003=10%")
    assert spec(cli, "f")["traffic"][1] == {"revision": "f-00003", "percent": 10}
    told = cli("func", "update", "f", "--max", "3", "--no-wait").err
    assert "traffic stays as it was set (f-00001 90%, f-00003 10%)" in told
    cli.ok("func", "traffic", "f", "--latest")
    assert spec(cli, "f").get("traffic", []) == []
    assert "f-00003 has" not in cli.fails("func", "rollback", "f", "--to", "7")
    assert "f has: f-00001, f-00002, f-00003" in cli.fails("func", "rollback", "f", "--to", "7")
    for words in (("rollback", "f", "--to", "2"), ("traffic", "f", "1=50", "2=50")):
        assert "f-00002 cannot answer calls (LoadError)" in cli.fails("func", *words)
    assert "is no share" in cli.fails("func", "traffic", "f", "f-00001")
    assert "100 percent together" in cli.fails("func", "traffic", "f", "1=50")
    shown = cli.ok("func", "get", "f")
    assert "f-00002    False   LoadError" in shown
    assert "100%" in shown


# -- uploads


class Chunks:
    """A server that takes chunks, and loses its place once."""

    def __init__(self, size: int) -> None:
        self.size, self.data, self.lost = size, b"", False

    def get(self, where: str) -> Json:
        return {"size": self.size, "received": len(self.data)}

    def send(self, method: str, where: str, chunk: bytes, query: Json) -> Json:
        if len(self.data) > upload.CHUNK and not self.lost:
            self.lost, self.data = True, self.data[: upload.CHUNK]
            raise Conflict("go on from there", details={"received": len(self.data)})
        assert int(query["offset"]) == len(self.data)
        self.data += chunk
        return {"size": self.size, "received": len(self.data)}


def test_an_upload_goes_on_where_it_was_cut_off() -> None:
    data = bytes(range(256)) * (upload.CHUNK // 64)
    wire = Chunks(len(data))
    upload.send(type("C", (), {"wire": wire})(), "/x", data)
    assert wire.lost
    assert wire.data == data


def test_requirements_of_an_archive(tmp_path: Path) -> None:
    packed = archives.pack_files({"func.py": b"", "requirements.txt": b"a==1\n\n# b\nc"})
    assert code.requirements_in(packed) == ["a==1", "c"]
