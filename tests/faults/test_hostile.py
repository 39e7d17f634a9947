"""Strangers before the API server, over TLS: a clear 4xx for each, the agent stays up, others are served meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.agent import Agent, answers, until
from tests.faults.api import admin_context, pod
from tests.patience import patience

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
CORE = "/api/v1/namespaces/default"
IDLE = 1000
DRIPPING = 50
HEAD_SECONDS, BODY_SECONDS = 30, 60  # the server's patience with those who are slow to ask


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A control plane alone."""
    agent = Agent(tmp_path_factory.mktemp("hostile") / "data", options=("--role", "master"))
    agent.start(ready=False)
    until(lambda: agent.pid is None or answers(agent.port, "/readyz"), what=lambda: agent.log)
    yield agent
    alive = agent.pid is not None
    assert agent.stop() == 0
    assert alive
    assert "Traceback" not in agent.log, agent.log


@dataclass
class Answer:
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Stranger:
    """A client of the API that says exactly what it is told to."""

    port: int
    context: ssl.SSLContext

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return self.context.wrap_socket(plain, server_hostname="127.0.0.1")

    def raw(self, data: bytes) -> Answer:
        """Send these bytes; the answer, however much of them the server has read."""
        return asyncio.run(asyncio.wait_for(self._raw(data), 30))

    async def _raw(self, data: bytes) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)
        writer.write(data)  # goes on by itself while we read
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").splitlines()
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            body = await reader.readexactly(int(headers["content-length"]))
        finally:
            writer.transport.abort()
        return Answer(int(first.split()[1]), headers, body)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=20, context=self.context)
        try:
            given = {"content-type": "application/json", **(headers or {})}
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, obj: Any) -> Answer:
        return self.ask("POST", path, json.dumps(obj).encode())


@pytest.fixture(scope="module")
def stranger(agent: Agent) -> Stranger:
    return Stranger(agent.port, admin_context(agent))


def refused(answer: Answer, *codes: int) -> str:
    """The message of a Status that says 4xx."""
    assert 400 <= answer.code < 500, (answer.code, answer.body[:500])
    assert not codes or answer.code in codes, (answer.code, answer.body[:500])
    status = answer.json
    assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", answer.code)
    assert status["message"]
    assert status["reason"]
    return str(status["message"])


@dataclass
class Bystander:
    """Somebody with honest work, all the while."""

    stranger: Stranger
    times: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def work(self, over: threading.Event) -> None:
        number = 0
        while not over.wait(0.05):
            number += 1
            began = time.monotonic()
            try:
                answer = self.stranger.post(f"{CORE}/configmaps", {"metadata": {"name": f"honest-{number}"}})
                if answer.code != 201:
                    self.failures.append(f"{answer.code}: {answer.body[:200]!r}")
            except (OSError, HTTPException) as error:
                self.failures.append(repr(error))
            self.times.append(time.monotonic() - began)


@dataclass
class Slow:
    """Clients that never finish what they say, begun before the other tests; `closed` counts those that were ended."""

    heads: list[ssl.SSLSocket] = field(default_factory=list)
    bodies: list[ssl.SSLSocket] = field(default_factory=list)
    idle: list[ssl.SSLSocket] = field(default_factory=list)
    began: float = 0.0

    def drip(self, over: threading.Event) -> None:
        while not over.wait(1):
            for sock in (*self.heads, *self.bodies):
                try:
                    sock.sendall(b"x")
                except OSError:
                    continue


@pytest.fixture(scope="module", autouse=True)
def slow(stranger: Stranger) -> Iterator[Slow]:
    """While all these tests run: clients that drip a head or a body, and idle ones."""
    slow = Slow()
    head = f"GET {CORE}/pods HTTP/1.1\r\nHost: x\r\nX-Slow: "
    body = f"POST {CORE}/pods HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
    over = threading.Event()
    for _ in range(DRIPPING):
        slow.heads.append(stranger.connect())
        slow.heads[-1].sendall(head.encode())
        slow.bodies.append(stranger.connect())
        slow.bodies[-1].sendall(body.encode())
    slow.began = time.monotonic()
    for _ in range(IDLE):
        slow.idle.append(stranger.connect())
    thread = threading.Thread(target=slow.drip, args=(over,), daemon=True)
    thread.start()
    yield slow
    over.set()
    thread.join()
    for sock in (*slow.heads, *slow.bodies, *slow.idle):
        sock.close()


