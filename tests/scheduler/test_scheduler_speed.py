"""Deciding must stay cheap: pods per CPU second, with a floor far below what is usual so that a busy machine passes."""

from __future__ import annotations

import random
import time

import pytest
from scheduler_builders import cluster, node, pod

from minik8s.scheduler.ranking import Rankings
from minik8s.scheduler.strategies import DEFAULT


@pytest.mark.parametrize(("nodes", "controllers", "floor"), [(100, 1, 5000), (1000, 1, 5000), (1000, 10, 800)])
def test_pods_per_cpu_second(nodes: int, controllers: int, floor: int, record_property: pytest.FixtureRequest) -> None:
    cache = cluster(node(f"n{i:04}", cpu="64", memory="256Gi", pods=1000) for i in range(nodes))
    rankings = Rankings(cache.snapshot, random.Random(1))
    pods = [pod(f"p{i}", cpu="100m", owner=f"o{i % controllers}") for i in range(2000)]
    start = time.process_time()
    for each in pods:
        info = cache.info(each)
        cache.assume(info, rankings.schedule(info, DEFAULT).node)
    rate = len(pods) / (time.process_time() - start)
    record_property("pods_per_cpu_second", round(rate))  # type: ignore[operator]
    print(f"{nodes} nodes, {controllers} controllers: {rate:.0f} pods per CPU second")
    assert rate > floor


def test_pods_behind_a_service_are_no_dearer_than_those_of_a_controller() -> None:
    cache = cluster(node(f"n{i:04}", cpu="64", memory="256Gi", pods=1000) for i in range(1000))
    cache.snapshot.services["default"] = {f"s{i}": {"app": f"a{i}"} for i in range(10)}
    rankings = Rankings(cache.snapshot, random.Random(1))
    pods = [pod(f"p{i}", cpu="100m", labels={"app": f"a{i % 2}"}) for i in range(2000)]
    start = time.process_time()
    for each in pods:
        info = cache.info(each)
        cache.assume(info, rankings.schedule(info, DEFAULT).node)
    rate = len(pods) / (time.process_time() - start)
    print(f"{rate:.0f} pods per CPU second")
    assert rate > 800  # 100 when every pod looked at every node
