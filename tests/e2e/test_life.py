"""The agent stops, is killed and comes back: pods and services go on as if nothing had happened."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.agent import Agent, run, until
from tests.e2e.requests import Requests
from tests.e2e.space import Space, config_map, deployment, pod, service, web


def running(space: Space) -> dict[str, tuple[int, str]]:
    """Container name -> (pid, when it started) of this namespace's containers, by the engine's own word."""
    label = f"label=io.kubernetes.pod.namespace={space.name}"
    ids = run(["docker", "ps", "-q", "--no-trunc", "--filter", label]).out.split()
    told = run(["docker", "inspect", *ids], check=False).out  # one that has gone meanwhile is left out
    return {c["Name"]: (c["State"]["Pid"], c["State"]["StartedAt"]) for c in json.loads(told)}


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
def test_a_restart_is_not_noticed(space: Space, living: Agent, end: str) -> None:
    agent = living
    space.apply(web("w", 2), service("w", {"port": 80, "targetPort": "http"}), pod("p"), config_map("c", a="1"))
    space.k("rollout", "status", "deploy/w", "--timeout=30s")
    space.wait("condition=Ready", "pod/p")
    before, statuses = running(space), {p["metadata"]["name"]: p["status"] for p in space.get("pods")}
    ip = space.path("svc/w", ".spec.clusterIP")
    with Requests(ip) as loop:
        until(lambda: loop.count > 20)
        if end == "SIGTERM":
            assert agent.stop() == 0
        else:
            agent.kill9()
        gone = loop.count
        until(lambda: loop.count > gone + 20)
        agent.start()
        agent.kubectl("wait", "--for=condition=Ready", "node", "-l", "!kind", "--timeout=60s")
        back = loop.count
        until(lambda: loop.count > back + 20)
    assert not loop.failures, loop.failures
    after = running(space)
    assert len(before) == 6  # three pods: two servers and p, each with its sandbox
    assert after == before
    assert space.get("pod", "p")["status"]["podIP"] == statuses["p"]["podIP"]
    assert space.path("pod/p", ".status.containerStatuses[0].restartCount") == "0"
    assert space.get("configmap", "c")["data"] == {"a": "1"}
    space.k("rollout", "restart", "deploy/w")  # the agent that came back works
    space.k("rollout", "status", "deploy/w", "--timeout=40s", seconds=50)


def test_what_happened_meanwhile_is_caught_up_with(space: Space, living: Agent) -> None:
    agent = living
    space.apply(deployment("d", 2), pod("once", "sleep", "1", restartPolicy="Never"), pod("p"))
    space.k("rollout", "status", "deploy/d", "--timeout=30s")
    space.wait("condition=Ready", "pod/p")
    victim = space.path("pod/p", ".status.containerStatuses[0].containerID").removeprefix("docker://")
    agent.stop()
    run(["docker", "rm", "-f", victim])
    agent.start()
    space.wait("jsonpath={.status.phase}=Succeeded", "pod/once")
    space.until("pod p", lambda p: _restarted(p, victim))
    assert space.get("deploy", "d")["status"]["readyReplicas"] == 2
    assert len(space.get("pods", "-l", "app=d")) == 2


def _restarted(p: dict[str, Any], victim: str) -> bool:
    status = p["status"]["containerStatuses"][0]
    return bool(status["ready"]) and victim not in status["containerID"]


def test_a_second_agent_on_the_same_folder_is_refused(agent: Agent) -> None:
    second = agent.minik8s("run", "--data-dir", str(agent.data), "--listen", "127.0.0.1:0", check=False, seconds=20)
    assert second.code == 1
    assert f"pid {agent.pid}" in second.err


def test_quiet_when_idle_and_small(agent: Agent) -> None:
    assert agent.pid
    loud = [line for line in agent.logged() if line.get("level") in ("error", "critical")]
    assert not loud, loud
    status = Path(f"/proc/{agent.pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
    assert resident < 140, f"{resident:.0f} MB after a whole test run"