@pytest.fixture(scope="module", autouse=True)
def bystander(stranger: Stranger, slow: Slow) -> Iterator[Bystander]:
    one, over = Bystander(stranger), threading.Event()
    thread = threading.Thread(target=one.work, args=(over,), daemon=True)
    thread.start()
    yield one
    over.set()
    thread.join()
    assert one.failures == []
    assert len(one.times) > 20
    median, worst = statistics.median(one.times), max(one.times)
    print(f"bystander: {len(one.times)} writes, median {median * 1000:.0f} ms, worst {worst * 1000:.0f} ms")
    assert median < patience(0.2)
    assert worst < patience(3)


# -- bodies


def test_ten_megabytes(stranger: Stranger) -> None:
    big = json.dumps({"metadata": {"name": "big"}, "data": {"a": "x" * 10_000_000}}).encode()
    head = f"POST {CORE}/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    assert "larger than" in refused(stranger.raw(f"{head}Content-Length: {len(big)}\r\n\r\n".encode() + big), 413)
    assert "larger than" in refused(
        stranger.raw(f"{head}Content-Length: {len(big)}\r\n\r\n".encode()), 413
    )  # announced
    chunk = b"%x\r\n" % len(big) + big + b"\r\n0\r\n\r\n"
    assert "larger than" in refused(stranger.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk), 413)


def test_a_body_that_unpacks_to_gigabytes(stranger: Stranger) -> None:
    import zlib

    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(b" " * 100_000_000) + packer.flush()
    answer = stranger.ask("POST", f"{CORE}/configmaps", bomb, {"content-encoding": "gzip"})
    refused(answer, 400, 413, 415)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' * 100_000,
        b"[" * 1_000_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"metadata":{"name":"a"},"data":' + b'{"a":' * 500 + b"1" + b"}" * 501,
        b'{"metadata":{"name":"a"',
        b'{"metadata":{"name":"a"}}}',
        b'\xff\xfe{"metadata":{"name":"a"}}',
        b'{"metadata":{"name":"a\xc3\x28"}}',
        b'{"metadata":{"name":"\\ud800"}}',
        b"\x00" * 1000,
        b"",
        b"null",
        b"[]",
        b"k8s\x00" + b"\xff" * 100,
        b"kind: ConfigMap\nmetadata: {name: a}\n",
    ],
    ids=range(15),
)
def test_bodies_that_are_no_objects(stranger: Stranger, body: bytes) -> None:
    refused(stranger.ask("POST", f"{CORE}/configmaps", body))
    refused(stranger.ask("POST", f"{CORE}/configmaps", body, {"content-type": "application/vnd.kubernetes.protobuf"}))
    refused(
        stranger.ask(
            "PATCH", f"{CORE}/configmaps/kube-root-ca.crt", body, {"content-type": "application/merge-patch+json"}
        )
    )
    refused(stranger.ask("POST", f"{CORE}/configmaps", body, {"content-type": "text/\xff;x=\x80"}), 415)


# -- wrong types, by the server's own schema

