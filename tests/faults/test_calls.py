"""Asynchronous calls and workflows of functions go on when the agent is killed, and when the functions' pods are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from minik8s.cli.connection import Choice, Cluster
from tests.agent import Agent, until
from tests.lab.host import INSIDE, LabHost
from tests.patience import patience

pytestmark = [pytest.mark.faults, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]
API = "/apis/faas.minik8s.io/v1/namespaces/default"
SLOW = """
import time

def main(params):
    time.sleep(params["seconds"])
    return params["n"] ** 2
"""
CALLS = 16


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    if lacking := LabHost.lacking():
        pytest.skip(lacking)
    with LabHost(tmp_path_factory.mktemp("lab")) as lab:
        lab.start_engine()
        agent = lab.agent()
        agent.address = INSIDE
        try:
            agent.start()
            function = {"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": {"name": "slow"},
                        "spec": {"code": {"inline": SLOW}, "concurrency": 4,
                                 "scale": {"maxReplicas": 2}}}  # fmt: skip
            agent.kubectl("apply", "-f", "-", stdin=json.dumps(function))
            agent.kubectl(
                "wait", "--for=condition=Ready", "functions.faas.minik8s.io/slow", "--timeout=60s", seconds=70
            )
            yield agent
        finally:
            if agent.pid is not None:
                agent.kill9()


def ask(agent: Agent, path: str, body: Any = None) -> Any:
    """What the server answers; kubectl would cost half a second each time."""
    cluster = Cluster(Choice(kubeconfig=str(agent.kubeconfig)), timeout=10)
    return json.loads(cluster.wire.call("GET" if body is None else "POST", f"{API}/{path}", body=body))


def begin(agent: Agent, seconds: float) -> dict[int, str]:
    return {n: ask(agent, "functions/slow/calls", {"n": n, "seconds": seconds})["id"] for n in range(CALLS)}


def done(agent: Agent, ids: dict[int, str]) -> dict[int, Any]:
    """Results, once all are there; of those that have ended."""
    found = {n: ask(agent, f"functions/slow/calls/{id}")["status"] for n, id in ids.items()}
    return {n: status["body"] for n, status in found.items() if status["phase"] == "Succeeded"}


def test_calls_and_runs_outlive_the_agent(agent: Agent) -> None:
    each = {"StartAt": "S", "States": {"S": {"Type": "Task", "Resource": "slow", "End": True}}}
    states = {"M": {"Type": "Map", "MaxConcurrency": 4, "ItemProcessor": each, "End": True}}
    workflow = {"apiVersion": "faas.minik8s.io/v1", "kind": "Workflow", "metadata": {"name": "w"},
                "spec": {"definition": {"StartAt": "M", "States": states}}}  # fmt: skip
    ask(agent, "workflows", workflow)
    items = [{"n": n, "seconds": 1.0} for n in range(6)]
    ask(agent, "workflowruns", {"metadata": {"name": "r"}, "spec": {"workflowRef": {"name": "w"}, "input": items}})
    ids = begin(agent, seconds=1.0)
    until(lambda: done(agent, ids))
    agent.kill9()
    agent.start()
    until(lambda: len(done(agent, ids)) == CALLS, seconds=patience(60))
    assert done(agent, ids) == {n: n * n for n in range(CALLS)}
    run = until(lambda: (found := ask(agent, "workflowruns/r"))["status"]["phase"] != "Running" and found, seconds=60)
    assert (run["status"]["phase"], run["status"]["output"]) == ("Succeeded", [n * n for n in range(6)])


def test_calls_outlive_the_pods_that_run_them(agent: Agent) -> None:
    ids = begin(agent, seconds=1.5)
    agent.kubectl("delete", "pod", "-l", "faas.minik8s.io/function=slow", "--grace-period=0", "--force")
    until(lambda: len(done(agent, ids)) == CALLS, seconds=patience(60))
    assert done(agent, ids) == {n: n * n for n in range(CALLS)}
    attempts = [ask(agent, f"functions/slow/calls/{id}")["status"]["attempts"] for id in ids.values()]
    assert max(attempts) == 2
