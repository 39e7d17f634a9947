"""Autoscalers on real containers: load that is set over HTTP makes pods more, its end fewer, at the set pace."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

from tests.agent import Agent, until
from tests.e2e.space import Space, container, deployment
from tests.images import PYTHON
from tests.kubectls import BOTH, minor

INTERVAL = 2  # seconds in which at most one pod may come or go

# /cpu/90 keeps 90 % of a core busy; /memory/80 holds 80 MiB; 0 lets go.
LOAD = """
import threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
wanted = {"cpu": 0, "memory": 0}
held = []
def burn():
    while True:
        end = time.perf_counter() + wanted["cpu"] / 2000
        while time.perf_counter() < end: pass
        time.sleep((100 - wanted["cpu"]) / 2000 + 0.001)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        _, what, amount = self.path.split("/")
        wanted[what] = int(amount)
        held[:] = [bytearray(b"x") * (wanted["memory"] << 20)]
        self.send_response(200); self.end_headers(); self.wfile.write(b"done")
    def log_message(self, *args): pass
threading.Thread(target=burn, daemon=True).start()
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


def loaded(name: str) -> dict[str, Any]:
    """A Deployment of one pod that does what it is asked."""
    requests = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    probe = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}
    one = container(name, "python3", "-c", LOAD, image=PYTHON, resources=requests, readinessProbe=probe)
    return deployment(name, 1, one)


def ask(space: Space, name: str, what: str) -> None:
    """Of the oldest pod."""
    pods = space.get("pods", "-l", f"app={name}", "--sort-by=.metadata.creationTimestamp")
    with urlopen(f"http://{pods[0]['status']['podIP']}:8000/{what}", timeout=10) as answer:
        assert answer.read() == b"done"


class Change(NamedTuple):
    """It happened between the look that did not show it and the one that did."""

    replicas: int
    earliest: float
    latest: float


class Course:
    """How the numbers of replicas change, as seen from outside."""

    def __init__(self, space: Space, *names: str) -> None:
        self._space = space
        self._looked = time.monotonic()
        self.seen: dict[str, list[Change]] = {name: [] for name in names}

    def look(self) -> dict[str, int]:
        began = time.monotonic()
        found = {each["metadata"]["name"]: each["spec"]["replicas"] for each in self._space.get("deployments")}
        for name, course in self.seen.items():
            if not course or course[-1].replicas != found[name]:
                course.append(Change(found[name], self._looked, time.monotonic()))
        self._looked = began
        return {name: found[name] for name in self.seen}

    def until(self, replicas: int) -> None:
        until(
            lambda: set(self.look().values()) == {replicas}, seconds=45, pause=0.05,
            what=lambda: f"not {replicas} replicas: {self.seen}\n{self._space.out('describe', 'hpa')}",
        )  # fmt: skip


def test_up_and_down_by_cpu_and_memory(agent: Agent, space: Space) -> None:
    space.apply(loaded("burner"), loaded("eater"))
    space.wait("condition=Available", "deployment/burner", "deployment/eater")
    classic = {
        "apiVersion": "v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "burner", "namespace": space.name},
        "spec": {
            "minReplicas": 1,
            "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "burner"},
            "scaleInterval": INTERVAL,
            "metrics": {"CPUUtilizationPercentage": 50},
        },
    }
    agent.minik8s("apply", "-f", "-", stdin=json.dumps(classic))
    words = ("--target=deploy/eater", "--min", "1", "--max", "3", "-m", "60", "-i", str(INTERVAL))
    agent.minik8s("-n", space.name, "autoscale", "eater", *words)

    course = Course(space, "burner", "eater")
    ask(space, "burner", "cpu/90")
    ask(space, "eater", "memory/100")
    course.until(3)
    for name in ("burner", "eater"):
        for told in (space.out("describe", "hpa", name), agent.minik8s("-n", space.name, "describe", "hpa", name).out):
            assert "New size: 3 (was 2); reason:" in told
            assert "above target" in told
            assert "ScalingActive" in told
            assert "ValidMetricFound" in told
            assert "(as a percentage of request):" in told
    space.wait("condition=Available", "deployment/burner", "deployment/eater")

    ask(space, "burner", "cpu/0")
    ask(space, "eater", "memory/0")
    course.until(1)
    for name, changes in course.seen.items():
        assert [change.replicas for change in changes] == [1, 2, 3, 2, 1], name
        assert all(later.latest - one.earliest >= INTERVAL for one, later in pairwise(changes[1:])), changes
    assert "all metrics below target" in space.out("describe", "hpa", "burner")


@pytest.mark.parametrize("binary", BOTH, ids=lambda binary: binary.name)
def test_kubectl_autoscale_and_top(agent: Agent, space: Space, binary: Any) -> None:
    k = Space(agent, space.name, binary)
    k.apply(deployment("web", 1, container("web", "sleep", "600")))
    k.wait("condition=Available", "deployment/web")
    aim = "--cpu=50%" if minor(binary) >= 34 else "--cpu-percent=50"
    k.out("autoscale", "deployment", "web", "--min=1", "--max=3", aim)
    k.out("annotate", "hpa", "web", "autoscaling.minik8s.io/sync-period=1s")
    assert k.path("hpa/web", ".spec.metrics[0].resource.target.averageUtilization") == "50"
    # It requests nothing of which a percentage could be taken: that is said, and how to mend it.
    k.until("hpa web", lambda hpa: "set resources.requests.cpu" in json.dumps(hpa.get("status") or {}))
    assert "FailedGetResourceMetric" in k.out("describe", "hpa", "web")
    missing = k.k("autoscale", "deployment", "nowhere", "--max=3", check=False)
    assert (missing.code, 'deployments.apps "nowhere" not found' in missing.err) == (1, True)
    missing = agent.minik8s("-n", k.name, "autoscale", "deployment", "nowhere", "--max=3", check=False)
    assert (missing.code, 'deployments.apps "nowhere" not found' in missing.err) == (1, True)

    def shown() -> str:
        return k.k("top", "pod", "--containers", "--no-headers", check=False).out

    (line,) = until(shown).splitlines()
    pod, name, cpu, memory = line.split()
    assert (pod.startswith("web-"), name, cpu[-1], memory[-2:]) == (True, "web", "m", "Mi")
    assert k.out("top", "pod", "-l", "app=other", "--no-headers") == ""
    (node,) = k.out("top", "node", "--no-headers", "--sort-by=memory").splitlines()
    assert node.split()[2].endswith("%")
