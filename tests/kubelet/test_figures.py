"""Rates from samples, the pages made of them, and the sampler: how often it looks, and at what."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import Any

import msgspec
import pytest

from minik8s.aio import background
from minik8s.api.errors import ServiceUnavailable
from minik8s.api.kinds.pod import Pod
from minik8s.clock import ManualClock
from minik8s.kubelet import accelerators, figures_sampler
from minik8s.kubelet.figures import (
    ContainerFigures,
    NodeFigures,
    PodFigures,
    Rate,
    Sample,
    earlier,
    rates,
    running,
    summary,
)
from minik8s.kubelet.figures_node import boot_time, cpu_seconds, default_link, memory, processes, simulated
from minik8s.kubelet.figures_pages import cadvisor, resource
from minik8s.kubelet.figures_sampler import Pages, Sampler
from minik8s.metrics import page
from minik8s.runtime.base import LinkStats, NoSuchContainer, ProcessStats

STATS = ProcessStats(
    cpu_seconds=2.0, memory_bytes=3 << 20, memory_usage=4 << 20, memory_limit=8 << 20, rss=1 << 20, periods=10,
    throttled_periods=2, throttled_seconds=0.5, read_bytes=4096, processes=2, threads=3, pid=77,
)  # fmt: skip


def sample(tick: float, *containers: tuple[str, float, float], node: float = 0.0) -> Sample:
    """`containers`: id, CPU seconds, when it started; the wall clock is 1000 seconds ahead of the other."""
    found = tuple(
        ContainerFigures(id, id, "app:1", started, 0, 500, STATS._replace(cpu_seconds=seconds))
        for id, seconds, started in containers
    )
    pod = PodFigures("shop", "web", "uid-1", "Burstable", 1000.0, found, (LinkStats("eth0", 10, 1, 0, 0, 20, 2, 0, 0),))
    machine = NodeFigures(cpu_seconds=node, memory_total=1 << 30, memory_available=1 << 29, memory_free=1 << 28)
    return Sample(1000.0 + tick, tick, machine, (pod,))


def test_a_rate_spans_some_seconds_if_it_can() -> None:
    looks = [sample(tick) for tick in (0, 10, 18, 19, 20)]
    assert earlier(looks) is looks[1]  # 4 s before the last, at least
    assert earlier(looks[2:]) is looks[2]  # there is no such; the oldest
    assert earlier(looks[:1]) is None


def test_rates() -> None:
    old = sample(10, ("a", 1.0, 0.0), ("gone", 9.0, 0.0), node=100.0)
    new = sample(20, ("a", 6.0, 0.0), ("young", 4.0, 1012.0), ("old", 50.0, 500.0), ("new", 0.1, 1019.5), node=115.0)
    assert rates([old, new], young=60) == {"": Rate(1.5, 10), "a": Rate(0.5, 10), "young": Rate(0.5, 8)}
    assert rates([new], young=60) == {"young": Rate(0.5, 8)}
    assert "old" in rates([new], young=float("inf"))
    assert rates([], young=60) == {}
    # Somebody has set a counter back: no rate is better than a negative one.
    assert rates([sample(0, ("a", 5.0, 0.0)), sample(10, ("a", 1.0, 0.0))], young=0).keys() == {""}


def test_the_summary_is_kubernetes() -> None:
    found = summary("n1", sample(10, ("app", 2.0, 1000.0)), {"app": Rate(0.25, 8.0), "": Rate(1.0, 8.0)})
    assert found["node"]["nodeName"] == "n1"
    assert found["node"]["cpu"]["usageNanoCores"] == 10**9
    assert found["node"]["memory"]["workingSetBytes"] == 1 << 29
    (pod,) = found["pods"]
    assert pod["podRef"] == {"name": "web", "namespace": "shop", "uid": "uid-1"}
    (container,) = pod["containers"]
    cpu = {"time": "1970-01-01T00:16:50Z", "usageCoreNanoSeconds": 2 * 10**9}
    assert container["cpu"] == cpu | {"usageNanoCores": 250_000_000, "usageWindowSeconds": 8.0}
    assert container["memory"]["workingSetBytes"] == 3 << 20
    assert container["memory"]["availableBytes"] == 5 << 20
    assert pod["network"]["rxBytes"] == 10
    assert "usageNanoCores" not in summary("n1", sample(10, ("app", 2.0, 0.0)), {})["pods"][0]["cpu"]


def test_cadvisors_names_and_labels() -> None:
    lines = list(cadvisor(sample(10, ("app", 2.0, 1000.0), node=7.0), 4))
    own = (
        'container="app",id="/kubepods/burstable/poduid-1/app",image="app:1",name="k8s_app_web_shop_uid-1_0",'
        'namespace="shop",pod="web"'
    )
    for line in (
        f'container_cpu_usage_seconds_total{{cpu="total",{own}}} 2',
        f"container_memory_working_set_bytes{{{own}}} {3 << 20}",
        f"container_cpu_cfs_throttled_periods_total{{{own}}} 2",
        f'container_fs_reads_bytes_total{{device="",{own}}} 4096',
        f"container_spec_cpu_quota{{{own}}} 50000",
        'container_cpu_usage_seconds_total{cpu="total",container="",id="/",image="",name="",namespace="",pod=""} 7',
        "machine_cpu_cores 4",
    ):
        assert line in lines
    (received,) = [line for line in lines if line.startswith("container_network_receive_bytes_total{")]
    assert 'interface="eth0",container="POD",' in received
    assert received.endswith('pod="web"} 10')
    assert 'pod_cpu_usage_seconds_total{namespace="shop",pod="web"} 2' in resource(sample(10, ("app", 2.0, 0.0)))


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool")
def test_prometheus_reads_the_pages() -> None:
    made = sample(10, ("app", 2.0, 1000.0), node=7.0)
    for lines in (cadvisor(made, 4), resource(made)):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=page(lines).decode(), capture_output=True, text=True
        )
        # It lints cAdvisor's own names, too, which are what they are; what cannot be read ends otherwise.
        assert done.returncode in (0, 3), done.stderr
        assert {line.split()[0] for line in done.stderr.splitlines()} <= {
            "container_memory_failcnt",
            "container_fs_inodes_total",
        }


def test_the_machines_files() -> None:
    stat = "cpu  100 20 30 4000 500 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\nbtime 1700000000\n"
    assert cpu_seconds(stat) == 1.63
    assert boot_time(stat) == 1700000000
    assert processes("0.00 0.01 0.05 2/345 6789\n") == 345
    assert memory("MemTotal:  16 kB\nHugePages_Total:  0\n") == {"MemTotal": 16384, "HugePages_Total": 0}
    route = "Iface\tDestination\tGateway\neth1\t0000A8C0\t0\neth0\t00000000\t0100A8C0\n"
    assert default_link(route) == "eth0"
    assert default_link("Iface\n") == ""
    (pod,) = sample(1, ("a", 2.0, 0.0)).pods
    machine = simulated([pod], 1 << 30, 5.0)
    assert (machine.cpu_seconds, machine.working_set) == (2.0, 3 << 20)


def test_what_runs_is_known_from_the_status() -> None:
    ran: dict[str, Any] = {"name": "app", "image": "app:1", "containerID": "docker://abc", "restartCount": 2}
    ran["state"] = {"running": {"startedAt": "1970-01-01T00:01:40Z"}}
    waits = {"name": "side", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "containerID": "docker://def"}
    containers = [{"name": "app", "resources": {"limits": {"cpu": "1500m"}}}, {"name": "side"}]
    pod = msgspec.convert({"spec": {"containers": containers}, "status": {"containerStatuses": [ran, waits]}}, Pod)
    assert running(pod) == [("app", "abc", "app:1", 100.0, 2, 1500)]
    # What somebody else may have written there must not reach the engine, nor end the agent.
    for field, text in (("containerID", "docker://../images/x"), ("containerID", ""), ("containerID", "docker://")):
        bad = msgspec.convert({"status": {"containerStatuses": [{**ran, field: text}]}}, Pod)
        assert running(bad) == []
    odd = {**ran, "state": {"running": {"startedAt": "yesterday"}}}
    (wanted,) = running(msgspec.convert({"status": {"containerStatuses": [odd]}}, Pod))
    assert wanted.started == 0


async def test_a_machine_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = Engine()
    reads = iter([OSError("no /proc here"), OSError("still none"), NodeFigures(memory_total=1)])
    known = asyncio.Event()

    def read(pods: Any) -> NodeFigures:
        found = next(reads, NodeFigures())
        if isinstance(found, OSError):
            raise found
        known.set()
        return found

    monkeypatch.setattr(figures_sampler, "INTERVAL", 0.01)
    sampler = Sampler(Own(), engine, read)
    with pytest.raises(ServiceUnavailable, match="no /proc here"):
        await sampler.sample()
    async with asyncio.timeout(5), background(sampler.run()):  # goes on in spite of it
        await known.wait()


class Own(list[Pod]):
    """The pods of a node."""

    def list(self) -> Own:
        return self


class Engine:
    """Of containers `a` and `b`, the second of which has just gone; counts how often it is looked at."""

    looks = 0

    async def stats(self, container_id: str) -> ProcessStats | None:
        self.looks += 1
        if container_id == "b":
            raise NoSuchContainer("b")
        return STATS._replace(cpu_seconds=float(self.looks))

    def links(self, stats: ProcessStats) -> tuple[LinkStats, ...]:
        return (LinkStats("eth0"),)


def _pod(name: str, *, host: bool = False) -> Pod:
    state = {"running": {"startedAt": "2023-11-14T00:00:00Z"}}
    statuses = [{"name": id, "containerID": f"docker://{id}", "state": state} for id in "ab"]
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "hostNetwork": host},
            "status": {"containerStatuses": statuses},
        },
        Pod,
    )


async def test_the_sampler_looks_once_for_all_who_ask() -> None:
    engine: Any = Engine()
    clock, tick = ManualClock(), ManualClock(100.0)
    sampler = Sampler(
        Own([_pod("web")]), engine, lambda pods: NodeFigures(cpu_seconds=tick.now / 2), clock=clock, tick=tick
    )
    first, again = await asyncio.gather(sampler.sample(), sampler.sample())
    assert first is again
    assert engine.looks == 2
    assert [each.name for each in first.pods[0].containers] == ["a"]
    assert sampler.rates() == {}  # it has run for days: half of a rate would be a lie
    for _ in range(30):
        tick.advance(1.5)
        await sampler.sample()
    assert len(sampler._samples) < 8
    assert sampler.rates()[""] == Rate(0.5, 4.5)


async def test_the_hosts_network_is_not_a_pods() -> None:
    engine: Any = Engine()
    sampler = Sampler(Own([_pod("web", host=True), _pod("own")]), engine, lambda pods: NodeFigures())
    assert [pod.links for pod in (await sampler.sample()).pods] == [(), (LinkStats("eth0"),)]


async def test_pages() -> None:
    engine: Any = Engine()
    sampler = Sampler(Own([_pod("web")]), engine, lambda pods: NodeFigures(memory_total=5))
    pages = Pages("n1", sampler, 2).pages()
    assert pages.keys() == {"/stats/summary", "/metrics", "/metrics/cadvisor", "/metrics/resource"}
    made = {path: (await each())[1].decode() for path, each in pages.items()}
    assert msgspec.json.decode(made["/stats/summary"])["pods"][0]["podRef"]["name"] == "web"
    assert 'kubelet_node_name{node="n1"} 1' in made["/metrics"]
    assert "machine_memory_bytes 5" in made["/metrics/cadvisor"]


# As the program prints it on a machine with two devices, the second of which tells less.
PRINTED = """\
0, GPU-5f1c, NVIDIA H100 80GB HBM3, 37, 12, 40536, 40543, 45, 271.33
1, GPU-77aa, "Tesla, old", 0, [N/A], 0, 11441, 30, [Not Supported]
"""


def test_accelerators() -> None:
    devices = accelerators.parse(PRINTED)
    assert [device.values for device in devices] == [(37, 12, 40536, 40543, 45, 271.33), (0, None, 0, 11441, 30, None)]
    lines = list(accelerators.lines(devices, "n1"))
    who = 'gpu="0",UUID="GPU-5f1c",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="n1"'
    assert f"DCGM_FI_DEV_GPU_UTIL{{{who}}} 37" in lines
    assert sum(line.startswith("DCGM_FI_DEV_POWER_USAGE{") for line in lines) == 1
    assert accelerators.parse("No devices were found\n") == []
    assert list(accelerators.lines([], "n1")) == []


@pytest.mark.parametrize(
    ("script", "want"), [("echo 0, GPU-1, X, 1, 2, 3, 4, 5, 6", 1), ("exit 9", 0), ("sleep 60", 0)]
)
async def test_accelerators_are_asked(script: str, want: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / accelerators.PROGRAM
    program.write_text(f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert accelerators.present()
    assert len(await accelerators.ask(0.5)) == want
