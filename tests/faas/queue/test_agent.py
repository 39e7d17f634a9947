"""A real agent that is killed while asynchronous calls come in and are made: none is lost, each has one result."""

from __future__ import annotations

import json
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from minik8s.api.errors import StatusError
from minik8s.cli.connection import Choice, Cluster
from minik8s.cli.wire import Unreachable
from tests.agent import Agent, until

Json = dict[str, Any]
FUNCTIONS = "/apis/faas.minik8s.io/v1/namespaces/default/functions"
READY = {"type": "Ready", "status": "True", "reason": "Test", "message": ""}


class Gateway(BaseHTTPRequestHandler):
    """A function that doubles, at every path; `hold` keeps its calls under way."""

    protocol_version = "HTTP/1.1"
    made: ClassVar[Counter[str]] = Counter()
    hold: ClassVar[threading.Event] = threading.Event()

    def do_POST(self) -> None:
        number = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.made[self.headers["Idempotency-Key"]] += 1
        self.hold.wait(30)
        body = json.dumps(number * 2).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def gateway() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        Gateway.hold.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def master(gateway: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.setenv("MINIK8S_DASHBOARD_LISTEN", "off")
    with tempfile.TemporaryDirectory(prefix="minik8s-calls-") as folder:
        options = ("--role", "master", "--node-ip", "127.0.0.1", "--node-monitor-grace", "10m")
        agent = Agent(Path(folder) / "data", options=options)
        agent.start()
        try:
            node = {"metadata": {"name": "n1", "annotations": {"faas.minik8s.io/gateway": gateway}}}
            ask(agent, "POST", "/api/v1/nodes", node)
            ready = {"metadata": {"name": "n1"}, "status": {"conditions": [READY]}}
            ask(agent, "PUT", "/api/v1/nodes/n1/status", ready)
            code = {"inline": "def main(n):\n    return n * 2\n"}
            ask(agent, "POST", FUNCTIONS, {"metadata": {"name": "double"}, "spec": {"code": code}})
            yield agent
        finally:
            agent.kill9()


MINE = threading.local()


def ask(agent: Agent, method: str, path: str, body: Any = None) -> Json:
    """What the server answers, over one connection of the thread."""
    if getattr(MINE, "agent", None) is not agent:
        MINE.agent, MINE.cluster = agent, Cluster(Choice(kubeconfig=str(agent.kubeconfig)), timeout=10)
    found: Json = json.loads(MINE.cluster.wire.call(method, path, body=body))
    return found


def test_none_is_lost(master: Agent, gateway: str) -> None:
    accepted: dict[int, str] = {}

    def send(number: int) -> None:
        for _ in range(200):
            try:
                accepted[number] = ask(master, "POST", f"{FUNCTIONS}/double/calls", number)["id"]
                return
            except (StatusError, Unreachable, OSError):  # it is being killed
                stopped.wait(0.2)

    stopped = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(send, number) for number in range(60)]
        for share in (15, 35):
            until(lambda share=share: len(accepted) >= share and Gateway.made)
            master.kill9()
            master.start()
        Gateway.hold.set()
        for each in sent:
            each.result(60)
    assert len(accepted) == 60
    for number, id in accepted.items():
        path = f"{FUNCTIONS}/double/calls/{id}"
        done = until(lambda path=path: (found := ask(master, "GET", path)["status"])["phase"] == "Succeeded" and found)
        assert done["body"] == number * 2
        assert Gateway.made[id] >= 1
    assert max(Gateway.made.values()) > 1  # those that were under way when it was killed
