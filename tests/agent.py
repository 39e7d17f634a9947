"""A real agent for tests: a process on a data folder of its own, on the real Docker Engine, undone without a trace.

    with Agent.lent() as agent:
        agent.start()
        agent.kubectl("get", "nodes")

Only one agent with real containers fits into a host's network namespace: its tables and its DNS address are fixed.
`lent` therefore waits for a lock of the whole machine, and resets the host at the end.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, TypeVar

from tests.kubectls import NEWEST
from tests.patience import patience

T = TypeVar("T")
HOST_LOCK = Path("/run/lock/minik8s-test.lock")
LOG_FILE = "test-agent.log"  # beside the data folder's own files; reset takes it away as well


class Failed(AssertionError):
    """A command ended otherwise than the test says it must."""


@dataclass
class Ended:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def both(self) -> str:
        return self.out + self.err


@dataclass
class Agent:
    """`minik8s run` on `data`, answering at `port`. `options` go to every start."""

    data: Path
    port: int = 0
    kubelet_port: int = 0
    gateway_port: int = 0
    options: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()  # of its command line: enters a lab host, where it answers at `address`
    address: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.port = self.port or free_port()
        self.kubelet_port = self.kubelet_port or free_port()
        self.gateway_port = self.gateway_port or free_port()  # its own: the socket outlives the agent for a while

    @classmethod
    @contextmanager
    def lent(cls, *options: str) -> Iterator[Agent]:
        """An agent that is not started yet; whatever it does to the host is reset at the end."""
        with host_lock(), tempfile.TemporaryDirectory(prefix="minik8s-test-") as folder:
            agent = cls(Path(folder) / "data", options=options)
            try:
                yield agent
            finally:
                agent.reset()

    # -- life

    def start(self, *, ready: bool = True) -> Agent:
        """Start, and wait for /readyz and the node unless told otherwise. Raises Failed with the log's end."""
        assert self.pid is None, "the agent runs already"
        self.data.mkdir(parents=True, exist_ok=True)
        command = [
            "setpriv", "--pdeathsig", "TERM",  # a test run that is killed leaves no agent
            *self.prefix,
            sys.executable, "-m", "minik8s", "run", "--data-dir", str(self.data), "--listen", f"0.0.0.0:{self.port}",
            "--kubelet-port", str(self.kubelet_port), "--gateway-listen", f"0.0.0.0:{self.gateway_port}",
            "--log-format", "json", *self.options,
        ]  # fmt: skip
        with (self.data / LOG_FILE).open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, *, seconds: float = 30) -> None:
        until(self._is_ready, seconds=seconds, what=lambda: f"the agent is not ready:\n{self.log[-3000:]}", pause=0.02)

    def _is_ready(self) -> bool:
        if self.pid is None:
            raise Failed(f"the agent ended with code {self.process and self.process.returncode}:\n{self.log[-3000:]}")
        api = "worker" in self.options or answers(self.port, "/readyz", self.address)
        return api and ("master" in self.options or answers(self.kubelet_port, "/healthz", self.address))

    @property
    def pid(self) -> int | None:
        """Of the process, while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def stop(self, *, seconds: float = 20) -> int:
        """SIGTERM; the exit code. Pods keep running."""
        return self._end(signal.SIGTERM, seconds)

    def kill9(self) -> None:
        self._end(signal.SIGKILL, 20)

    def _end(self, number: signal.Signals, seconds: float) -> int:
        assert self.process is not None
        if self.pid is not None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def restart(self) -> Agent:
        self.stop()
        return self.start()

    def reset(self) -> Ended | None:
        """End the agent and take away all that it made on this host, by `minik8s reset`."""
        if self.pid is not None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill9()
        return self.minik8s("reset", "--yes", "--data-dir", str(self.data)) if self.data.exists() else None

    # -- speaking with it

    @property
    def kubeconfig(self) -> Path:
        """The administrator's; for an agent in a lab host a copy that leads there from outside."""
        given = self.data / "admin.kubeconfig"
        if self.address == "127.0.0.1" or not given.exists():
            return given
        copy, text = self.data.with_name(f"{self.data.name}.kubeconfig"), given.read_text()
        copy.write_text(text.replace("https://127.0.0.1:", f"https://{self.address}:"))
        return copy

    @property
    def log(self) -> str:
        return (self.data / LOG_FILE).read_text(errors="replace")

    def logged(self) -> list[dict[str, Any]]:
        """The log's lines, those that are JSON."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.data.parent), "TERM": "xterm"}

    def kubectl(self, *args: str, binary: Path | None = None, **more: Any) -> Ended:
        """Run kubectl (the newest at hand); as `run` otherwise."""
        return run([str(binary or NEWEST), *args], env=self.env | more.pop("env", {}), **more)

    def popen(self, *args: str, binary: Path | None = None, **more: Any) -> subprocess.Popen[Any]:
        """A kubectl that goes on; to be ended by the caller."""
        return subprocess.Popen([str(binary or NEWEST), *args], env=self.env, **more)

    def minik8s(self, *args: str, **more: Any) -> Ended:
        """Run the `minik8s` command line; as `run` otherwise."""
        return run([sys.executable, "-m", "minik8s", *args], env=self.env | more.pop("env", {}), **more)


def run(
    command: list[str], *, check: bool = True, stdin: str | None = None, seconds: float = 60, env: Any = None
) -> Ended:
    """Run to the end. `check`: any exit code but 0 raises Failed with all that was said."""
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds, env=env, **given
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(command)}: no end after {seconds:.0f} s:\n{error.stdout}\n{error.stderr}") from None
    ended = Ended(done.returncode, done.stdout, done.stderr)
    if check and ended.code:
        raise Failed(f"{' '.join(command)}: exit code {ended.code}\n{ended.out}{ended.err}")
    return ended


def until(probe: Callable[[], T], *, seconds: float = 20, what: str | Callable[[], str] = "", pause: float = 0.1) -> T:
    """The first true answer of `probe`. For what happens in other processes, of which nobody tells us."""
    seconds = patience(seconds)
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise Failed((what() if callable(what) else what) or f"{probe} was not true within {seconds:.0f} s")
        time.sleep(pause)
    return answer


def answers(port: int, path: str, address: str = "127.0.0.1") -> bool:
    """Does an HTTPS server, on this machine unless told otherwise, answer with 200?"""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # its CA may not exist yet
    connection = HTTPSConnection(address, port, timeout=2, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def free_port(count: int = 1) -> int:
    """The first of `count` ports that are free, and stay so: no connection's own port is from there."""
    while True:
        port = random.randrange(16000, 32000 - count)
        with ExitStack() as stack, suppress(OSError):
            for each in range(port, port + count):
                stack.enter_context(socket.socket()).bind(("", each))
            return port


@contextmanager
def host_lock() -> Iterator[None]:
    """The right to be the one agent of this host's network namespace."""
    HOST_LOCK.parent.mkdir(exist_ok=True)
    descriptor = os.open(HOST_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
