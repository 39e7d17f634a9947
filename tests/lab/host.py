"""A host of our own on this machine: namespaces, a network and a Docker Engine that tests may kill.

with LabHost(folder) as lab:
    lab.options = ("--live-restore",)
    lab.start_engine()
    lab.run("docker", "ps")
    lab.kill_engine(signal.SIGKILL)

Several of them with a network between them are a `Lab` (tests/lab/lab.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.agent import Agent, Ended, run, until

HERE = Path(__file__).parent
OUTSIDE, INSIDE = "10.213.77.254", "10.213.77.1"  # the two ends of the wire of a host that is alone
NEEDED = ("dockerd", "containerd", "unshare", "ip", "setsid", "pgrep")
API_PORT, KUBELET_PORT, GATEWAY_PORT = 6443, 10250, 8081  # each host has all ports for itself


class LabHost:
    """Reached from outside at `address`. Everything in it dies with it, and it with the process that made it."""

    def __init__(self, folder: Path, mark: str = "", name: str = "lab", address: str = INSIDE) -> None:
        """`mark` is its own on this machine, `name` on its network."""
        self.folder = folder
        self.options: tuple[str, ...] = ()  # of its engine
        self.mark = mark or f"lab{os.getpid() % 100000}"
        self.name = name
        self.address = address
        self._boot: subprocess.Popen[bytes] | None = None

    @staticmethod
    def lacking() -> str:
        """Why there can be none here; "" if there can."""
        if os.geteuid() != 0:
            return "needs root"
        missing = [program for program in NEEDED if shutil.which(program) is None]
        return f"needs {', '.join(missing)}" if missing else ""

    def __enter__(self) -> LabHost:
        self.power_on()
        run(["ip", "link", "add", self.mark, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid)])
        run(["ip", "address", "add", f"{OUTSIDE}/24", "dev", self.mark])
        run(["ip", "link", "set", self.mark, "up"])
        self.configure(OUTSIDE)
        return self

    def __exit__(self, *exc: object) -> None:
        """Its wire goes with its network."""
        self.power_cut()
        with suppress(AssertionError):
            run(["ip", "link", "delete", self.mark])

    # -- its power and its wire

    def power_on(self) -> None:
        """Boot, with the disk of last time. It has no network yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "booted").unlink(missing_ok=True)
        namespaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        with (self.folder / "boot.log").open("wb") as log:
            self._boot = subprocess.Popen(
                ["unshare", *namespaces, HERE / "boot", self.folder, self.name],
                stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        until((self.folder / "booted").exists, what=lambda: (self.folder / "boot.log").read_text(), pause=0.02)
        self.pid = int(Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()[0])

    def configure(self, gateway: str) -> None:
        """Its end of the wire, which is there under the name eth0: address, default route."""
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "route", "add", "default", "via", gateway)

    def power_cut(self) -> None:
        """At once, and without a word to anybody in it. The disk stays."""
        if self._boot is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._boot.wait()
        assert self._boot.stdin is not None
        self._boot.stdin.close()
        self._boot = None
        for folder in Path("/sys/fs/cgroup").glob(f"*/{self.mark}"):
            for path, _, _ in os.walk(folder, topdown=False):
                with suppress(OSError):
                    os.rmdir(path)

    @property
    def is_on(self) -> bool:
        return self._boot is not None

    # -- what runs in it

    @property
    def prefix(self) -> tuple[str, ...]:
        """What makes a command run in here."""
        return (sys.executable, str(HERE / "enter.py"), str(self.pid))

    def run(self, *command: str, **more: Any) -> Ended:
        """As `tests.agent.run`, in here."""
        return run([*self.prefix, *command], **more)

    def minik8s(self, *args: str, **more: Any) -> Ended:
        """The `minik8s` command line, in here."""
        return self.run(sys.executable, "-m", "minik8s", *args, **more)

    def agent(self, *options: str) -> Agent:
        """An agent on this host, not started yet; its data is on the host's disk, its name is that of the host.

        After a power cut it needs the host's new `prefix`.
        """
        return Agent(
            self.folder / "data", port=API_PORT, kubelet_port=KUBELET_PORT, gateway_port=GATEWAY_PORT,
            prefix=self.prefix, address=self.address, options=("--node-name", self.name, *options),
        )  # fmt: skip

    # -- its engine

    @property
    def docker_host(self) -> str:
        """Its engine, from outside."""
        return f"unix://{self.folder}/run/docker.sock"

    def docker(self, *command: str, **more: Any) -> Ended:
        """The docker client, on its engine."""
        return run(["docker", "-H", self.docker_host, *command], **more)

    def start_engine(self) -> None:
        """containerd, unless it runs, and dockerd; returns when it answers."""
        if not self._pids("containerd"):
            self._daemon("containerd")
            until(lambda: self.run("ctr", "version", check=False).code == 0, what=self._said, pause=0.05)
        if not self._pids("dockerd"):
            self.run("rm", "-f", "/run/docker.pid")
            sock = "/run/containerd/containerd.sock"
            cgroup = ("--cgroup-parent", f"/{self.mark}", "--exec-opt", "native.cgroupdriver=cgroupfs")
            self._daemon("dockerd", "--containerd", sock, *cgroup, *self.options)
        until(self.engine_answers, seconds=60, what=self._said, pause=0.05)

    def engine_answers(self) -> bool:
        return self.docker("version", check=False).code == 0

    def kill_engine(self, number: signal.Signals) -> None:
        """dockerd alone: containerd and the containers' shims go on."""
        for pid in self._pids("dockerd"):
            self.run("kill", f"-{number.value}", pid)
        until(lambda: not self._pids("dockerd"), seconds=60, what="dockerd does not end", pause=0.05)

    def make_images(self, *names: str) -> None:
        run(
            [str(HERE.parent.parent / "scripts" / "images"), *names],
            env={**os.environ, "DOCKER_HOST": self.docker_host},
        )

    def _daemon(self, *command: str) -> None:
        with (self.folder / "engine.log").open("ab") as log:
            subprocess.Popen(
                [*self.prefix, "setsid", "--fork", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            ).wait()

    def _pids(self, program: str) -> list[str]:
        return self.run("pgrep", "-x", program, check=False).out.split()

    def _said(self) -> str:
        return (self.folder / "engine.log").read_text(errors="replace")[-2000:]
