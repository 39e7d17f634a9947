"""What breaks between us and a cluster: nothing is lost, and nothing is submitted twice."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from minik8s.api.kinds.gpujob import TERMINAL, GpuJob
from minik8s.api.kinds.hpccluster import HpcCluster
from minik8s.hpc import ssh
from minik8s.hpc.gpujob import GpuJobController
from minik8s.hpc.ssh import Connection
from minik8s.testing import cluster
from tests.hpc.slurm import Lab, Slurm, lab

pytestmark = [pytest.mark.root, pytest.mark.faults, pytest.mark.timeout(170)]


@pytest.mark.long
async def test_daemons_that_die_lose_no_job(healthy: Slurm) -> None:
    async with lab(healthy) as it:
        await it.submit("runs", "while [ ! -e ../end ]; do sleep 0.2; done; echo done")
        runs = await it.begun("runs", "Running")
        await asyncio.to_thread(healthy.saved, runs.status.jobId)
        healthy.stop("slurmctld")
        healthy.stop("slurmdbd")
        await it.submit("late", "echo done")
        await it.until("late", lambda job: job.status.reason == "SubmitDelayed")
        assert (await it.client.get(GpuJob, "runs", "default")).status.phase == "Running"
        healthy.stop("sshd")
        healthy.cut()
        await it.reachable("False")
        await asyncio.to_thread(healthy.up)
        Path(runs.status.remotePath, "end").touch()  # noqa: ASYNC240
        jobs = [await it.ended(name, 90) for name in ("runs", "late")]
        assert [job.status.phase for job in jobs] == ["Succeeded", "Succeeded"]
        assert [it.result(job) for job in jobs] == ["done\n", "done\n"]
        assert all(len(healthy.submissions(f"mk8s-{job.status.submissionId}")) == 1 for job in jobs)


async def test_a_link_that_is_cut_during_an_upload_goes_on_where_it_was(
    healthy: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, offsets = asyncssh.SFTPClientFile.write, []

    async def writing(self: Any, data: bytes, offset: int) -> Any:
        offsets.append(offset)
        if len(offsets) == 20:
            healthy.cut()
        return await write(self, data, offset)

    monkeypatch.setattr(asyncssh.SFTPClientFile, "write", writing)
    monkeypatch.setattr(ssh, "BLOCK", 32 * 1024)
    async with lab(healthy) as it:
        await it.reachable("True")
        await it.submit("large", "wc -c < big", source={"inline": {"big": "x" * 1_000_000}})
        job = await it.ended("large", 60)
        assert (job.status.phase, it.result(job)) == ("Succeeded", "1000000\n")
    assert len(offsets) > 20
    assert offsets[20] > 0, "what was there is not sent again"


async def test_a_job_is_deleted_when_its_cluster_is_gone(healthy: Slurm) -> None:
    async with lab(healthy) as it:
        await it.submit("left", "sleep 60")
        job = await it.begun("left", "Running")
        await it.client.delete(HpcCluster, "lab", "default")
        await it.client.delete(GpuJob, "left", "default")
        async with asyncio.timeout(20):
            while it.it.informers.of(GpuJob).get("default", "left") is not None:
                await asyncio.sleep(0.1)
        healthy.say("scancel", job.status.jobId)


POINTS = range(9)  # writes of the status, and commands to the cluster, that a job needs at the least


async def test_killed_before_and_after_each_step_there_is_one_submission(
    healthy: Slurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each job's controller stops for ever at a point of its own; then all is killed, and begun anew from the store."""
    counts: Counter[str] = Counter()
    stopped: set[str] = set()
    write, run = GpuJobController._write, Connection.run

    async def step(name: str, action: Any) -> Any:
        counts[name] += 1
        wanted = re.fullmatch(r"(before|after)-(\d+)", name)
        here = wanted is not None and counts[name] == int(wanted[2]) + 1
        if here and wanted is not None and wanted[1] == "before":
            stopped.add(name)
            await asyncio.Event().wait()
        done = await action()
        if here:
            stopped.add(name)
            await asyncio.Event().wait()
        return done

    async def writing(self: GpuJobController, job: GpuJob, status: Any) -> None:
        await step(job.metadata.name, lambda: write(self, job, status))

    async def running(self: Connection, script: str, timeout: float = 60.0) -> Any:
        named = set(re.findall(r"minik8s/((?:before|after)-\d+)-", script))
        if len(named) == 1 and not script.startswith(("echo @rc", "squeue")):
            return await step(named.pop(), lambda: run(self, script, timeout))
        return await run(self, script, timeout)

    names = [f"{when}-{point}" for point in POINTS for when in ("before", "after")]
    with monkeypatch.context() as patched:
        patched.setattr(GpuJobController, "workers", len(names))
        patched.setattr(GpuJobController, "_write", writing)
        patched.setattr(Connection, "run", running)
        async with lab(healthy, data_dir=tmp_path, store="sqlite") as it:
            await it.reachable("True")
            for name in names:
                await it.submit(name, f"echo {name}")
            async with asyncio.timeout(60):
                while any(name not in stopped and not _ended(it, name) for name in names):
                    await asyncio.sleep(0.1)
    assert len(stopped) >= 12, stopped
    async with cluster(nodes=0, data_dir=tmp_path, store="sqlite") as again:
        it = Lab(again, healthy)
        for name in names:
            job = await it.ended(name, 60)
            assert (job.status.phase, it.result(job)) == ("Succeeded", f"{name}\n")
            assert len(healthy.submissions(f"mk8s-{job.metadata.uid[:8]}-0")) == 1, name


def _ended(it: Lab, name: str) -> bool:
    job = it.it.informers.of(GpuJob).get("default", name)
    return job is not None and job.status.phase in TERMINAL
