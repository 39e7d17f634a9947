"""Where pods go and why not: on the real node, and beside it on simulated ones that joined with a token."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent import Agent, free_port, until
from tests.e2e.space import Space, pod


@pytest.fixture(scope="module")
def simulated(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Names of three nodes whose containers only pretend, tainted `simulated` so that other tests do not meet them."""
    folder = tmp_path_factory.mktemp("worker")
    token = agent.minik8s("token", "create", "--data-dir", str(agent.data)).out.strip()
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "minik8s", "run", "--role", "worker", "--runtime", "fake", "--replicas", "3",
             "--join", f"127.0.0.1:{agent.port}", "--token", token, "--node-name", "sim",
             "--data-dir", str(folder / "data"),
             "--kubelet-port", str(free_port(10))], stdout=log, stderr=log,
        )  # fmt: skip
    names = ["sim-0", "sim-1", "sim-2"]
    nodes = [f"node/{name}" for name in names]
    try:
        until(
            lambda: agent.kubectl("get", *nodes, check=False).code == 0, what=lambda: Path(log.name).read_text()[-2000:]
        )
        agent.kubectl("taint", *_words(nodes), "simulated=true:NoSchedule")
        agent.kubectl("label", *nodes, "kind=simulated")
        agent.kubectl("wait", "--for=condition=Ready", *nodes, "--timeout=60s")
        yield names
    finally:
        worker.terminate()
        worker.wait(20)
        agent.kubectl("delete", *nodes, check=False)


def _words(nodes: list[str]) -> list[str]:
    """`kubectl taint` wants the kind as a word of its own."""
    return ["nodes", *(node.partition("/")[2] for node in nodes)]


def placed(name: str, **spec: object) -> dict[str, Any]:
    """A pod for the simulated nodes."""
    tolerations = [{"key": "simulated", "operator": "Exists"}]
    return pod(name, nodeSelector={"kind": "simulated"}, tolerations=tolerations, labels={"app": "p"}, **spec)


def spread(space: Space, count: int) -> Counter[str]:
    space.apply(*(placed(f"p{number}") for number in range(count)))
    items = space.until("pods -l app=p", lambda p: all(i["spec"].get("nodeName") for i in p["items"]))["items"]
    return Counter(item["spec"]["nodeName"] for item in items)


def test_reasons_are_told_and_the_pod_goes_when_they_are_gone(space: Space) -> None:
    space.apply(
        pod("picky", nodeSelector={"disk": "ssd"}),
        pod("huge", more={"resources": {"requests": {"cpu": "1000"}}}),
        pod("tied", affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "partner"}}}]}}),
    )  # fmt: skip
    told = {"picky": "didn't match Pod's node affinity/selector", "huge": "Insufficient cpu",
            "tied": "didn't match pod affinity rules"}  # fmt: skip
    for name, reason in told.items():
        until(lambda name=name: space.events("FailedScheduling", name=name))
        assert reason in space.out("describe", "pod", name)
        assert space.out("get", "pod", name, "--no-headers").split()[2] == "Pending"
    node = space.out("get", "nodes", "-l", "!kind", "-o", "jsonpath={.items[0].metadata.name}")
    space.k("label", "node", node, "disk=ssd")
    try:
        space.wait("condition=Ready", "pod/picky")
        space.pod("partner")
        space.wait("condition=Ready", "pod/tied")
    finally:
        space.k("label", "node", node, "disk-")


def test_nodes_that_join_are_seen_and_used(space: Space, simulated: list[str]) -> None:
    rows = {line.split()[0]: line.split()[1] for line in space.out("get", "nodes", "--no-headers").splitlines()}
    assert {rows[name] for name in simulated} == {"Ready"}
    assert spread(space, 6) == dict.fromkeys(simulated, 2)  # least-allocated
    space.wait("condition=Ready", "pod", "-l", "app=p")
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"apart": "yes"}}}
    for number in range(4):
        alone = placed(
            f"a{number}", affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
        )
        alone["metadata"]["labels"] = {"apart": "yes"}
        space.apply(alone)
    found = space.until("pods -l apart", lambda p: sum("nodeName" in i["spec"] for i in p["items"]) == 3)["items"]
    assert {i["spec"]["nodeName"] for i in found if "nodeName" in i["spec"]} == set(simulated)
    left = next(i["metadata"]["name"] for i in found if "nodeName" not in i["spec"])
    until(lambda: space.events("FailedScheduling", name=left))
    assert "didn't match pod anti-affinity rules" in space.events("FailedScheduling", name=left)[0]["message"]


@pytest.mark.parametrize(
    ("strategy", "wanted"), [("round-robin", [2, 2, 2]), ("max-pods", [6]), ("min-pods", [2, 2, 2])]
)
def test_the_strategy_is_switched_while_running(
    space: Space, simulated: list[str], strategy: str, wanted: list[int]
) -> None:
    space.agent.minik8s("cfg", f"sched={strategy}")
    try:
        assert strategy in space.agent.minik8s("cfg", "sched").out
        assert sorted(spread(space, 6).values()) == wanted
    finally:
        space.agent.minik8s("cfg", "sched-")


def test_a_node_that_falls_silent_loses_its_pods(space: Space, simulated: list[str]) -> None:
    """A Node made by hand has no agent: NotReady at first, then Unknown and tainted; pods there are evicted."""
    manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "by-hand", "labels": {"kind": "by-hand"}}}
    space.apply(manifest)
    try:
        space.until(
            "node by-hand",
            lambda n: any(t["key"].startswith("node.kubernetes.io/") for t in n["spec"].get("taints", ())),
            seconds=40,
        )
        assert "NotReady" in space.out("get", "node", "by-hand") or "Unknown" in space.out("get", "node", "by-hand")
    finally:
        space.k("delete", "node", "by-hand")
