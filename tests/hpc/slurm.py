"""A real Slurm for tests, and a control plane in memory that knows it as an HpcCluster."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from minik8s.api.kinds.gpujob import TERMINAL, GpuJob
from minik8s.api.kinds.hpccluster import HpcCluster
from minik8s.api.kinds.secret import Secret
from minik8s.testing import Cluster, cluster
from tests.patience import patience

HERE = Path(__file__).parent
USER = "mk8shpc"
NEEDED = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "munged", "mariadbd", "sshd")


class Slurm:
    def __init__(self, base: Path, port: int) -> None:
        self.base, self.port = base, port
        self.env = {**os.environ, "MINIK8S_SLURM_PORT": str(port), "HPC_USER": USER,
                    "SLURM_CONF": str(base / "etc/slurm.conf")}  # fmt: skip

    def up(self) -> None:
        subprocess.run([HERE / "slurm-up", self.base], env=self.env, check=True, timeout=200, stdout=subprocess.DEVNULL)

    def down(self) -> None:
        subprocess.run([HERE / "slurm-down", self.base], env=self.env, check=False, timeout=60)

    def stop(self, daemon: str) -> None:
        """Kill one of its daemons; `up` starts it again."""
        pid = int((self.base / f"run/{daemon}.pid").read_text())
        os.kill(pid, 9)
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
            time.sleep(0.02)
        (self.base / f"run/{daemon}.pid").unlink()

    def saved(self, job_id: str) -> None:
        """Wait until slurmctld has written down that the job runs: killed before, it would launch it a second time.

        It writes some seconds after a change, so there is to be one: a comment.
        """
        asked, state = time.time(), self.base / "state/job_state"
        self.say("scontrol", "update", f"jobid={job_id}", "comment=saved")
        while state.stat().st_mtime <= asked and time.time() < asked + 30:
            time.sleep(0.05)

    def resume(self) -> None:
        """Bring the node back; it may have come back by itself."""
        node = f"nodename={os.uname().nodename.split('.')[0]}"
        subprocess.run(["scontrol", "update", node, "state=resume"], env=self.env, check=False, capture_output=True)

    def cut(self) -> None:
        """End all connections of the user, as a broken link does."""
        subprocess.run(["pkill", "-9", "-u", USER, "-f", f"sshd: {USER}"], check=False)

    def say(self, *command: str) -> str:
        return subprocess.run(command, env=self.env, check=True, capture_output=True, text=True, timeout=20).stdout

    def submissions(self, name: str) -> list[str]:
        """Numbers of all jobs of that name that the queue and accounting know."""
        queue = self.say("squeue", "-h", "-a", "-t", "all", "-n", name, "-o", "%F").split()
        return sorted(set(queue))

    @property
    def key(self) -> str:
        return (self.base / "etc/id_ed25519").read_text()

    @property
    def password(self) -> str:
        return (self.base / "etc/password").read_text().strip()

    @property
    def known_hosts(self) -> str:
        public = (self.base / "etc/ssh_host_ed25519_key.pub").read_text().split()
        return f"[127.0.0.1]:{self.port + 5} {public[0]} {public[1]}"

    def cluster(self, **spec: Any) -> dict[str, Any]:
        whole = {"host": "127.0.0.1", "port": self.port + 5, "user": USER, "secretRef": {"name": "login"},
                 "knownHosts": self.known_hosts, "pollInterval": {"minSeconds": 1, "maxSeconds": 4}}  # fmt: skip
        return {"metadata": {"name": "lab", "namespace": "default"}, "spec": {**whole, **spec}}

    def login(self, **data: str) -> dict[str, Any]:
        return {"metadata": {"name": "login", "namespace": "default"},
                "stringData": data or {"ssh-privatekey": self.key}}  # fmt: skip


class Lab:
    """A control plane beside the Slurm."""

    def __init__(self, it: Cluster, slurm: Slurm) -> None:
        self.it, self.slurm, self.client = it, slurm, it.client

    async def submit(self, name: str, *run: str, **spec: Any) -> GpuJob:
        document = {"metadata": {"name": name, "namespace": "default"}, "spec": {"run": list(run), **spec}}
        return await self.client.create(GpuJob, document)

    async def until(self, name: str, test: Callable[[GpuJob], Any], seconds: float = 45.0) -> GpuJob:
        try:
            return await self.it.until(
                GpuJob, lambda job: job.metadata.name == name and test(job), seconds=patience(seconds)
            )
        except TimeoutError:
            raise AssertionError(f"{(await self.client.get(GpuJob, name, 'default')).status}") from None

    async def ended(self, name: str, seconds: float = 45.0) -> GpuJob:
        return await self.until(name, lambda job: job.status.phase in TERMINAL, seconds)

    async def begun(self, name: str, *phases: str) -> GpuJob:
        return await self.until(name, lambda job: job.status.phase in phases)

    def result(self, job: GpuJob, path: str = "job.out") -> str:
        found = self.it.master._job_files.results.file(job.metadata.uid, path)
        assert found is not None, path
        return found.read_text()

    async def reachable(self, status: str, reason: str = "", seconds: float = 30.0) -> HpcCluster:
        def test(cluster: HpcCluster) -> bool:
            return any(c.type == "Reachable" and c.status == status and reason in ("", c.reason)
                       for c in cluster.status.conditions)  # fmt: skip

        return await self.it.until(HpcCluster, test, seconds=patience(seconds))


@asynccontextmanager
async def lab(slurm: Slurm, spec: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Lab]:
    """`spec`: of the HpcCluster, besides what it needs anyway."""
    async with cluster(nodes=0, **settings) as it:
        await it.client.create(Secret, slurm.login())
        await it.client.create(HpcCluster, slurm.cluster(**(spec or {})))
        yield Lab(it, slurm)
        await asyncio.sleep(0)
