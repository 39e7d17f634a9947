"""Functions on a real node: every example applied and called, by the command line and over HTTP."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.agent import Agent, Ended, run, until
from tests.e2e.space import Space

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "configs" / "examples" / "functions"
APPLIED = ("calculator.yaml", "add-five.yaml", "waiting.yaml", "countdown.yaml", "asgi.yaml", "nightly.yaml")


class Faas:
    """A namespace with functions, as users see it."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def m(self, *words: str, **more: Any) -> Ended:
        """The minik8s command line in this namespace."""
        return self.space.agent.minik8s("-n", self.space.name, *words, **more)

    def open(
        self, target: str, body: Any = None, *, method: str = "POST", timeout: float = 30.0, **headers: str
    ) -> HTTPResponse:
        """The gateway's answer, not read yet. `target`: a function's name and what follows, or a path with a slash."""
        path = target if target.startswith("/") else f"/function/{self.space.name}/{target}"
        connection = HTTPConnection(self.space.agent.address, self.space.agent.gateway_port, timeout=timeout)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json", **headers})
        return connection.getresponse()

    def call(self, target: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """(status, answer): JSON decoded where it is that, else text."""
        response = self.open(target, body, **more)
        data = response.read()
        kind = response.headers.get("Content-Type") or ""
        return response.status, json.loads(data) if "json" in kind and data else data.decode(errors="replace")

    def ready(self, *names: str, seconds: float = 30) -> None:
        for name in names:
            self.space.wait("condition=Ready", f"function.faas.minik8s.io/{name}", seconds=int(seconds))

    def inline(self, name: str, code: str, **spec: Any) -> None:
        """A function out of a few lines, ready to be called."""
        made = {"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": {"name": name},
                "spec": {"code": {"inline": code}, **spec}}  # fmt: skip
        self.space.apply(made)
        self.ready(name)


@pytest.fixture(scope="module")
def faas(agent: Agent) -> Iterator[Faas]:
    """One namespace for the examples, all of them applied at once, so that they start side by side."""
    space = Space.make(agent, "functions")
    made = Faas(space)
    try:
        made.m("apply", *(word for name in APPLIED for word in ("-f", str(EXAMPLES / name))))
        yield made
    finally:
        space.remove()


# -- examples


def test_there_is_a_test_for_every_example() -> None:
    there = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.is_file()}
    elsewhere = {f"{name}.yaml" for name in ("map-reduce", "saga", "approval", "later")}  # test_workflows.py
    here = {"README.md", "hello/func.py", "hello/function.yaml", "requirements.yaml", "classic/words/func.py"}
    here |= {f"classic/{name}" for name in ("function.yaml", "action.yaml", "greet.py", "trigger.yaml")}
    assert there == {*APPLIED, *here, *elsewhere}


def test_a_folder_becomes_a_function_and_is_changed_in_place(faas: Faas, tmp_path: Path) -> None:
    code = tmp_path / "hello"
    code.mkdir()
    (code / "func.py").write_text((EXAMPLES / "hello" / "func.py").read_text())
    added = faas.m("func", "add", "hello", str(code))
    assert "hello is ready" in added.out
    assert faas.m("trigger", "hello", "-d", '{"name": "you"}').json == {"hello": "you"}
    pods = faas.space.out("get", "pods", "-l", "faas.minik8s.io/function=hello", "-o", "name")

    (code / "func.py").write_text('def main(params):\n    print("second")\n    return {"hallo": params["name"]}\n')
    faas.m("func", "update", "hello", str(code))
    assert faas.call("hello", {"name": "you"}) == (200, {"hallo": "you"})
    assert faas.space.out("get", "pods", "-l", "faas.minik8s.io/function=hello", "-o", "name") == pods

    (code / "func.py").write_text("import nothing_of_this_name\n")
    refused = faas.m("func", "update", "hello", str(code), check=False)
    assert refused.code == 1
    assert "hello cannot be loaded (LoadError)" in refused.err
    assert "No module named 'nothing_of_this_name'" in refused.err
    assert faas.call("hello", {"name": "you"}) == (200, {"hallo": "you"})

    faas.m("func", "rollback", "hello", "--to", "1")
    until(lambda: faas.call("hello", {"name": "me"}) == (200, {"hello": "me"}))
    assert "hello-00001" in faas.m("func", "get", "hello").out
    response = faas.open("hello", {"name": "marked"})
    response.read()
    id = response.headers["Minik8s-Call"]
    assert until(lambda: faas.m("func", "logs", "hello", "--call", id).out) == f"[{id}] somebody is marked\n"
    until(lambda: id in faas.m("func", "calls", "hello").out)
    # Its manifest does the same.
    faas.m("func", "traffic", "hello", "--latest")
    assert "configured" in faas.m("apply", "-f", str(EXAMPLES / "hello" / "function.yaml")).out
    until(lambda: faas.call("hello", {"name": "x"}) == (200, {"hello": "x"}))
    faas.m("func", "rm", "hello")
    assert 'there is no function "hello"' in faas.m("trigger", "hello", check=False).err


