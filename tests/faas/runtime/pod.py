"""A runtime as its clients see it: a supervisor of its own, revisions put into it, calls."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from minik8s.archives import pack_files
from tests.patience import patience

TOKEN = "secret"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Pod:
    """`pid` of its supervisor, as this machine counts."""

    def __init__(self, port: int, pid: int, log: Path, *, host: str = "127.0.0.1") -> None:
        self.address = (host, port)
        self.pid = pid
        self._log = log

    def connect(self, timeout: float = 20) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=timeout)

    def socket(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        on: http.client.HTTPConnection | None = None,
    ) -> Reply:
        connection = on or self.connect()
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        if on is None:
            connection.close()
        return reply

    def control(self, method: str, path: str, body: bytes | None = None) -> Reply:
        return self.ask(method, path, body, {"Authorization": f"Bearer {TOKEN}"})

    def put(self, name: str, code: str | Mapping[str, str], **settings: Any) -> Reply:
        files = code if isinstance(code, Mapping) else {"func.py": code}
        archive = pack_files({path: textwrap.dedent(text).encode() for path, text in files.items()})
        return self.put_bytes(name, archive, **settings)

    def put_bytes(self, name: str, archive: bytes, **settings: Any) -> Reply:
        said = json.dumps({"revision": name, "function": name.rpartition("-")[0], "namespace": "default", **settings})
        body = len(said).to_bytes(4, "big") + said.encode() + archive
        return self.control("PUT", f"/-/revisions/{name}", body)

    def load(self, name: str, code: str | Mapping[str, str], **settings: Any) -> str:
        """The contract."""
        reply = self.put(name, code, **settings)
        assert reply.status == 200, reply
        return reply.json["contract"]

    def call(
        self,
        name: str,
        params: Any = None,
        *,
        path: str = "/",
        method: str = "POST",
        body: bytes | None = None,
        on: http.client.HTTPConnection | None = None,
        **headers: str,
    ) -> Reply:
        data = body if body is not None else b"" if params is None else json.dumps(params).encode()
        sent = {"Minik8s-Revision": name} | ({"Content-Type": "application/json"} if params is not None else {})
        sent |= {key.replace("_", "-"): value for key, value in headers.items()}
        return self.ask(method, path, data, sent, on)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def revisions(self) -> dict[str, dict[str, Any]]:
        return {each["revision"]: each for each in self.control("GET", "/-/revisions").json["revisions"]}


@contextmanager
def pod(folder: Path, **env: str) -> Iterator[Pod]:
    """A supervisor as a process of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "minik8s.faas.runtime"],
            env={**os.environ, "FUNCTION_PORT": str(port), "FUNCTION_TOKEN": TOKEN, "TMPDIR": str(folder), **env},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    made = Pod(port, process.pid, log)
    try:
        wait_for(lambda: _ready(made))
        yield made
        assert process.poll() in (None, 0), made.log()
    finally:
        process.kill()  # the workers end with it
        process.wait()


def _ready(made: Pod) -> bool:
    try:
        return made.ask("GET", "/-/ready").status == 200
    except OSError:
        return False


def wait_for(condition: Any, timeout: float = 20) -> None:
    """For what no event tells of: other processes' state."""
    end = time.monotonic() + patience(timeout)
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        select.select([], [], [], 0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