WRONG = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20) | st.just("x" * 5000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@dataclass
class Schemas:
    """`/openapi/v2` of the server: where each kind is created, and what it should look like."""

    document: dict[str, Any]

    def kinds(self) -> list[tuple[str, str]]:
        """(path, definition)"""
        found = []
        for path, methods in sorted(self.document["paths"].items()):
            post = methods.get("post", {})
            body = [p for p in post.get("parameters", ()) if p.get("in") == "body" and "$ref" in p.get("schema", {})]
            if body and "{name}" not in path:
                found.append((path.replace("{namespace}", "default"), body[0]["schema"]["$ref"].rpartition("/")[2]))
        return found

    def value(self, draw: Any, schema: dict[str, Any], depth: int) -> Any:
        """Mostly what it should be; sometimes anything."""
        if draw(st.integers(0, 11)) == 0:
            return draw(WRONG)
        if "$ref" in schema:
            schema = self.document["definitions"][schema["$ref"].rpartition("/")[2]]
        match schema.get("type"):
            case "array":
                return [self.value(draw, schema.get("items", {}), depth - 1) for _ in range(draw(st.integers(0, 2)))]
            case "object" | None if schema.get("properties") and depth > 0:
                names = sorted(schema["properties"])
                chosen = set(draw(st.lists(st.sampled_from(names), max_size=4))) | set(schema.get("required", ()))
                if "spec" in names and depth > 4:
                    chosen |= {"metadata", "spec"}
                return {n: self.value(draw, schema["properties"].get(n, {}), depth - 1) for n in sorted(chosen)}
            case "object":
                return draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
            case "integer":
                return draw(st.integers(-2, 70000))
            case "boolean":
                return draw(st.booleans())
        return draw(st.sampled_from(["a", "x-1", "", "10Mi", "100m", "../..", "2024-01-01T00:00:00Z", "é\x00"]))


@pytest.fixture(scope="module")
def schemas(stranger: Stranger) -> Schemas:
    return Schemas(stranger.ask("GET", "/openapi/v2").json)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_wrong_types_in_every_field_of_every_kind(stranger: Stranger, schemas: Schemas, data: st.DataObject) -> None:
    path, definition = data.draw(st.sampled_from(schemas.kinds()))
    obj = schemas.value(data.draw, {"$ref": definition}, 7)
    if isinstance(obj, dict):
        for key in ("apiVersion", "kind"):
            if data.draw(st.booleans()):
                obj.pop(key, None)
        if isinstance(obj.get("metadata"), dict) and data.draw(st.booleans()):
            obj["metadata"]["name"] = "h-" + data.draw(st.text("abc", min_size=1, max_size=12))
            obj["metadata"].pop("namespace", None)
    query = data.draw(st.sampled_from(["", "?fieldValidation=Strict", "?dryRun=All", "?fieldValidation=Ignore"]))
    answer = stranger.post(path + query, obj)
    if answer.code >= 300:
        refused(answer)


def test_what_got_in_can_be_read(stranger: Stranger, schemas: Schemas) -> None:
    for path, _ in schemas.kinds():
        for accept in ("application/json", "application/json;as=Table;v=v1;g=meta.k8s.io"):
            assert stranger.ask("GET", path, headers={"accept": accept}).code in (200, 405), path


# -- paths


TRAVERSALS = [
    "..",
    ".",
    "../../etc/passwd",
    "a/../b",
    "/etc/passwd",
    "a\\..\\b",
    "..%2f..",
    "a\x00b",
    "a\nb",
    "é" * 300,
]


@pytest.mark.parametrize("name", TRAVERSALS, ids=range(len(TRAVERSALS)))
def test_names_that_lead_elsewhere(stranger: Stranger, name: str) -> None:
    for path, obj in (
        (f"{CORE}/configmaps", {"metadata": {"name": name}}),
        (f"{CORE}/pods", pod(name)),
        ("/api/v1/namespaces", {"metadata": {"name": name}}),
    ):
        assert "name" in refused(stranger.post(path, obj), 422)
    for path in (
        f"{CORE}/pods/{quote(name, safe='')}",
        f"/api/v1/namespaces/{quote(name, safe='')}/pods",
        quote(f"{CORE}/pods/{name}/log"),
    ):
        if stranger.ask("GET", path).code != 200:  # a list that happens to be meant
            refused(stranger.ask("GET", path))


@pytest.mark.parametrize("key", ["..", "../x", "a/b", "", ".", "..x", "a" * 300, "é"], ids=range(8))
def test_keys_that_lead_elsewhere(stranger: Stranger, key: str) -> None:
    for kind in ("configmaps", "secrets"):
        answer = stranger.post(f"{CORE}/{kind}", {"metadata": {"generateName": "keys-"}, "data": {key: "eA=="}})
        assert "data" in refused(answer, 422)


def volumes(**volume: Any) -> dict[str, Any]:
    mounted = pod("x", {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, volumes=[{"name": "v", **volume}])
    mounted["metadata"] = {"generateName": "paths-"}
    return mounted


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/abs", "..", ""], ids=range(5))
def test_volumes_that_lead_elsewhere(stranger: Stranger, path: str) -> None:
    item = {"key": "k", "path": path}
    field_item = {"path": path, "fieldRef": {"fieldPath": "metadata.name"}}
    for volume in (
        {"configMap": {"name": "c", "items": [item]}},
        {"secret": {"secretName": "s", "items": [item]}},
        {"downwardAPI": {"items": [field_item]}},
        {"projected": {"sources": [{"configMap": {"name": "c", "items": [item]}}]}},
        {"projected": {"sources": [{"downwardAPI": {"items": [field_item]}}]}},
        {"projected": {"sources": [{"serviceAccountToken": {"path": path}}]}},
    ):
        assert "path" in refused(stranger.post(f"{CORE}/pods", volumes(**volume)), 422), volume


def test_mounts_that_lead_elsewhere(stranger: Stranger) -> None:
    for mount in ({"subPath": "../x"}, {"subPath": "/abs"}, {"subPath": "a/../../b"}, {"subPathExpr": "../$(A)"}):
        body = volumes(emptyDir={})
        body["spec"]["containers"][0]["volumeMounts"][0] |= mount
        assert next(iter(mount)) in refused(stranger.post(f"{CORE}/pods", body), 422)
    for path in ("/a/../../etc", "..", ""):
        assert "hostPath" in refused(stranger.post(f"{CORE}/pods", volumes(hostPath={"path": path})), 422)


# -- parameters and heads


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=abc", "limit=" + "9" * 400, "limit=1&continue=garbage", "limit=1&continue=%ff%fe",
     "continue=e30", "labelSelector=a%3D%3D%3Db", "labelSelector=%FF", "labelSelector=a+in+(" + "x," * 50 + ")(",
     "fieldSelector=spec.x%3D1",
     "resourceVersion=abc", "resourceVersion=-5", "resourceVersionMatch=Sometimes&resourceVersion=1",
     "watch=true&resourceVersion=999999999999999999999", "timeoutSeconds=-3&watch=true", "timeoutSeconds=x&watch=true"],
)  # fmt: skip
def test_parameters_that_make_no_sense(stranger: Stranger, query: str) -> None:
    refused(stranger.ask("GET", f"{CORE}/configmaps?{query}"))