def test_the_calculator_answers_or_passes_on(faas: Faas) -> None:
    faas.ready("calculator", "addition", "multiplication")
    for operator, result in (("+", 5), ("*", 6), (">", False)):
        assert faas.call("calculator", {"operator": operator, "x": 2, "y": 3}) == (200, {"result": result})
    status, answer = faas.call("calculator", {"operator": "?", "x": 2, "y": 3})
    assert (status, answer) == (400, {"error": "unknown operator '?'"})
    done = faas.m("trigger", "calculator", "-d", '{"operator": "%"}', check=False)
    assert (done.code, done.json) == (4, {"error": "unknown operator '%'"})
    # A chain as a run: each hop is in its history, and its way in its graph.
    words = ("wf", "run", "--function", "calculator", "--name", "sum")
    given = '{"operator": "+", "x": 2, "y": 3}'
    assert faas.m(*words, "-d", given, "-w", "--timeout", "30s").json == {"result": 5}
    assert "function/calculator" in faas.space.out("get", "wfr", "sum")
    events = faas.m("wf", "history", "sum", "-o", "json").json
    hops = {event["details"]["name"]: event["details"]["output"] for event in events
            if event["type"] == "TaskStateExited"}  # fmt: skip
    assert list(hops) == ["calculator", "addition"]
    assert hops["calculator"] == {"next": "addition", "params": {"x": 2, "y": 3}, "chain": ["calculator"]}
    drawn = faas.m("wf", "graph", "sum").out
    assert "✓  addition [Task]" in drawn
    assert "   multiplication [Task]" in drawn
    refused = faas.m("wf", "run", "--function", "calculator", "-d", '{"operator": "?"}', "-w", check=False)
    assert (refused.code, "unknown operator '?'" in refused.err) == (1, True)
    # Only what is declared may be invoked.
    faas.space.k(
        "patch", "function.faas.minik8s.io", "calculator", "--type=merge", "-p", '{"spec":{"invokes":["addition"]}}'
    )
    until(lambda: faas.call("calculator", {"operator": "*", "x": 2, "y": 3})[0] == 500)
    assert faas.call("calculator", {"operator": "+", "x": 2, "y": 3}) == (200, {"result": 5})


def test_both_older_workflows_call_functions(faas: Faas) -> None:
    faas.ready("addfive", "printequals", "printnotequals", "square", "negate")
    for file, given, output in (
        ("add-five.json", None, {"said": "equal", "x": 10}),
        ("add-five.json", {"x": 6}, {"said": "not equal", "x": 11}),
        ("branches.yaml", None, {"x": 36}),
        ("branches.yaml", {"x": -1}, {"x": -4}),
    ):
        text = (ROOT / "configs" / "examples" / "workflows" / file).read_text()
        text = text.replace('"namespace": "default", ', "").replace("funcNamespace: default, ", "")
        text = text.replace(", funcNamespace: default", "")
        faas.m("apply", "-f", "-", stdin=text)
        name = "print" if file == "add-five.json" else "branches"
        words = ("-i", json.dumps(given)) if given else ()
        assert faas.m("wf", "run", name, "--wait", "--timeout", "30s", *words).json == output


def test_many_wait_at_once_in_one_process(faas: Faas) -> None:
    faas.ready("waiting")
    faas.call("waiting", {"seconds": 0})
    began = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: faas.call("waiting", {"seconds": 0.5}), range(10)))
    assert time.monotonic() - began < 3
    assert [status for status, _ in answers] == [200] * 10
    assert len({answer["process"] for _, answer in answers}) == 1


def test_pieces_come_as_they_are_made(faas: Faas) -> None:
    faas.ready("countdown")
    faas.call("countdown", {"from": 1, "pause": 0})
    began = time.monotonic()
    response = faas.open("countdown", {"from": 2, "pause": 0.4})
    assert response.readline() == b"2\n"
    first = time.monotonic() - began
    assert response.read() == b"1\nlift-off\n"
    assert time.monotonic() - began - first > 0.5


def test_an_application_with_a_path_of_its_own(faas: Faas) -> None:
    faas.ready("site")
    faas.space.until("trigger.faas.minik8s.io site", lambda t: _condition(t, "Accepted") == "True")
    assert until(lambda: faas.call("/site/some/page", method="GET")) == (200, "GET /site/some/page\n")
    assert faas.call("site/other?x=1", method="PUT") == (200, "PUT /other\n")
    assert faas.call("/elsewhere", method="GET")[0] == 404


