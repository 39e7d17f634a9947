"""Who drives a job, with which rights, on which node; and what a driver may write."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from minik8s.aio import background
from minik8s.api.errors import BadRequest, Conflict, Invalid
from minik8s.api.kinds.gpujob import GpuJob
from minik8s.api.kinds.hpccluster import HpcCluster, HpcClusterSpec
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.secret import Secret
from minik8s.hpc import driver_pod, results, site
from minik8s.hpc.results import PARTIAL, Full, Results
from minik8s.hpc.sources import BadSource
from minik8s.hpc.ssh import Answer, Login, Unreachable
from minik8s.testing import Cluster, cluster

HPC = {"metadata": {"name": "far", "namespace": "default"},
       "spec": {"host": "127.0.0.1", "port": 1, "user": "ada", "secretRef": {"name": "login"}, "driver": "Sidecar",
                "knownHosts": "h ssh-ed25519 AAAA"}}  # fmt: skip


def job(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"run": ["true"], **spec}}


async def begin(it: Cluster) -> None:
    login = {"metadata": {"name": "login", "namespace": "default"}, "stringData": {"password": "x"}}
    await it.client.create(Secret, login)
    await it.client.create(HpcCluster, HPC)


async def drivers(it: Cluster) -> list[Pod]:
    return list((await it.client.list(Pod, "default", labels=f"{driver_pod.APP_LABEL}={driver_pod.APP}")).items)


async def test_drivers_are_spread_over_nodes_and_those_who_go_come_again() -> None:
    async with cluster(nodes=3) as it:
        await begin(it)
        for number in range(6):
            await it.client.create(GpuJob, job(f"j{number}"))
        await it.client.create(GpuJob, job("master", driver="Master"))
        for number in range(6):
            await it.until(Pod, lambda p, n=number: p.metadata.name.startswith(f"j{n}-driver-") and p.spec.nodeName)
        found = await drivers(it)
        assert sorted(Counter(pod.spec.nodeName for pod in found).values()) == [2, 2, 2]
        first = found[0]
        await it.client.delete(Pod, first.metadata.name, "default", grace=0)
        await it.until(Pod, lambda p: p.metadata.name == first.metadata.name and p.metadata.uid != first.metadata.uid)
        told = await it.until(GpuJob, lambda j: j.metadata.name == "master" and j.status.reason)
        assert (told.status.driver, told.status.reason) == ("", "ClusterUnreachable")


async def test_a_job_waits_for_others_before_it_has_a_driver_and_can_be_cancelled() -> None:
    async with cluster(nodes=0) as it:
        await begin(it)
        await it.client.create(GpuJob, job("first"))
        await it.client.create(GpuJob, job("then", dependsOn=[{"name": "first", "condition": "Finished"}]))
        first = await it.until(GpuJob, lambda j: j.metadata.name == "first" and j.status.reason == "DriverWaiting")
        assert "no nodes available" in first.status.message
        assert [pod.metadata.name for pod in await drivers(it)] == [driver_pod.name_of(first)]
        await it.client.patch(GpuJob, "first", "default", {"spec": {"cancel": True}})
        done = await it.until(GpuJob, lambda j: j.metadata.name == "first" and j.status.phase == "Cancelled")
        assert done.status.reason == "CancelledByUser"
        await it.until(GpuJob, lambda j: j.metadata.name == "then" and j.status.driver == "Sidecar")


async def test_what_is_no_driver_is_refused() -> None:
    async with cluster(nodes=0) as it:
        with pytest.raises(Invalid, match=r'spec.driver: Unsupported value: "Nobody"'):
            await it.client.create(GpuJob, job("odd", driver="Nobody"))
        with pytest.raises(Invalid, match=r"spec.driver"):
            await it.client.create(HpcCluster, {**HPC, "spec": {**HPC["spec"], "driver": "Pod"}})
        local = {"type": "Local", "local": {"image": "x"}, "driver": "Sidecar"}
        with pytest.raises(Invalid, match=r"spec.driver.*is for clusters of type Slurm"):
            await it.client.create(HpcCluster, {**HPC, "spec": local})


async def test_a_login_that_is_not_at_its_end_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    class Slow:
        closed, host_key = False, ""

        def prepare(self, text: bytes) -> None: ...

        def close(self) -> None: ...

        async def wait_closed(self) -> None:
            await asyncio.Event().wait()

        async def run(self, text: str) -> Answer:
            asked.set()
            await answered.wait()
            return Answer(0, "slurm 22.05\n/home/ada\n")

    async def connect(*given: Any, **more: Any) -> Slow:
        return Slow()

    async def login() -> tuple[HpcClusterSpec, Login, str]:
        return HpcClusterSpec(), Login("ada"), ""

    monkeypatch.setattr(site, "connect", connect)
    up = asyncio.Event()
    made = site.Site("x", Results(Path("none")), login, told=lambda uid: None, state_changed=up.set)
    async with background(made.run()):
        await asked.wait()
        with pytest.raises(Unreachable):  # its home would be "", and a job's folder below the root
            _ = made.connection
        answered.set()
        await up.wait()
        assert (made.home, bool(made.connection)) == ("/home/ada", True)


def test_results_that_grow_and_results_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Results(tmp_path)
    assert kept.write("u", "out", 0, b"ab", None) == 2
    assert kept.write("u", "out", 2, b"cd", None) == 4
    assert (tmp_path / "u/out").read_bytes() == b"abcd"
    with pytest.raises(Conflict) as gap:
        kept.write("u", "out", 9, b"x", None)
    assert gap.value.details == {"received": 4}
    assert kept.write("u", "out", 0, b"z", None) == 1
    assert kept.write("u", "out", 0, b"12", 4) == 2
    assert (tmp_path / "u/out").read_bytes() == b"z"
    assert [each.path for each in kept.index("u")] == ["out"]
    assert kept.write("u", "out", 2, b"34", 4) == 4
    assert (tmp_path / "u/out").read_bytes() == b"1234"
    assert kept.write("u", "none", 0, b"", 0) == 0
    assert (tmp_path / "u/none").read_bytes() == b""
    with pytest.raises(BadRequest):
        kept.write("u", "more", 0, b"12345", 4)
    for name in ("../x", "/etc/x", "a/../../x", ".mk8s/x", f"x{PARTIAL}", "out/below", "", "a\nb"):
        with pytest.raises(BadSource):
            kept.write("u", name, 0, b"x", None)
    monkeypatch.setattr(results, "MAX_BYTES", 10)
    assert kept.write("u", "out", 0, b"", 10) == 0  # in place of itself
    with pytest.raises(Full):
        kept.write("u", "second", 0, b"x", 8)
    monkeypatch.setattr(results, "MAX_FILES", 2)
    with pytest.raises(Full):
        kept.write("u", "third", 0, b"x", None)
