"""What GpuJobs cost on a real Slurm behind a real sshd: sending many at once, and looking after many that wait."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from minik8s.api.kinds.gpujob import GpuJob
from minik8s.hpc.site import POLLS
from minik8s.hpc.ssh import COMMANDS
from tests.bench.agent import BenchError
from tests.bench.report import Result
from tests.hpc.slurm import NEEDED, USER, Lab, Slurm, lab

NAMES = ("hpc-submit", "hpc-poll")
PORT = 26000
ALL_CPUS = {"cpusPerTask": 32}  # so that one job runs and the others wait: sending is measured, and not Slurm


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    if missing := [name for name in NEEDED if shutil.which(name, path=path) is None]:
        raise BenchError(f"needs a Slurm of its own: {', '.join(missing)} not found")
    if os.geteuid():
        raise BenchError("needs root")
    base = Path(tempfile.mkdtemp(prefix="minik8s-slurm-"))
    os.chmod(base, 0o755)  # its daemons run as users of their own
    slurm = Slurm(base, PORT)
    try:
        await asyncio.to_thread(slurm.up)
        async with lab(slurm, {"pollInterval": {"minSeconds": 2, "maxSeconds": 2}}) as it:
            await it.reachable("True")
            yield await submit(it, "few", 100)
            if "hpc-poll" in names:
                await submit(it, "more", 100 if quick else 900)
                async for result in poll(it, seconds=6.0 if quick else 30.0):
                    yield result
    finally:
        await asyncio.to_thread(slurm.down)
        shutil.rmtree(base, ignore_errors=True)


async def submit(it: Lab, prefix: str, jobs: int) -> Result:
    """From the first object to the last number of Slurm."""
    informer = it.it.informers.of(GpuJob)
    source = {"inline": {"job.sh": "sleep 10000\n" + "# as large as a small source is\n" * 20}}
    began, used = time.perf_counter(), time.process_time()
    for number in range(jobs):
        await it.submit(f"{prefix}-{number}", "sh job.sh", source=source, resources=ALL_CPUS)
    while any(not job.status.jobId for job in informer.list("default")):
        await asyncio.sleep(0.05)
    took, used = time.perf_counter() - began, time.process_time() - used
    beside = f"{jobs} jobs with a source; {1000 * used / jobs:.1f} ms CPU each in the control plane"
    return Result("hpc-submit", took, "s", jobs / 10, beside=beside)


async def poll(it: Lab, *, seconds: float) -> AsyncIterator[Result]:
    """Looked at every two seconds, which is as often as it ever is: at rest it becomes every thirty."""
    jobs = len(it.it.informers.of(GpuJob).list("default"))
    first = POLLS.value
    while POLLS.value < first + 2:  # by then what came with the last job is done
        await asyncio.sleep(0.1)
    sent, polls, used, began = COMMANDS.value, POLLS.value, time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    used, passed = time.process_time() - used, time.perf_counter() - began
    sent, polls = COMMANDS.value - sent, POLLS.value - polls
    cost = f"{1000 * used / max(polls, 1):.0f} ms CPU a poll, {polls} polls in {passed:.0f} s"
    yield Result("hpc-poll", 100 * used / passed, "% of a core", 3, beside=f"{jobs} jobs; {cost}")
    yield Result("hpc-poll-commands", sent / max(polls, 1), "a poll", 2, beside="commands to the login node")
    yield Result("hpc-connections", connections(), "TCP", 1, beside=f"for {jobs} jobs")


def connections() -> int:
    """sshd has one process of the user for each."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        found += words.startswith(f"sshd: {USER}".encode()) and b"[priv]" not in words
    return found
