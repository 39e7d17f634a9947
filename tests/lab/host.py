"""A host of our own on this machine: namespaces, a network and a Docker Engine that tests may kill.

with LabHost(folder) as lab:
    lab.options = ("--live-restore",)
    lab.start_engine()
    lab.run("docker", "ps")
    lab.kill_engine(signal.SIGKILL)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.agent import Ended, run, until

HERE = Path(__file__).parent
OUTSIDE, INSIDE = "10.213.77.254", "10.213.77.1"  # the two ends of the only wire
NEEDED = ("dockerd", "containerd", "unshare", "ip", "setsid")


class LabHost:
    """Reached from outside at INSIDE. Everything in it dies with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options: tuple[str, ...] = ()  # of its engine
        self.name = f"lab{os.getpid() % 100000}"

    @staticmethod
    def lacking() -> str:
        """Why there can be none here; "" if there can."""
        if os.geteuid() != 0:
            return "needs root"
        missing = [program for program in NEEDED if shutil.which(program) is None]
        return f"needs {', '.join(missing)}" if missing else ""

    def __enter__(self) -> LabHost:
        self.folder.mkdir(parents=True, exist_ok=True)
        namespaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        with (self.folder / "boot.log").open("wb") as log:
            self._boot = subprocess.Popen(
                ["unshare", *namespaces, HERE / "boot", self.folder], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until((self.folder / "booted").exists, what=lambda: (self.folder / "boot.log").read_text(), pause=0.02)
        self.pid = int(Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()[0])
        self._wire()
        return self

    def _wire(self) -> None:
        run(["ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid)])
        run(["ip", "address", "add", f"{OUTSIDE}/24", "dev", self.name])
        run(["ip", "link", "set", self.name, "up"])
        self.run("ip", "address", "add", f"{INSIDE}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "route", "add", "default", "via", OUTSIDE)

    def __exit__(self, *exc: object) -> None:
        """A power cut. Its wire goes with its network."""
        os.kill(self.pid, signal.SIGKILL)
        self._boot.wait()
        with suppress(AssertionError):
            run(["ip", "link", "delete", self.name])
        for folder in Path("/sys/fs/cgroup").glob(f"**/{self.name}"):
            for path, _, _ in os.walk(folder, topdown=False):
                with suppress(OSError):
                    os.rmdir(path)

    @property
    def prefix(self) -> tuple[str, ...]:
        """What makes a command run in here."""
        return (sys.executable, str(HERE / "enter.py"), str(self.pid))

    @property
    def docker_host(self) -> str:
        """Its engine, from outside."""
        return f"unix://{self.folder}/run/docker.sock"

    def run(self, *command: str, check: bool = True) -> Ended:
        return run([*self.prefix, *command], check=check)

    # -- its engine

    def start_engine(self) -> None:
        """containerd, unless it runs, and dockerd; returns when it answers."""
        if not self._pids("containerd"):
            self._daemon("containerd")
            until(lambda: self.run("ctr", "version", check=False).code == 0, what=self._said, pause=0.05)
        self.run("rm", "-f", "/run/docker.pid")
        sock = "/run/containerd/containerd.sock"
        cgroup = ("--cgroup-parent", f"/{self.name}", "--exec-opt", "native.cgroupdriver=cgroupfs")
        self._daemon("dockerd", "--containerd", sock, *cgroup, *self.options)
        until(self.engine_answers, seconds=60, what=self._said, pause=0.05)

    def engine_answers(self) -> bool:
        return run(["docker", "-H", self.docker_host, "version"], check=False).code == 0

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
