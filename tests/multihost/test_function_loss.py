"""Functions under constant load while a node dies or is cut off: only what was under way there may fail."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.agent import until
from tests.e2e.space import Space
from tests.multihost.cluster import Cluster

LOAD = Path(__file__).parent.parent / "lab" / "load.py"
RATE, PATIENCE = 100, 70  # calls a second; seconds until a call without an answer has failed
CODE = """
import asyncio, os

async def main(params):
    await asyncio.sleep(0.05)
    return os.environ["POD_NAME"]
"""
CONCURRENCY, PODS = 20, 4  # a quarter of it would do, if nothing else went on here
LATER = 60  # asynchronous calls
WORKERS = ("h2", "h3")
LABEL = "work"


class Load:
    """What calls from outside have seen, once the body has ended."""

    failures: list[list[Any]]  # when, seconds, why
    answers: dict[str, list[float]]  # pod -> first, last, count
    count: int


@contextmanager
def load(cluster: Cluster, path: str) -> Iterator[Load]:
    """By the gateway of h1, each call on a connection of its own; a slow one does not keep the next one back."""
    command = [sys.executable, str(LOAD), cluster.master.address, "8081", str(RATE), path, str(PATIENCE)]
    seen = Load()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "under way\n"
            yield seen
        finally:
            out, _ = process.communicate("", timeout=PATIENCE + 20)
            vars(seen).update(json.loads(out))
    print(f"{seen.count} calls, {len(seen.failures)} failed: {seen.failures}\n{seen.answers}")


@pytest.fixture
def workers(cluster: Cluster) -> Iterator[None]:
    """The nodes that functions of these tests may run on."""
    cluster.kubectl("label", "node", *WORKERS, f"{LABEL}=yes")
    try:
        yield
    finally:
        cluster.kubectl("label", "node", *WORKERS, f"{LABEL}-")


def function(space: Space, **scale: int) -> None:
    space.apply({"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": {"name": "f"},
                 "spec": {"code": {"inline": CODE}, "concurrency": CONCURRENCY, "nodeSelector": {LABEL: "yes"},
                          "async": {"maxAttempts": 10},
                          "scale": {"minReplicas": PODS, "maxReplicas": 3 * PODS, **scale}}})  # fmt: skip


def pods(space: Space) -> dict[str, str]:
    """The node of each pod that runs and is to stay."""
    found = space.get("pods", "-l", "faas.minik8s.io/function=f")
    return {
        pod["metadata"]["name"]: pod["spec"]["nodeName"]
        for pod in found
        if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") == "Running"
    }


def on_both(space: Space) -> bool:
    return len(pods(space)) >= PODS and set(pods(space).values()) == set(WORKERS)


def later(cluster: Cluster, path: str, count: int) -> list[str]:
    """Calls by the queue, ten a second; their ids, which are given when they are on disk."""
    ids = []
    for _ in range(count):
        connection = HTTPConnection(cluster.master.address, 8081, timeout=PATIENCE)
        connection.request("POST", path, b"{}", {"Content-Type": "application/json", "Prefer": "respond-async"})
        response = connection.getresponse()
        assert response.status == 202, response.read()
        ids.append(json.loads(response.read())["id"])
        connection.close()
        time.sleep(0.1)
    return ids


LOSSES: dict[str, Callable[[Cluster], None]] = {
    "power": lambda c: c.power_cut("h2"),
    "partition": lambda c: c.lab.isolate(c.hosts["h2"]),
    "cable": lambda c: c.lab.cut(c.hosts["h2"]),
}


@pytest.mark.long
@pytest.mark.timeout(300, func_only=True)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_node_is_lost_under_load(cluster: Cluster, space: Space, workers: None, loss: str) -> None:
    function(space)
    space.wait("condition=Ready", "function.faas.minik8s.io/f", seconds=60)
    until(lambda: on_both(space), seconds=60)
    path = f"/function/{space.name}/f"
    there = [name for name, node in pods(space).items() if node == "h2"]
    with load(cluster, path) as seen:
        ids = later(cluster, path, 5)  # some before, most while it is being lost
        LOSSES[loss](cluster)
        ids += later(cluster, path, LATER)
        until(lambda: list(pods(space).values()).count("h3") >= PODS, seconds=60)  # the scale comes back
        lost_for = time.time()
    assert len(seen.failures) <= CONCURRENCY * len(there), seen.failures
    # The connection is found to be dead; or the call had arrived, and may still be answered: until its time is over.
    assert all("WorkerLost" in why or "Error: Timeout" in why for _, _, why in seen.failures), seen.failures
    assert all(began < lost_for for began, _, _ in seen.failures)
    assert set(there) <= set(seen.answers), "they were called before"

    if loss == "power":
        cluster.power_on("h2")
    cluster.lab.heal()
    cluster.wait_ready(seconds=60)
    function(space, minReplicas=2 * PODS)
    until(lambda: "h2" in pods(space).values(), seconds=60)
    new = {name for name, node in pods(space).items() if node == "h2"} - set(there)
    with load(cluster, path) as after:
        time.sleep(3)
    assert after.failures == []
    assert new & set(after.answers), "the node that has come back is used again"

    for id in ids:  # nothing was lost of what was accepted, and nothing given up
        call = f"/apis/faas.minik8s.io/v1/namespaces/{space.name}/functions/f/calls/{id}"
        until(lambda call=call: space.k("get", "--raw", call).json["status"]["phase"] == "Succeeded", seconds=60)  # type: ignore[misc]
