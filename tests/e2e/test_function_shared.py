"""Functions of two users in one pod (isolation: Process): what each has, and what each breaks, is its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.agent import until
from tests.e2e.space import Space

KEEPER = """
import os, tempfile

def main(params):
    if params.get("do") == "write":
        with open("/tmp/own", "w") as own, tempfile.NamedTemporaryFile("w", delete=False) as other:
            own.write("secret"), other.write("secret")
        return ["/tmp/own", other.name, __file__]
    if params.get("do") == "read":
        return open("/tmp/own").read()
    return {"pod": os.environ["POD_NAME"], "pid": os.getpid(), "user": os.getuid(), "mark": os.environ.get("MARK")}
"""

SPY = """
import os, time

def tried(work, *words):
    try:
        return repr(work(*words))
    except OSError as error:
        return type(error).__name__

def read(path):
    return open(path, "rb").read()

def main(params):
    do = params.get("do")
    if do == "spy":
        pid = params["pid"]
        secrets = [f"/proc/{pid}/{name}" for name in ("environ", "mem", "maps", "cwd/func.py", "fd/0")]
        tries = {path: tried(read, path) for path in (*params["paths"], *secrets)}
        tries |= {f"unlink {path}": tried(os.unlink, path) for path in params["paths"]}
        tries |= {f"kill {each}": tried(os.kill, each, 9) for each in map(int, filter(str.isdigit, os.listdir("/proc")))
                  if each != os.getpid()}
        return tries | {"own environment": str("MARK" in os.environ)}
    if do == "die":
        os._exit(3)
    if do == "hang":
        time.sleep(60)
    held = []
    while do == "eat":
        held.append(bytearray(8 * 2**20))
    return {"pod": os.environ["POD_NAME"], "user": os.getuid()}
"""


@pytest.fixture
def space(agent: Any, request: pytest.FixtureRequest) -> Iterator[Space]:
    made = Space.make(agent, request.node.name)
    try:
        yield made
    finally:
        made.remove()


def shared(name: str, code: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": {"name": name},
            "spec": {"isolation": "Process", "code": {"inline": code}, "timeoutSeconds": 2, "concurrency": 4,
                     "resources": {"limits": {"memory": "128Mi"}},
                     "scale": {"maxReplicas": 1, "idleSeconds": 2}, **spec}}  # fmt: skip


def call(space: Space, name: str, **params: Any) -> tuple[int, Any]:
    connection = HTTPConnection(space.agent.address, space.agent.gateway_port, timeout=60)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/function/{space.name}/{name}", json.dumps(params).encode(), headers)
        response = connection.getresponse()
        data, kind = response.read(), response.headers.get("Content-Type") or ""
        return response.status, json.loads(data) if "json" in kind else data.decode()
    finally:
        connection.close()


def pods(space: Space) -> list[str]:
    found = space.get("pods", "-l", "faas.minik8s.io/function=Shared")
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


def test_functions_in_one_pod_harm_only_themselves(space: Space) -> None:
    space.apply(shared("keeper", KEEPER, env=[{"name": "MARK", "value": "secret"}]), shared("spy", SPY))
    space.wait("condition=Ready", "function.faas.minik8s.io/keeper", "function.faas.minik8s.io/spy", seconds=60)
    kept, spying = call(space, "keeper")[1], call(space, "spy")[1]
    assert kept["pod"] == spying["pod"]
    assert (kept["mark"], kept["user"] != spying["user"]) == ("secret", True)
    paths = call(space, "keeper", do="write")[1]
    status, tries = call(space, "spy", do="spy", pid=call(space, "keeper")[1]["pid"], paths=paths)
    assert status == 200
    assert tries.pop("own environment") == "False"
    assert set(tries.values()) <= {"PermissionError", "ProcessLookupError"}, tries
    assert call(space, "keeper", do="read") == (200, "secret")

    failures: list[Any] = []
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.02):
            if (answer := call(space, "keeper"))[0] != 200:
                failures.append(answer)

    beside = threading.Thread(target=go_on)
    beside.start()
    try:
        for do, wanted in (("die", 502), ("eat", 502), ("hang", 504), ("nothing", 200)):
            assert call(space, "spy", do=do)[0] == wanted, do
    finally:
        over.set()
        beside.join()
    assert failures == []
    assert kept["pod"] in pods(space)
    assert space.path(f"pod/{kept['pod']}", ".status.containerStatuses[*].restartCount") == "0"


@pytest.mark.long
def test_a_shared_pod_stays_for_who_is_left_and_goes_with_the_last(space: Space) -> None:
    space.apply(shared("keeper", KEEPER), shared("spy", SPY))
    space.wait("condition=Ready", "function.faas.minik8s.io/keeper", "function.faas.minik8s.io/spy", seconds=60)
    kept = call(space, "keeper")[1]["pod"]
    assert call(space, "spy")[1]["pod"] == kept
    space.k("delete", "function.faas.minik8s.io", "spy")
    until(lambda: call(space, "spy")[0] == 404)
    assert (call(space, "keeper")[1]["pod"], pods(space)) == (kept, [kept])
    until(lambda: not pods(space), seconds=60)  # nobody calls
    assert call(space, "keeper")[0] == 200
    space.k("delete", "function.faas.minik8s.io", "keeper")
    until(lambda: not pods(space), seconds=60)
