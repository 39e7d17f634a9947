"""`minik8s reset` leaves the host as it was before minik8s: compared thing by thing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent import Agent, run
from tests.e2e.space import Space, config_map, pod, service, web
from tests.images import docker_answers, make_images
from tests.kubectls import KUBECTLS

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.kubectl,
    pytest.mark.timeout(240, func_only=True),
]


# Links of lab hosts (tests/lab) and of Docker's containers, which come and go in test runs beside this one.
OTHERS = re.compile(r"\b(lab\d+|veth[0-9a-f]{7})\b")


def _lines(*command: str) -> Callable[[], list[str]]:
    def look() -> list[str]:
        text = run(list(command)).out
        text = re.sub(r"(valid_lft|preferred_lft) \S+", "", text)
        text = re.sub(r"\[\d+:\d+\]|counter packets \d+ bytes \d+|^#.*$", "", text, flags=re.MULTILINE)
        return sorted(line.rstrip() for line in text.splitlines() if line.strip() and not OTHERS.search(line))

    return look


def _mounts() -> list[str]:
    """Mount points, without what Docker mounts for containers of others."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return sorted(point for point in points if not point.startswith(("/var/lib/docker/", "/run/docker/")))


THINGS: dict[str, Callable[[], object]] = {
    "nftables": _lines("nft", "list", "ruleset"),
    "iptables": _lines("iptables-save"),
    "links": _lines("ip", "-br", "link"),
    "addresses": _lines("ip", "-br", "addr"),
    "routes": _lines("ip", "route", "show", "table", "all"),
    "rules": _lines("ip", "rule"),
    "namespaces": _lines("ip", "netns"),
    "mounts": _mounts,
    "containers": _lines("docker", "ps", "-a", "--format", "{{.Names}}"),
    "images": _lines("docker", "images", "-a", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"),
    "volumes": _lines("docker", "volume", "ls", "-q"),
    "networks": _lines("docker", "network", "ls", "--format", "{{.Name}}"),
    "resolv.conf": lambda: Path("/etc/resolv.conf").read_text(),
    "hosts": lambda: Path("/etc/hosts").read_text(),
    "sysctls": _lines("sysctl", "net.ipv4.ip_forward", "net.ipv4.conf.all", "net.ipv4.conf.default", "net.ipv4.conf.lo",
                      "net.netfilter.nf_conntrack_max"),
    "systemd unit": lambda: Path("/etc/systemd/system/minik8s.service").exists(),
    "cgroups": lambda: sorted(str(path) for path in Path("/sys/fs/cgroup").glob("*/*kubepods*")),
}  # fmt: skip


def snapshot() -> dict[str, object]:
    return {name: look() for name, look in THINGS.items()}


@pytest.fixture
def agent() -> object:
    if subprocess.run(["id", "-u"], capture_output=True, text=True).stdout.strip() != "0":
        pytest.skip("needs root")
    if not docker_answers():
        pytest.skip("no Docker Engine answers")
    if not KUBECTLS:
        pytest.skip("no kubectl: run scripts/kubectl")
    make_images()
    with Agent.lent() as lent:
        yield lent


def test_reset_leaves_the_host_as_it_was(agent: Agent) -> None:
    data = ("--data-dir", str(agent.data))
    before = snapshot()
    started = agent.minik8s(
        "start", *data, "--listen", f"0.0.0.0:{agent.port}", "--kubelet-port", str(agent.kubelet_port)
    )
    assert "answers at" in started.out
    again = agent.minik8s("start", *data)
    assert "runs already" in again.out
    assert agent.minik8s("status", *data).out.startswith("agent    pid ")
    space = Space.make(agent, "test_reset")
    space.apply(
        web("w", 2), service("w", {"port": 80, "targetPort": "http"}, type="NodePort"), config_map("c", a="1"),
        pod("p", volumes=[{"name": "v", "emptyDir": {"medium": "Memory"}}, {"name": "c", "configMap": {"name": "c"}}],
            more={"volumeMounts": [{"name": "v", "mountPath": "/v"},
                                   {"name": "c", "mountPath": "/one", "subPath": "a"}],
                  "ports": [{"containerPort": 80, "hostPort": 18080}]}),
        pod("done", "true", restartPolicy="Never"),
    )  # fmt: skip
    space.k("rollout", "status", "deploy/w", "--timeout=30s")
    space.wait("condition=Ready", "pod/p")
    during = snapshot()
    assert all(during[name] != before[name] for name in ("nftables", "links", "mounts", "containers", "routes"))
    stopped = agent.minik8s("stop", *data)
    assert "stopped the agent" in stopped.out
    assert agent.minik8s("status", *data, check=False).code == 1
    resumed = agent.minik8s("start", *data)  # the settings of the first start
    assert f":{agent.port}" in resumed.out
    assert space.get("deploy", "w")["status"]["readyReplicas"] == 2
    listed = agent.minik8s("reset", *data, "--dry-run").out
    assert "would remove container k8s_web_" in listed
    assert snapshot()["containers"] == during["containers"]
    done = agent.minik8s("reset", *data, "--yes")
    assert done.out.endswith("removed\n")
    assert "nothing to remove" in agent.minik8s("reset", *data, "--yes").out
    after = snapshot()
    for name in THINGS:
        assert after[name] == before[name], name
    assert not agent.data.exists()


def test_reset_works_after_a_kill_and_without_the_agent(agent: Agent) -> None:
    before = snapshot()
    agent.start()
    space = Space.make(agent, "test_killed")
    space.pod("p")
    agent.kill9()
    reset = agent.reset()
    assert reset is not None
    assert "removed" in reset.out
    after = snapshot()
    for name in THINGS:
        assert after[name] == before[name], name