def test_selectors_of_any_size(stranger: Stranger) -> None:
    def ask(count: int) -> Answer:
        return stranger.ask(
            "GET", f"{CORE}/configmaps?labelSelector=" + quote(f"a in ({','.join(f'v{n}' for n in range(count))})")
        )

    assert ask(500).code == 200
    refused(ask(100_000), 400, 414, 431)


@pytest.mark.parametrize(
    "accept",
    ["application/xml", "text/html", "*/*;q=0", ",,,;;;", "application/json;as=Nonsense;v=v9;g=x", "a" * 5000,
     "application/json" * 500, "\x80\xff", "application/json;" * 900],
    ids=range(9),
)  # fmt: skip
def test_accept_headers(stranger: Stranger, accept: str) -> None:
    answer = stranger.ask("GET", f"{CORE}/configmaps", headers={"accept": accept})
    if answer.code != 200:
        refused(answer, 400, 406)
    else:
        assert answer.json["kind"] == "ConfigMapList"


HEAD = f"GET {CORE}/configmaps HTTP/1.1\r\nHost: x\r\n"
POST = f"POST {CORE}/pods HTTP/1.1\r\nHost: x\r\n"
REQUESTS = {
    "a header of 64 KB": f"{HEAD}X: {'a' * 65536}\r\n\r\n",
    "ten thousand headers": HEAD + "".join(f"X-{n}: a\r\n" for n in range(10_000)) + "\r\n",
    "a line of 100 KB": f"GET /{'a' * 100_000} HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": f"{POST}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{{}}   ",
    "length and chunks": f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": f"{POST}Content-Length: -5\r\n\r\n",
    "no chunk size": f"{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "no version": "GET /\r\n\r\n",
    "no HTTP": "\x16\x03\x01hello\r\n\r\n",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method": f"FETCH {CORE}/pods HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space before the colon": f"{HEAD}X : a\r\n\r\n",
    "bytes in the path": "GET /api/v1/namespaces/\xff\xfe/pods HTTP/1.1\r\nHost: x\r\n\r\n",
    "a broken escape": "GET /api/v1/namespaces/%zz/pods/%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
    "traversal": "GET /api/v1/../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "an upgrade to nothing": f"{HEAD}Connection: Upgrade\r\nUpgrade: nonsense\r\n\r\n",
}

FORGIVEN = {"an upgrade to nothing", "no version"}  # it may as well be ignored


@pytest.mark.parametrize("what", REQUESTS)
def test_requests_that_are_no_http(stranger: Stranger, what: str) -> None:
    answer = stranger.raw(REQUESTS[what].encode("latin-1"))
    if what not in FORGIVEN or answer.code != 200:
        refused(answer)


def test_what_is_no_tls(agent: Agent) -> None:
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\x00" * 100, b"\x00" * 10_000):
        with socket.create_connection(("127.0.0.1", agent.port), timeout=15) as sock:
            sock.sendall(data)
            while True:
                try:
                    if not sock.recv(4096):
                        break
                except ConnectionError:
                    break


# -- slow ones, last: their time is nearly up by now


def ended(sock: ssl.SSLSocket) -> bool:
    """The server has closed it, with an answer or without."""
    sock.settimeout(0.01)
    try:
        while sock.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_slow_clients_are_cut_off(slow: Slow, agent: Agent) -> None:
    for group, seconds in ((slow.heads, HEAD_SECONDS), (slow.bodies, BODY_SECONDS)):
        deadline = slow.began + seconds + patience(10)
        left = list(group)
        while left:
            left = [sock for sock in left if not ended(sock)]
            assert time.monotonic() < deadline, f"{len(left)} are left"
            time.sleep(0.5)
