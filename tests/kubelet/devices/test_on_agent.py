"""A whole agent, Docker, kubectl and a plugin of its own process: what containers see, and what changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.agent import Agent, until
from tests.images import BUSYBOX, make_images

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.kubectl]

FOO, FAKE = "vendor.example/foo", "fake.example/bar"
PLUGIN = Path(__file__).parents[3] / "configs" / "examples" / "deviceplugin" / "plugin.py"


@contextmanager
def plugin(folder: Path, listed: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(PLUGIN), "--folder", str(folder), "--list", str(listed)]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


def pod(name: str, number: int, resource: str = FOO, command: str = "sleep 3600") -> str:
    container = {
        "name": "c", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", command],
        "resources": {"limits": {resource: number}},
    }  # fmt: skip
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0, "restartPolicy": "Never"}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def amounts(agent: Agent, capacity: int, allocatable: int, resource: str = FOO) -> None:
    """Wait until the node has as many."""
    escaped = resource.replace(".", "\\.")
    for part, number in (("capacity", capacity), ("allocatable", allocatable)):
        condition = f"--for=jsonpath={{.status.{part}.{escaped}}}={number}"
        agent.kubectl("wait", "node", "--all", condition, "--timeout=60s")


def get(agent: Agent, name: str) -> Any:
    return agent.kubectl("get", "pod", name, "-o", "json").json


def phase(agent: Agent, name: str, wanted: str) -> None:
    agent.kubectl("wait", f"pod/{name}", f"--for=jsonpath={{.status.phase}}={wanted}", "--timeout=60s")


def waits_for(agent: Agent, name: str) -> str:
    statuses = get(agent, name)["status"].get("containerStatuses") or [{}]
    return str((statuses[0].get("state", {}).get("waiting") or {}).get("reason", ""))


def pid_of(agent: Agent, name: str) -> str:
    container = get(agent, name)["status"]["containerStatuses"][0]["containerID"].removeprefix("docker://")
    return subprocess.check_output(["docker", "inspect", "-f", "{{.State.Pid}}", container], text=True).strip()


def test_life_of_devices(tmp_path: Path) -> None:
    make_images("busybox")
    folder, listed = tmp_path / "device-plugins", tmp_path / "list"
    listed.write_text("a b c")
    with Agent.lent("--device-plugins", str(folder), "--fake-device", f"{FAKE}=2") as agent:
        agent.start()
        agent.kubectl("wait", "--for=condition=Ready", "node", "--all")
        amounts(agent, 2, 2, FAKE)
        with plugin(folder, listed) as process:
            amounts(agent, 3, 3)
            _schedule_two_of_three(agent)
            listed.write_text("a b")  # one is lost, and comes back
            amounts(agent, 2, 2)
            listed.write_text("a b c!")
            amounts(agent, 3, 2)
            listed.write_text("a b c")
            amounts(agent, 3, 3)
            _describe(agent)
            process.send_signal(signal.SIGKILL)
            amounts(agent, 3, 0)
        assert get(agent, "two")["status"]["phase"] == "Running"
        _kill_agent(agent, folder, listed)
        agent.kill9()
    assert not folder.exists(), "reset takes dead sockets away, ours and theirs"


def _schedule_two_of_three(agent: Agent) -> None:
    """One pod takes two; the next wants two more and has to wait until the first ends."""
    agent.kubectl("apply", "-f", "-", stdin=pod("two", 2))
    phase(agent, "two", "Running")
    said = agent.kubectl("exec", "two", "--", "sh", "-c", "echo $FOO_IDS; ls -l /dev/foo; cat /run/foo/hello").out
    ids, node, hello = said.splitlines()
    assert len(ids.split(",")) == 2
    assert node.startswith("c")
    assert hello == "hello"
    agent.kubectl("apply", "-f", "-", stdin=pod("more", 2))
    text = until(lambda: [c["message"] for c in get(agent, "more")["status"].get("conditions", ()) if c.get("message")])
    assert text == [f"0/1 nodes are available: 1 Insufficient {FOO}. " + text[0].partition(". ")[2]]
    agent.kubectl("delete", "pod", "more", "--now")
    agent.kubectl("apply", "-f", "-", stdin=pod("short", 1, command="true"))  # what has ended holds nothing
    phase(agent, "short", "Succeeded")
    agent.kubectl("apply", "-f", "-", stdin=pod("one", 1))
    phase(agent, "one", "Running")
    agent.kubectl("delete", "pod", "one", "short", "--now")


def _describe(agent: Agent) -> None:
    said = agent.minik8s("describe", "node").out
    assert "default/two c" in said
    assert FOO in said


def _kill_agent(agent: Agent, folder: Path, listed: Path) -> None:
    """The plugin is away, the agent dies: nobody who runs notices, and who comes waits for the plugin."""
    pid, ids = pid_of(agent, "two"), agent.kubectl("exec", "two", "--", "sh", "-c", "echo $FOO_IDS").out.strip()
    node = agent.kubectl("get", "nodes", "-o", "name").out.strip().removeprefix("node/")
    agent.kill9()
    agent.start()
    amounts(agent, 0, 0)
    waiting = json.loads(pod("late", 1))
    waiting["spec"]["nodeName"] = node
    agent.kubectl("apply", "-f", "-", stdin=json.dumps(waiting))
    until(lambda: waits_for(agent, "late") == "WaitingForDevicePlugin")
    begun = time.monotonic()
    with plugin(folder, listed):
        phase(agent, "late", "Running")
        assert time.monotonic() - begun < 15
        late = agent.kubectl("exec", "late", "--", "sh", "-c", "echo $FOO_IDS").out.strip()
        assert late not in ids.split(",")
        assert pid_of(agent, "two") == pid
        os.kill(int(pid), 0)
        beyond = json.loads(pod("beyond", 2))
        beyond["spec"]["nodeName"] = node
        agent.kubectl("apply", "-f", "-", stdin=json.dumps(beyond))
        phase(agent, "beyond", "Failed")
        failed = get(agent, "beyond")["status"]
        assert failed["reason"] == "UnexpectedAdmissionError"
        assert "Requested: 2, Available: 0" in failed["message"]