def test_called_by_the_clock(faas: Faas) -> None:
    faas.ready("nightly")
    faas.space.until("trigger.faas.minik8s.io nightly", lambda t: _condition(t, "Accepted") == "True")
    assert faas.call("nightly", {"team": "all"}) == (200, {"sent": True})  # 3:30 is not waited for
    until(lambda: "report for all" in faas.m("func", "logs", "nightly").out)


@contextmanager
def index(folder: Path, faas: Faas) -> Iterator[str]:
    """A package index of static files (PEP 503: a page of links for each package) where pods reach it; its URL."""
    for package in folder.iterdir():
        links = (f'<a href="{wheel.name}">{wheel.name}</a>\n' for wheel in package.glob("*.whl"))
        (package / "index.html").write_text("<!DOCTYPE html>\n" + "".join(links))
    (node,) = faas.space.get("nodes")
    address = next(each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")
    with ThreadingHTTPServer(("", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{address}:{server.server_address[1]}/"
        finally:
            server.shutdown()


def test_requirements_are_installed_once(faas: Faas, tmp_path: Path) -> None:
    wheels = tmp_path / "index" / "greeting"
    wheels.mkdir(parents=True)
    info = "greeting-1.0.dist-info"
    with zipfile.ZipFile(wheels / "greeting-1.0-py3-none-any.whl", "w") as made:
        made.writestr("greeting.py", "WORDS = 'good morning'\n")
        made.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{info}/RECORD", "")
    text = (EXAMPLES / "requirements.yaml").read_text().replace("/opt/wheels", str(wheels))
    faas.m("apply", "-f", "-", stdin=text)
    broken = {"apiVersion": "faas.minik8s.io/v1", "kind": "Environment", "metadata": {"name": "broken"},
              "spec": {"requirements": ["absent>=9"], "findLinks": str(wheels), "poolSize": 0}}  # fmt: skip
    with index(tmp_path / "index", faas) as url:
        indexed, unknown = ({"apiVersion": "faas.minik8s.io/v1", "kind": "Environment", "metadata": {"name": name},
                             "spec": {"requirements": requirements, "indexUrl": url, "poolSize": 0}}
                            for name, requirements in (("indexed", ["greeting"]), ("unknown", ["absent"])))  # fmt: skip
        code = "import greeting\n\ndef main(params):\n    return greeting.WORDS\n"
        caller = {"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": {"name": "from-index"},
                  "spec": {"environment": "indexed", "code": {"inline": code}}}  # fmt: skip
        faas.space.apply(broken, indexed, unknown, caller)
        faas.ready("from-index", seconds=60)
        lost = faas.space.until(
            "environment.faas.minik8s.io unknown", lambda e: _reason(e) == "BuildFailed", seconds=40
        )
    assert "No matching distribution found for absent" in _ready(lost)["message"]
    assert faas.call("from-index", {}) == (200, "good morning")
    faas.ready("greeter", seconds=60)
    assert faas.call("greeter", {"name": "all"}) == (200, {"said": "good morning all"})
    built = faas.space.get("environment.faas.minik8s.io", "greetings")["status"]
    assert built["installed"] == ["greeting==1.0"]

    found = faas.space.until("environment.faas.minik8s.io broken", lambda e: _reason(e) == "BuildFailed", seconds=40)
    assert "No matching distribution found for absent>=9" in _ready(found)["message"]

    text = text.replace('params.get("name", "world")', '"nobody"').replace("params.get('name', 'world')", "'nobody'")
    faas.m("apply", "-f", "-", stdin=text)
    until(lambda: faas.call("greeter", {}) == (200, {"said": "good morning nobody"}))
    after = faas.space.get("environment.faas.minik8s.io", "greetings")["status"]
    assert after == built  # nothing was built anew


def test_older_manifests_are_taken_as_they_are(faas: Faas) -> None:
    faas.m("apply", "-f", str(EXAMPLES / "classic" / "function.yaml"))
    faas.m("apply", "-f", str(EXAMPLES / "classic" / "action.yaml"), "-j", str(EXAMPLES / "classic" / "greet.py"))
    faas.m("apply", "-f", str(EXAMPLES / "classic" / "trigger.yaml"))
    faas.ready("countwords", "greet")
    until(lambda: faas.call("/greet?text=one+two+three", method="GET") == (200, {"words": 3}))
    assert faas.call("/greet", method="GET") == (400, "nothing to count")
    assert faas.call("/greet", method="POST")[0] in (404, 405)


# -- trouble


FUZZED = """
import os, sys, time

def main(params):
    what = params.get("do", "nothing")
    if what == "raise":
        raise ValueError("on purpose")
    if what == "exit":
        sys.exit(3)
    if what == "die":
        os._exit(3)
    if what == "hang":
        time.sleep(60)
    if what == "fork":
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    if what == "print":
        for _ in range(100):
            print("x" * 2**20)
    if what == "object":
        return {"it": object()}
    if what == "eat":
        held = []
        while True:
            held.append(bytearray(8 * 2**20))
    return {"did": what}
"""


def test_a_fuzzed_function_harms_only_its_own_call(faas: Faas) -> None:
    faas.inline("fuzzed", FUZZED, timeoutSeconds=3, resources={"limits": {"memory": "128Mi"}})
    assert faas.call("fuzzed", {}) == (200, {"did": "nothing"})
    failures: list[Any] = []
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(0.02):
            answer = faas.call("fuzzed", {"do": "nothing"})
            if answer != (200, {"did": "nothing"}):
                failures.append(answer)

    beside = threading.Thread(target=go_on)
    beside.start()
    try:
        wanted = {"raise": 500, "exit": (500, 502), "die": 502, "hang": 504, "fork": 200, "print": 200, "object": 500,
                  "eat": (500, 502)}  # fmt: skip
        for what, status in wanted.items():
            got = faas.call("fuzzed", {"do": what}, timeout=30)
            assert got[0] in (status if isinstance(status, tuple) else (status,)), (what, got)
            if what == "raise":
                assert (got[1]["error"], got[1]["message"]) == ("ValueError", "on purpose")
    finally:
        ended.set()
        beside.join()
    assert failures == []
    (pod,) = faas.space.get("pods", "-l", "faas.minik8s.io/function=fuzzed")
    assert [each["restartCount"] for each in pod["status"]["containerStatuses"]] == [0]


def test_a_pod_answers_at_its_own_port(faas: Faas) -> None:
    faas.ready("addition")
    faas.call("addition", {"x": 1, "y": 1})  # that there is a pod, with the code in it
    pods = faas.space.get("pods", "-l", "faas.minik8s.io/function=addition")
    (address,) = (pod["status"]["podIP"] for pod in pods if "deletionTimestamp" not in pod["metadata"])

    def curl(*words: str) -> str:
        return run([*faas.space.agent.prefix, "curl", "-sS", "--max-time", "10", *words]).out

    assert json.loads(curl("-d", '{"x": 20, "y": 22}', f"http://{address}:8080/")) == {"result": 42}
    # Code is loaded by gateways alone.
    refused = curl(
        "-X", "PUT", "-d", "", "-w", "%{http_code}", "-o", "/dev/null", f"http://{address}:8080/-/revisions/x"
    )
    assert refused == "401"


def test_queued_calls_are_done_and_tell_their_result(faas: Faas) -> None:
    faas.ready("multiplication")
    done = faas.m("func", "invoke", "multiplication", "-d", '{"x": 6, "y": 7}', "--async", "--watch")
    assert done.json == {"result": 42}
    faas.inline("failing", "def main(params):\n    1 / 0\n", **{"async": {"maxAttempts": 1}})
    failed = faas.m("func", "invoke", "failing", "-d", "{}", "--async", "--watch", check=False)
    assert failed.code == 5
    assert "ZeroDivisionError" in failed.err
    letters = until(lambda: faas.m("func", "dlq", "list", "failing", "-o", "json").json)
    assert len(letters) == 1
    faas.space.apply({"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": {"name": "failing"},
                      "spec": {"code": {"inline": "def main(params):\n    return 'mended'\n"}}})  # fmt: skip
    until(lambda: faas.call("failing", {}) == (200, "mended"))
    assert "1 calls of failing queued again" in faas.m("func", "dlq", "redrive", "failing", "--all").out
    id = letters[0]["metadata"]["name"]
    until(lambda: "Succeeded" in faas.m("func", "calls", "failing", id).out)


def test_new_code_loses_no_request(faas: Faas) -> None:
    faas.inline("live", "def main(params):\n    return {'version': 0}\n")
    seen: list[Any] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.02):
            status, answer = faas.call("live", {})
            seen.append(answer["version"] if status == 200 else (status, answer))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for version in (1, 2, 3):
            code = f"def main(params):\n    return {{'version': {version}}}\n"
            faas.inline("live", code)
            until(lambda version=version: seen and seen[-1] == version)  # type: ignore[misc]
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert set(seen) == {0, 1, 2, 3}


def _condition(obj: Any, type: str) -> str:
    found = [each for each in (obj.get("status") or {}).get("conditions") or () if each["type"] == type]
    return found[0]["status"] if found else ""


def _ready(obj: Any) -> Any:
    return next((each for each in (obj.get("status") or {}).get("conditions") or () if each["type"] == "Ready"), {})


def _reason(obj: Any) -> str:
    return str(_ready(obj).get("reason", ""))
