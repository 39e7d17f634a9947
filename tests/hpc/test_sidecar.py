"""GpuJobs that pods of their own drive: a real agent in Docker, a real Slurm, and drivers that are killed."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.agent import Agent, until
from tests.hpc.slurm import Slurm
from tests.kubectls import KUBECTLS
from tests.lab.host import LabHost
from tests.lab.lab import HERE, Lab

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.kubectl, pytest.mark.timeout(150, func_only=True)]
ENDED = ("Succeeded", "Failed", "Cancelled", "Lost")


class Beside(NamedTuple):
    """An agent on a host of its own, and a Slurm that its pods reach."""

    agent: Agent
    host: LabHost
    slurm: Slurm

    def submit(self, name: str, *run: str, **spec: Any) -> None:
        job = {"apiVersion": "hpc.minik8s.io/v1", "kind": "GpuJob", "metadata": {"name": name},
               "spec": {"run": list(run), **spec}}  # fmt: skip
        self.agent.kubectl("apply", "-f", "-", stdin=json.dumps(job))

    def job(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.agent.kubectl("get", "gpujob", name, "-o", "json").json
        return found

    def phase(self, name: str, *phases: str, seconds: float = 45) -> dict[str, Any]:
        wanted = phases or ENDED
        what = lambda: f"{self.job(name)['status']}\n{self.pods(name)}"  # noqa: E731
        until(lambda: self.job(name)["status"].get("phase") in wanted, seconds=seconds, what=what)
        return self.job(name)

    def pods(self, name: str) -> list[dict[str, Any]]:
        label = f"hpc.minik8s.io/driver-of={self.job(name)['metadata']['uid']}"
        found: list[dict[str, Any]] = self.agent.kubectl("get", "pods", "-l", label, "-o", "json").json["items"]
        return found

    def result(self, name: str, path: str = "job.out") -> str:
        where = f"/apis/hpc.minik8s.io/v1/namespaces/default/gpujobs/{name}/results/{path}"
        return self.agent.kubectl("get", "--raw", where).out


@contextmanager
def forwarded(address: str, port: int) -> Iterator[int]:
    """A port of `address` behind which is that of loopback."""
    listener = socket.create_server((address, 0))

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory, slurm: Slurm) -> Iterator[Beside]:
    if lacking := LabHost.lacking():
        pytest.skip(lacking)
    if not KUBECTLS:
        pytest.skip("no kubectl: run scripts/kubectl")
    with (
        Lab(tmp_path_factory.mktemp("lab"), hosts=1) as lab,
        forwarded(f"{lab.network}.{HERE}", slurm.port + 5) as port,
    ):
        lab.start_engines()
        agent = lab.hosts[0].agent()
        try:
            agent.start()
            agent.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
            key = slurm.known_hosts.partition(" ")[2]
            address = f"{lab.network}.{HERE}"
            cluster = slurm.cluster(
                host=address,
                port=port,
                knownHosts=f"[{address}]:{port} {key}",
                driver="Sidecar",
                pollInterval={"minSeconds": 1, "maxSeconds": 2},
            )
            for kind, version, made in (("Secret", "v1", slurm.login()), ("HpcCluster", "hpc.minik8s.io/v1", cluster)):
                document = {"apiVersion": version, "kind": kind, **made}
                agent.kubectl("apply", "-f", "-", stdin=json.dumps(document))
            made = Beside(agent, lab.hosts[0], slurm)
            # At once, as they all wait for the image, which the node makes.
            made.submit("own", "echo begun; sleep 200", source={"inline": {"x": "y"}})
            made.submit("other", "true", driver="Master")
            made.submit("fails", "exit 3")
            yield made
        finally:
            if agent.pid is not None:
                agent.stop()


def archive(folder: Path) -> Path:
    bundle = folder / "bundle.tar"
    with tarfile.open(bundle, "w") as tar:
        info = tarfile.TarInfo("big")
        info.size = 5_000_000
        tar.addfile(info, io.BytesIO(os.urandom(info.size)))
    return bundle


def test_a_driver_that_is_killed_goes_on_with_the_one_submission(it: Beside, tmp_path: Path) -> None:
    job = {"apiVersion": "hpc.minik8s.io/v1", "kind": "GpuJob", "metadata": {"name": "killed"},
           "spec": {"run": ["echo begun; while [ ! -e end ]; do sleep 0.2; done; sha256sum < big"],
                    "output": {"artifacts": ["big"]}}}  # fmt: skip
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(job))
    bundle = archive(tmp_path)
    it.agent.minik8s("apply", "-f", str(file), "-j", str(bundle))
    begun = it.phase("killed", "Running", seconds=90)
    assert begun["status"]["driver"] == "Sidecar"
    (pod,) = it.pods("killed")
    owner = pod["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], pod["status"]["phase"]) == ("GpuJob", "killed", "Running")
    until(
        lambda: "begun" in it.agent.minik8s("gpu", "logs", "killed").out,
        what=lambda: it.agent.kubectl("logs", pod["metadata"]["name"]).both,
    )
    # First the process, then the pod: the kubelet starts it again, and the master makes another.
    it.host.docker("kill", pod["status"]["containerStatuses"][0]["containerID"].removeprefix("docker://"))
    until(lambda: it.pods("killed")[0]["status"]["containerStatuses"][0]["restartCount"] == 1, what="it starts again")
    it.agent.kubectl("delete", "pod", pod["metadata"]["name"], "--now", "--wait=false")
    until(
        lambda: [p["metadata"]["uid"] for p in it.pods("killed")] not in ([], [pod["metadata"]["uid"]]), what="another"
    )
    (Path(begun["status"]["remotePath"]) / "work/end").touch()
    ended = it.phase("killed")["status"]
    assert (ended["phase"], ended["exitCode"], ended["jobId"]) == ("Succeeded", 0, begun["status"]["jobId"]), ended
    assert (ended["files"], ended["bytes"] > 5_000_000) == (3, True)
    assert it.slurm.submissions(f"mk8s-{ended['submissionId']}") == [ended["jobId"]]
    with tarfile.open(bundle) as tar:
        sent = tar.extractfile("big")
        assert sent is not None
        (tmp_path / "sent").write_bytes(sent.read())
    it.agent.minik8s("gpu", "killed", "-f", "big", "-d", str(tmp_path))
    assert (tmp_path / "big").read_bytes() == (tmp_path / "sent").read_bytes()
    assert it.result("killed").startswith("begun\n")
    assert not Path(ended["remotePath"]).exists()
    until(lambda: it.pods("killed")[0]["status"]["phase"] == "Succeeded", what="its driver ends with it")


def test_a_driver_may_do_what_its_own_job_needs_and_no_more(it: Beside) -> None:
    begun, failed = it.phase("own", "Running"), it.phase("fails")
    assert (failed["status"]["reason"], Path(failed["status"]["remotePath"]).exists()) == ("NonZeroExit", True)
    it.agent.kubectl("delete", "gpujob", "fails", "--wait=false")
    it.phase("other")
    assert "driver" not in it.job("other")["status"]
    assert it.pods("other") == []
    (pod,) = it.pods("own")
    account = f"system:serviceaccount:default:{pod['spec']['serviceAccountName']}"

    def may(verb: str, *what: str) -> bool:
        return it.agent.kubectl("auth", "can-i", verb, *what, f"--as={account}", check=False).out.strip() == "yes"

    for verb, *what in (
        ("get", "gpujobs/own"), ("patch", "gpujobs/own", "--subresource=status"), ("get", "secrets/login"),
        ("update", "gpujobs/own", "--subresource=results"), ("get", "hpcclusters/lab"), ("create", "events"),
    ):  # fmt: skip
        assert may(verb, *what), (verb, what)
    for verb, *what in (
        ("get", "gpujobs/other"), ("patch", "gpujobs/own"), ("delete", "gpujobs/own"), ("list", "gpujobs"),
        ("list", "secrets"), ("get", "secrets/other"), ("get", "configmaps/x"), ("patch", "hpcclusters/lab"),
        ("update", "gpujobs/other", "--subresource=results"), ("get", "gpujobs/own", "--subresource=source"),
        ("create", "pods"), ("get", "pods"),
    ):  # fmt: skip
        assert not may(verb, *what), (verb, what)
    path = "/apis/hpc.minik8s.io/v1/namespaces/default/gpujobs/own/results/x?offset=0"
    refused = it.agent.kubectl("replace", "--raw", path, "-f", "/dev/null", check=False)
    assert "nobody but its driver" in refused.err, refused
    # Deleting it ends it over there, by its driver.
    it.agent.kubectl("delete", "gpujob", "own", "--timeout=40s")
    state = it.slurm.say("squeue", "-h", "-t", "all", "-j", begun["status"]["jobId"], "-o", "%T")
    assert state.strip() in ("CANCELLED", "COMPLETING")
    assert not Path(begun["status"]["remotePath"]).exists()
    # One that has ended, and left its folder there, is given a driver again to take that away.
    gone = it.agent.kubectl("wait", "--for=delete", "gpujob/fails", "--timeout=40s", check=False)
    assert not Path(failed["status"]["remotePath"]).exists(), gone
    until(lambda: pod["metadata"]["name"] not in it.agent.kubectl("get", "pods,roles,sa", "-o", "name").out,
          what="what it had goes with it")  # fmt: skip
