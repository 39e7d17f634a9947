"""What measuring a node's containers costs: this process's own group stands for those of a hundred containers."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from minik8s.api.kinds.pod import Pod
from minik8s.kubelet.figures_node import read_node
from minik8s.kubelet.figures_sampler import INTERVAL, Pages, Sampler
from minik8s.runtime.base import LinkStats, ProcessStats
from minik8s.runtime.cgroup import cgroup_files, cgroup_of, read_links, read_stats
from tests.bench.agent import BenchError
from tests.bench.report import Result

NAMES = ("figures",)
CONTAINERS = 100


class OneGroup:
    """A runtime whose containers are all in this process's group."""

    def __init__(self) -> None:
        files = cgroup_files(cgroup_of(os.getpid()))
        if files is None:
            raise BenchError("this process's control group has no figures: run it in one that is no root group")
        self._files = files

    async def stats(self, container_id: str) -> ProcessStats:
        return read_stats(self._files)

    def links(self, stats: ProcessStats) -> tuple[LinkStats, ...]:
        return read_links(stats.pid)


class Own(list[Pod]):
    def list(self) -> Own:
        return self


def running(number: int) -> Pod:
    state = {"running": {"startedAt": "2024-01-01T00:00:00Z"}}
    status = {"containerStatuses": [{"name": "c", "containerID": f"docker://{number}", "state": state}]}
    meta = {"name": f"web-{number}", "namespace": "default", "uid": str(number)}
    return msgspec.convert({"metadata": meta, "spec": {"containers": [{"name": "c"}]}, "status": status}, Pod)


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    pods = Own(running(number) for number in range(CONTAINERS))
    sampler = Sampler(pods, cast(Any, OneGroup()), lambda _: read_node(Path("/")))
    looks = 5 if quick else 50
    await sampler.sample()
    began = time.process_time()
    for _ in range(looks):
        await sampler.sample(at_most=-1.0)
    share = (time.process_time() - began) / looks / INTERVAL * 100
    yield Result(f"{CONTAINERS} containers measured every {INTERVAL:g} s", share, "% of a core", 1.0)
    page = Pages("node", sampler, 1).pages()["/metrics/cadvisor"]
    began = time.process_time()
    for _ in range(looks):
        await page()
    cost = (time.process_time() - began) / looks * 1000
    yield Result(f"/metrics/cadvisor of {CONTAINERS} containers", cost, "ms CPU", 30.0)
