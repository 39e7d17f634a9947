"""Jobs on a real Slurm behind a real sshd: every end that a job can have."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from minik8s.api.kinds.gpujob import GpuJob
from minik8s.api.kinds.hpccluster import HpcCluster
from minik8s.api.kinds.secret import Secret
from tests.hpc.slurm import Lab, Slurm, lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
NODE = os.uname().nodename.split(".")[0]


@pytest_asyncio.fixture
async def it(slurm: Slurm) -> AsyncIterator[Lab]:
    async with lab(slurm) as made:
        yield made


async def test_a_job_comes_back_with_its_results(it: Lab) -> None:
    hostile = 'it\'s "$HOME" `id` $(id)\n\\ü\n'
    await it.submit(
        "good", "cat 'a file.txt'; echo wrong >&2; mkdir -p out/deep; echo 42 > out/deep/x.dat; printf %s \"$WORD\"",
        source={"inline": {"a file.txt": hostile}}, env=[{"name": "WORD", "value": hostile}],
        output={"artifacts": ["out/**"]}, resources={"gpus": 1, "memory": "64Mi", "time": "2m", "cpusPerTask": 2},
    )  # fmt: skip
    job = await it.ended("good")
    assert (job.status.phase, job.status.exitCode, job.status.files) == ("Succeeded", 0, 3)
    assert it.result(job) == hostile * 2
    assert (it.result(job, "job.err"), it.result(job, "out/deep/x.dat")) == ("wrong\n", "42\n")
    assert (job.status.partition, job.status.nodes, bool(job.status.startTime)) == ("gpu", NODE, True)
    assert not it.slurm.say("find", job.status.remotePath.rpartition("/")[0], "-name", "good-*")  # cleaned up


async def test_ends_that_are_failures_say_why(it: Lab) -> None:
    await it.submit("compile", "./nothing", build=["gcc missing.c -o nothing"])
    await it.submit("exit", "exit 7")
    await it.submit("signal", "kill -SEGV $$")
    await it.submit("partition", "true", resources={"partition": "nowhere"})
    await it.submit("memory", "tail -c 300m /dev/zero | tail | sleep 20", resources={"memory": "32Mi"})
    await it.submit("configmap", "true", source={"configMap": {"name": "missing"}})
    told = {}
    for name in ("compile", "exit", "signal", "partition", "memory", "configmap"):
        status = (await it.ended(name)).status
        told[name] = (status.phase, status.reason, status.exitCode)
    assert told == {
        "compile": ("Failed", "NonZeroExit", 1),
        "exit": ("Failed", "NonZeroExit", 7),
        "signal": ("Failed", "NonZeroExit", 139),
        "partition": ("Failed", "SubmitRejected", None),
        "memory": ("Failed", "NonZeroExit", 137),  # this Slurm has no cgroups: it kills, and does not say why
        "configmap": ("Failed", "InvalidSource", None),
    }
    assert "without memory" in (await it.ended("memory")).status.message
    assert "missing.c" in it.result(await it.ended("compile"), "job.err")
    assert "invalid partition" in (await it.ended("partition")).status.message.lower()


async def test_cancelling_by_spec_by_slurm_and_by_delete(it: Lab) -> None:
    for name in ("spec", "slurm", "gone"):
        await it.submit(name, "echo begun; sleep 100")
    jobs = {name: await it.begun(name, "Running") for name in ("spec", "slurm", "gone")}
    await it.client.patch(GpuJob, "spec", "default", {"spec": {"cancel": True}})
    it.slurm.say("scancel", jobs["slurm"].status.jobId)
    await it.client.delete(GpuJob, "gone", "default")
    one, two = await it.ended("spec"), await it.ended("slurm")
    assert (one.status.phase, one.status.reason) == ("Cancelled", "CancelledByUser")
    assert (two.status.phase, two.status.reason) == ("Cancelled", "CancelledBySlurm")
    assert it.result(one) == "begun\n"
    informer = it.it.informers.of(GpuJob)
    async with asyncio.timeout(30):
        while informer.get("default", "gone") is not None:
            await asyncio.sleep(0.1)
    state = it.slurm.say("squeue", "-h", "-t", "all", "-j", jobs["gone"].status.jobId, "-o", "%T")
    assert state.strip() in ("CANCELLED", "COMPLETING")


async def test_an_array_is_counted_task_by_task(it: Lab) -> None:
    await it.submit("array", "echo $SLURM_ARRAY_TASK_ID; exit $((SLURM_ARRAY_TASK_ID == 3))", array="0-9%5")
    job = await it.ended("array")
    tasks = job.status.tasks
    assert tasks is not None
    assert (tasks.total, tasks.succeeded, tasks.failed, tasks.running, tasks.queued) == (10, 9, 1, 0, 0)
    assert (job.status.phase, job.status.reason) == ("Failed", "NonZeroExit")
    assert [it.result(job, f"job-{n}.out") for n in range(10)] == [f"{n}\n" for n in range(10)]


async def test_jobs_wait_for_others_or_never_begin(it: Lab) -> None:
    await it.submit("first", "true")
    await it.submit("after", "echo then", dependsOn=[{"name": "first"}])
    await it.submit("fails", "false")
    await it.submit("never", "true", dependsOn=[{"name": "fails"}])
    await it.submit("cleanup", "true", dependsOn=[{"name": "fails", "condition": "Failed"}])
    assert (await it.ended("after")).status.phase == "Succeeded"
    assert (await it.ended("never")).status.reason == "DependencyNeverSatisfied"
    assert (await it.ended("cleanup")).status.phase == "Succeeded"
    failed = (await it.ended("fails")).status.jobId
    script = f"#!/bin/bash\n#SBATCH --dependency=afterok:{failed}\ntrue\n"
    document = {"metadata": {"name": "slurms", "namespace": "default"},
                "spec": {"script": "own.slurm", "source": {"inline": {"own.slurm": script}}}}  # fmt: skip
    await it.client.create(GpuJob, document)
    own = await it.ended("slurms")
    assert (own.status.phase, own.status.reason) == ("Failed", "DependencyNeverSatisfied")


async def test_a_node_that_fails_is_tried_again(it: Lab, healthy: Slurm) -> None:
    script = "#!/bin/bash\n#SBATCH --no-requeue\nsleep ${SLEEP:-4}; echo done\n"
    document = {"metadata": {"name": "node", "namespace": "default"},
                "spec": {"script": "own.slurm", "source": {"inline": {"own.slurm": script}}}}  # fmt: skip
    await it.client.create(GpuJob, document)
    await it.submit("requeued", "sleep 4; echo done")
    first = await it.begun("node", "Running")
    second = await it.begun("requeued", "Running")
    healthy.say("scontrol", "update", f"nodename={NODE}", "state=down", "reason=test")
    again = await it.until("node", lambda job: job.status.attempt == 1)
    assert "attempt 1 ended: a node of the job failed" in again.status.message
    await it.begun("requeued", "Queued")
    healthy.resume()
    node, requeued = await it.ended("node"), await it.ended("requeued", 150)
    assert node.status.phase == requeued.status.phase == "Succeeded"
    assert node.status.jobId != first.status.jobId
    assert requeued.status.jobId == second.status.jobId


async def test_logins_that_fail_are_told_in_words(it: Lab) -> None:
    async def change(reason: str, **spec: object) -> None:
        await it.client.patch(HpcCluster, "lab", "default", {"spec": spec})
        found = await it.reachable("False", reason)
        assert found.status.conditions[0].message

    await it.reachable("True")
    other = it.slurm.known_hosts.replace("AAAA", "AAAA", 1)
    wrong = other.rpartition(" ")[0] + " AAAAC3NzaC1lZDI1NTE5AAAAIJx2Zk0bqGJq0m1rC8yZl1mW8xQz2V7m5Y2m0m6r3c1X"
    await change("HostKeyChanged", knownHosts=wrong)
    await change("HostKeyUnknown", knownHosts=None)
    await it.client.create(
        Secret, {"metadata": {"name": "pw", "namespace": "default"}, "stringData": {"password": "x"}}
    )
    await change("LoginRefused", knownHosts=it.slurm.known_hosts, secretRef={"name": "pw"})
    await change("Unreachable", port=1)
    await change("InvalidSecret", port=it.slurm.port + 5, secretRef={"name": "none"})
    await it.client.patch(Secret, "pw", "default", {"stringData": {"password": it.slurm.password}})
    spec = {"secretRef": {"name": "pw"}, "hostKeyPolicy": "TrustOnFirstUse", "knownHosts": None}
    await it.client.patch(HpcCluster, "lab", "default", {"spec": spec})
    cluster = await it.reachable("True")
    assert cluster.status.hostKey == it.slurm.known_hosts
    await it.submit("password", "true")
    assert (await it.ended("password")).status.phase == "Succeeded"


@pytest.mark.long
async def test_the_time_limit_ends_a_job(it: Lab) -> None:
    await it.submit("slow", "sleep 300", resources={"time": "1m"})
    job = await it.ended("slow", 170)
    assert (job.status.phase, job.status.reason) == ("Failed", "TimeLimit")
