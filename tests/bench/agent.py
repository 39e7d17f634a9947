"""An agent as a user starts it: a process with its own folder and ports, a token to speak to it, and what it costs."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minik8s.api.errors import StatusError
from minik8s.api.kinds.rbac import ClusterRoleBinding
from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.client.base import Client
from minik8s.client.http import HttpTransport
from tests.agent import free_port

ROOT = Path(__file__).parents[2]
START_PATIENCE = 60.0  # seconds
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
ACCOUNT = "bench"


class BenchError(Exception):
    """The benchmark cannot go on; the message says why."""


@dataclass
class Agent:
    process: subprocess.Popen[bytes]
    data: Path
    port: int
    started: float  # time.monotonic()
    token: str = ""
    ready: float = 0.0  # seconds from the start of the process to /readyz

    @property
    def ca_file(self) -> Path:
        return self.data / ("pki/ca.crt" if (self.data / "pki").exists() else "node/ca.crt")

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.data / "bench.log").read_text(errors="replace")

    def spec(self) -> dict[str, Any]:
        """What the load generator needs to know."""
        return {"port": self.port, "ca": str(self.ca_file), "token": self.token, "pid": self.process.pid}

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with HttpTransport(self.url, ssl.create_default_context(cafile=str(self.ca_file)), token=self.token) as t:
            yield Client(t)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


@asynccontextmanager
async def agent(
    *options: str, folder: Path | None = None, master: bool = True, host: bool = False, module: str = "minik8s"
) -> AsyncIterator[Agent]:
    """Start `minik8s run OPTIONS`, wait for /readyz, and stop it at the end.

    A folder that is given is kept. A worker (`master` False) is not waited for. `host`: it makes containers and links,
    which are removed at the end. `module` is what is run, with minik8s's command line.
    """
    with tempfile.TemporaryDirectory(prefix="minik8s-bench-") as temporary:
        data = folder or Path(temporary)
        port = free_port()
        command = [
            sys.executable, "-m", module, "run", "--data-dir", str(data), "--kubelet-port", str(free_port(100)),
            "--log-format", "json", "--gateway-listen", f"127.0.0.1:{free_port()}",
            *(("--listen", f"127.0.0.1:{port}") if master else ()), *options,
        ]  # fmt: skip
        data.mkdir(exist_ok=True)
        started = time.monotonic()
        with (data / "bench.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: ASYNC220
        running = Agent(process, data, port, started)
        try:
            if master:
                running.ready = await ready(running)
                running.token = await admin_token(running)
            yield running
        finally:
            await stop(running)
            if host:
                await asyncio.to_thread(reset, data)


async def ready(running: Agent) -> float:
    """Seconds from the start of the process to the first "ok" of /readyz."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # its CA may not exist yet
    while (passed := time.monotonic() - running.started) < START_PATIENCE:
        if running.process.poll() is not None:
            raise BenchError(f"the agent ended with code {running.process.returncode}:\n{running.log[-2000:]}")
        if await asyncio.to_thread(_answers, running.port, context):
            return time.monotonic() - running.started
        await asyncio.sleep(0.005)
    raise BenchError(f"the agent is not ready after {passed:.0f} s:\n{running.log[-2000:]}")


def _answers(port: int, context: ssl.SSLContext) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as plain:
            with context.wrap_socket(plain) as sock:
                sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return sock.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


async def stop(running: Agent) -> None:
    """SIGTERM, and SIGKILL for one that does not listen."""
    if running.process.poll() is None:
        running.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(running.process.wait, 10)
        except subprocess.TimeoutExpired:
            running.process.kill()
            await asyncio.to_thread(running.process.wait)


def reset(data: Path) -> None:
    """Remove what an agent with a Docker Engine left on this host."""
    command = [sys.executable, "-m", "minik8s", "reset", "--yes", "--data-dir", str(data)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"minik8s reset failed:\n{done.stdout}{done.stderr}")


async def admin_token(running: Agent) -> str:
    """A bearer token of a ServiceAccount that may do everything, asked for with the administrator's certificate."""
    config = json.loads((running.data / "admin.kubeconfig").read_text())
    user = config["users"][0]["user"]
    context = ssl.create_default_context(cafile=str(running.ca_file))
    with tempfile.NamedTemporaryFile() as pair:
        for part in ("client-certificate-data", "client-key-data"):
            pair.write(base64.b64decode(user[part]) + b"\n")
        pair.flush()
        context.load_cert_chain(pair.name)
    async with HttpTransport(running.url, context) as transport:
        client = Client(transport)
        try:
            await client.create(ServiceAccount, {"metadata": {"name": ACCOUNT, "namespace": "kube-system"}})
            await client.create(ClusterRoleBinding, _binding())
        except StatusError as error:
            if error.code != 409:  # a folder that is started again has both
                raise
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}}
        answer = await client.post(ServiceAccount, ACCOUNT, "kube-system", "token", asked)
    token: str = answer["status"]["token"]
    return token


def _binding() -> dict[str, Any]:
    return {
        "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "kube-system"}],
    }
