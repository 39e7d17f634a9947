"""What a site may be like: full disks, other shells and much talk at login, no accounting, hosts on the way."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from minik8s.api.kinds.gpujob import GpuJob
from tests.hpc.slurm import USER, Lab, Slurm, lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
NODE = os.uname().nodename.split(".")[0]


@pytest_asyncio.fixture
async def it(slurm: Slurm) -> AsyncIterator[Lab]:
    async with lab(slurm) as made:
        yield made


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)


@pytest.fixture
def tiny(slurm: Slurm) -> Iterator[Path]:
    """A folder of the cluster with room for 300 kB."""
    folder = slurm.base / "tiny"
    folder.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder))
    run("chown", USER, str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@contextmanager
def login(shell: str, **files: str) -> Iterator[None]:
    """The user's login shell is another one, and its start files are these."""
    home = Path(os.path.expanduser(f"~{USER}"))
    made = {home / f".{name}": text for name, text in files.items()}
    before = {path: path.read_text() if path.exists() else None for path in made}
    run("chsh", "-s", shell, USER)
    try:
        for path, text in made.items():
            path.write_text(text)
            run("chown", USER, str(path))
        yield
    finally:
        run("chsh", "-s", "/bin/bash", USER)
        for path, old in before.items():
            path.unlink() if old is None else path.write_text(old)


async def test_a_full_disk_is_told_and_waited_for(slurm: Slurm, tiny: Path) -> None:
    async with lab(slurm, {"workRoot": str(tiny)}) as it:
        fill = tiny / "full"
        await asyncio.to_thread(subprocess.run, ["dd", "if=/dev/zero", f"of={fill}", "bs=4k"], capture_output=True)
        await it.submit("small", "cat a", source={"inline": {"a": "x" * 9000}})
        told = await it.until("small", lambda job: job.status.reason == "RemoteFileError")
        assert "No space left" in told.status.message
        await it.submit("large", "wc -c < a", source={"inline": {"a": "x" * 100_000}})
        told = await it.until("large", lambda job: job.status.reason == "RemoteFileError")
        fill.unlink()
        jobs = [await it.ended(name) for name in ("small", "large")]
        assert [job.status.phase for job in jobs] == ["Succeeded", "Succeeded"]
        assert it.result(jobs[1]) == "100000\n"


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/bash"])
async def test_a_login_may_talk_and_have_any_shell(slurm: Slurm, shell: str) -> None:
    noise = "echo 'Welcome! 12345'; echo 'quota: 7|0|RUNNING' >&2; printf 'no line end'; sbatch() { echo 99; }\n"
    with login(shell, bashrc=noise, profile=noise, bash_profile=noise):
        async with lab(slurm) as it:
            await it.submit("quiet", "echo hello", source={"inline": {"a": "b"}})
            job = await it.ended("quiet")
            assert job.status.phase == "Succeeded"
            assert it.result(job).endswith("hello\n")
            assert job.status.jobId not in ("99", "12345")


async def test_what_is_no_shell_is_told(slurm: Slurm) -> None:
    with login("/usr/sbin/nologin"):
        async with lab(slurm) as it:
            cluster = await it.reachable("False")
            assert cluster.status.conditions[0].message


async def test_a_host_on_the_way(slurm: Slurm) -> None:
    jump = {"host": "127.0.0.1", "port": slurm.port + 5}
    known = slurm.known_hosts
    async with lab(slurm, {"proxyJump": jump, "knownHosts": known}) as it:
        await it.submit("through", "cat big | wc -c", source={"inline": {"big": "x" * 300_000}})
        job = await it.ended("through")
        assert (job.status.phase, it.result(job)) == ("Succeeded", "300000\n")


async def test_without_accounting_marks_and_the_queue_tell(slurm: Slurm) -> None:
    """sacct is not there; the job is forgotten by the queue as soon as it has ended."""
    path = slurm.base / "few"
    path.mkdir(exist_ok=True)
    for name in ("sbatch", "squeue", "scancel", "bash", "flock", "mkdir", "mv", "tar", "base64", "id", "find", "head",
                 "rm", "timeout", "awk", "tail", "stat", "cat"):  # fmt: skip
        (path / name).unlink(missing_ok=True)
        (path / name).symlink_to(f"/usr/bin/{name}")
    squeue = path / "squeue"
    squeue.unlink()
    squeue.write_text(
        '#!/bin/sh\nexec /usr/bin/squeue "$@" | grep -v "|COMPLETED|\\||FAILED|\\||COMPLETING|"; exit 0\n'
    )
    squeue.chmod(0o755)
    sacct = path / "sacct"
    sacct.write_text("#!/bin/sh\nexit 127\n")
    sacct.chmod(0o755)
    env = [{"name": "PATH", "value": f"{path}:/usr/bin:/bin"}]
    async with lab(slurm, {"env": env}) as it:
        await it.submit("good", "echo fine")
        await it.submit("bad", "exit 5")
        good, bad = await it.ended("good"), await it.ended("bad")
        assert (good.status.phase, it.result(good)) == ("Succeeded", "fine\n")
        assert (bad.status.phase, bad.status.reason, bad.status.exitCode) == ("Failed", "NonZeroExit", 5)


async def test_an_array_of_three_hundred(it: Lab) -> None:
    await it.submit("wide", "exit $((SLURM_ARRAY_TASK_ID % 100 == 7))", array="0-299",
                    output={"stdout": "all-%A.out", "stderr": "all-%A.err"})  # fmt: skip
    job = await it.ended("wide", 100)
    tasks = job.status.tasks
    assert tasks is not None
    assert (tasks.total, tasks.succeeded, tasks.failed) == (300, 297, 3)


async def test_accounting_that_is_away_holds_up_nothing(it: Lab, healthy: Slurm) -> None:
    healthy.stop("slurmdbd")
    await it.submit("unaccounted", "exit 3")
    job = await it.ended("unaccounted")
    assert (job.status.phase, job.status.exitCode) == ("Failed", 3)


@pytest.mark.long
async def test_requeued_by_somebody_it_is_the_same_job(it: Lab) -> None:
    await it.submit("again", "while [ ! -e ../end ]; do sleep 0.2; done; echo done")
    first = await it.begun("again", "Running")
    it.slurm.say("scontrol", "requeue", first.status.jobId)
    await it.begun("again", "Queued")
    (Path(first.status.remotePath) / "end").touch()
    job = await it.ended("again", 80)
    assert (job.status.phase, job.status.jobId, job.status.attempt) == ("Succeeded", first.status.jobId, 0)
    assert it.result(job) == "done\n"


async def test_the_last_lines_of_a_followed_job_are_there(it: Lab) -> None:
    await it.submit("talks", "for i in $(seq 200); do echo line $i; sleep 0.01; done; echo last")
    job = await it.begun("talks", "Running", "Succeeded")
    results = it.it.master._job_files.results
    read = b""
    while job.status.phase != "Succeeded":
        results.read(job.metadata.uid)
        await asyncio.sleep(0.1)
        file = results.file(job.metadata.uid, "job.out")
        read += file.read_bytes()[len(read) :] if file else b""
        job = await it.client.get(GpuJob, "talks", "default")
    file = results.file(job.metadata.uid, "job.out")
    assert file is not None
    read += file.read_bytes()[len(read) :]
    assert read.decode() == "".join(f"line {i}\n" for i in range(1, 201)) + "last\n"
