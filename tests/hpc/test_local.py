"""GpuJobs as pods, on a real node with devices that are not there: the same manifests as for Slurm."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent import Agent, until
from tests.kubectls import KUBECTLS
from tests.lab.host import LabHost
from tests.lab.lab import Lab

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.kubectl, pytest.mark.timeout(150, func_only=True)]
EXAMPLES = Path(__file__).parents[2] / "configs/examples/gpu"
DEVICE = "example.test/gpu"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    if lacking := LabHost.lacking():
        pytest.skip(lacking)
    if not KUBECTLS:
        pytest.skip("no kubectl: run scripts/kubectl")
    with Lab(tmp_path_factory.mktemp("lab"), hosts=1) as lab:
        lab.start_engines()
        lab.make_images("busybox")
        plugins = str(lab.hosts[0].folder / "plugins")  # the usual folder is the whole machine's
        lent = lab.hosts[0].agent("--fake-device", f"{DEVICE}=2", "--device-plugins", plugins)
        try:
            lent.start()
            lent.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
            local = {"type": "Local", "local": {"image": "minik8s.test/busybox:1", "resourceName": DEVICE}}
            cluster = {
                "apiVersion": "hpc.minik8s.io/v1", "kind": "HpcCluster", "metadata": {"name": "laptop"}, "spec": local,
            }  # fmt: skip
            lent.kubectl("apply", "-f", "-", stdin=json.dumps(cluster))
            yield lent
        finally:
            if lent.pid is not None:
                lent.stop()


def submit(agent: Agent, name: str, *run: str, **spec: Any) -> None:
    job = {"apiVersion": "hpc.minik8s.io/v1", "kind": "GpuJob", "metadata": {"name": name},
           "spec": {"run": list(run), **spec}}  # fmt: skip
    agent.kubectl("apply", "-f", "-", stdin=json.dumps(job))


def status(agent: Agent, name: str) -> dict[str, Any]:
    found: dict[str, Any] = agent.kubectl("get", "gpujob", name, "-o", "json").json["status"]
    return found


def phase(agent: Agent, name: str, *phases: str, seconds: float = 40) -> dict[str, Any]:
    wanted = phases or ("Succeeded", "Failed", "Cancelled", "Lost")
    until(lambda: status(agent, name).get("phase") in wanted, seconds=seconds, what=lambda: str(status(agent, name)))
    return status(agent, name)


def result(agent: Agent, name: str, path: str = "job.out") -> str:
    where = f"/apis/hpc.minik8s.io/v1/namespaces/default/gpujobs/{name}/results/{path}"
    return agent.kubectl("get", "--raw", where).out


def pods(agent: Agent, name: str) -> list[str]:
    found = agent.kubectl("get", "pods", "-o", "name").out.split()
    return sorted(each for each in found if each.startswith(f"pod/{name}-"))


def test_a_job_runs_as_a_pod_and_its_results_come_back(agent: Agent) -> None:
    hostile = 'it\'s "$HOME" `id` $(id)\n\\ü\n'
    submit(
        agent, "good", "cat 'a file.txt'; echo wrong >&2; mkdir -p out/deep; echo 42 > out/deep/x.dat",
        'printf %s "$WORD"', modules=["cuda/12.4"], source={"inline": {"a file.txt": hostile}},
        env=[{"name": "WORD", "value": hostile}], output={"artifacts": ["out/**"]},
        resources={"partition": "gpu", "gpus": 1, "memory": "64Mi", "time": "2m"},
    )  # fmt: skip
    ended = phase(agent, "good")
    assert (ended["phase"], ended["exitCode"], ended["files"]) == ("Succeeded", 0, 3), ended
    assert result(agent, "good") == hostile * 2
    assert "no modules here: left out: module load cuda/12.4\nwrong\n" in result(agent, "good", "job.err")
    assert result(agent, "good", "out/deep/x.dat") == "42\n"
    until(lambda: not pods(agent, "good"), what="its pod is taken away")
    condition = agent.kubectl("get", "hpccluster", "laptop", "-o", "json").json["status"]["conditions"][0]
    assert (condition["reason"], condition["message"]) == ("Devices", f"2 {DEVICE} on 1 node")


def test_ends_that_are_failures_say_why(agent: Agent) -> None:
    submit(agent, "exit", "exit 7")
    submit(agent, "limit", "echo begun; sleep 100", resources={"time": "2s"})
    submit(agent, "memory", "tail /dev/zero", resources={"memory": "16Mi"})
    submit(agent, "nodes", "true", resources={"nodes": 2})
    submit(agent, "own", script="own.slurm", source={"inline": {"own.slurm": "#!/bin/sh\n"}})
    told = {}
    for name in ("exit", "limit", "memory", "nodes", "own"):
        ended = phase(agent, name)
        told[name] = (ended["phase"], ended["reason"])
    assert told == {
        "exit": ("Failed", "NonZeroExit"), "limit": ("Failed", "TimeLimit"), "memory": ("Failed", "OOMKilled"),
        "nodes": ("Failed", "NotSupported"), "own": ("Failed", "NotSupported"),
    }  # fmt: skip
    assert status(agent, "exit")["exitCode"] == 7
    assert result(agent, "limit") == "begun\n"
    assert "spec.resources.nodes" in status(agent, "nodes")["message"]


def test_devices_are_waited_for_cancelled_jobs_keep_what_they_wrote(agent: Agent) -> None:
    submit(agent, "both", "echo begun; sleep 100", resources={"gpus": 2})
    phase(agent, "both", "Running")
    until(lambda: "begun" in agent.minik8s("gpu", "logs", "both").out, what="the live output")
    submit(agent, "next", "echo then", resources={"gres": "gpu:1"})
    waits = phase(agent, "next", "Queued")
    until(lambda: status(agent, "next").get("reason") == "Unschedulable", what=lambda: str(waits))
    assert f"Insufficient {DEVICE}" in status(agent, "next")["message"]
    agent.minik8s("gpu", "cancel", "both")
    ended = phase(agent, "both")
    assert (ended["phase"], ended["reason"]) == ("Cancelled", "CancelledByUser")
    assert result(agent, "both") == "begun\n"
    assert phase(agent, "next")["phase"] == "Succeeded"
    submit(agent, "never", "true", resources={"gpus": 3})
    phase(agent, "never", "Queued")
    agent.minik8s("gpu", "cancel", "never")
    assert phase(agent, "never")["reason"] == "CancelledByUser"
    submit(agent, "gone", "sleep 100")
    phase(agent, "gone", "Running")
    agent.kubectl("delete", "gpujob", "gone", "--timeout=30s")
    until(lambda: not pods(agent, "gone"), what="its pod goes with it")


@pytest.mark.long
def test_arrays_dependencies_archives_and_pods_that_are_lost(agent: Agent, tmp_path: Path) -> None:
    submit(agent, "first", "sleep 1")
    submit(agent, "array", "echo $SLURM_ARRAY_TASK_ID; exit $((SLURM_ARRAY_TASK_ID == 3))", array="0-5%3",
           dependsOn=[{"name": "first"}], resources={"gpus": 1})  # fmt: skip
    submit(agent, "lost", "while [ ! -e /job/end ]; do sleep 0.2; done", retry={"limit": 1, "on": ["NodeFail"]})
    bundle = tmp_path / "bundle.tar.gz"
    with tarfile.open(bundle, "w:gz") as tar:
        info = tarfile.TarInfo("big")
        info.size = 3_000_000
        tar.addfile(info, io.BytesIO(os.urandom(info.size)))
    job = {"apiVersion": "hpc.minik8s.io/v1", "kind": "GpuJob", "metadata": {"name": "packed"},
           "spec": {"run": ["wc -c < big"], "output": {"artifacts": ["big"]}}}  # fmt: skip
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(job))
    agent.minik8s("apply", "-f", str(file), "-j", str(bundle))
    phase(agent, "lost", "Running")
    (before,) = pods(agent, "lost")
    agent.kubectl("delete", before, "--now", "--wait=false")
    until(lambda: status(agent, "lost").get("attempt") == 1, what=lambda: str(status(agent, "lost")))
    assert phase(agent, "packed")["bytes"] >= 3_000_000
    assert result(agent, "packed") == "3000000\n"
    ended = phase(agent, "array")
    assert (ended["phase"], ended["tasks"]["succeeded"], ended["tasks"]["failed"]) == ("Failed", 5, 1), ended
    assert [result(agent, "array", f"job-{n}.out") for n in range(6)] == [f"{n}\n" for n in range(6)]
    phase(agent, "lost", "Running")
    (again,) = (each for each in pods(agent, "lost") if each != before)
    agent.kill9()
    agent.start()
    agent.kubectl("exec", again, "-c", "files", "--", "touch", "/job/end")
    assert phase(agent, "lost")["phase"] == "Succeeded"
    assert status(agent, "lost")["attempt"] == 1


def test_the_examples_do_what_they_promise(agent: Agent, tmp_path: Path) -> None:
    agent.kubectl("apply", "--dry-run=server", "-f", str(EXAMPLES / "slurm.yaml"))
    agent.kubectl("apply", "-f", str(EXAMPLES / "local.yaml"))
    assert phase(agent, "squares")["phase"] == "Succeeded"
    agent.minik8s("gpu", "squares", "-d", str(tmp_path))
    assert (tmp_path / "squares.txt").read_text() == "1\n4\n9\n"
