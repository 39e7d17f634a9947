"""Every file of configs/examples is applied and reaches what it promises. A file without a test here fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent import run, until
from tests.e2e.space import HTTP, Space

EXAMPLES = Path(__file__).parent.parent.parent / "configs" / "examples"


def _web(space: Space) -> None:
    space.k("rollout", "status", "deploy/web", "--timeout=30s")
    address = space.path("svc/web", ".spec.clusterIP")
    until(lambda: "It works" in run(["curl", "-sS", "--max-time", "3", f"http://{address}/"], check=False).out)


def _nodeport(space: Space) -> None:
    space.k("apply", "-f", str(EXAMPLES / "web.yaml"))
    space.k("rollout", "status", "deploy/web", "--timeout=30s")
    until(lambda: "It works" in run(["curl", "-sS", "--max-time", "3", "http://127.0.0.1:30080/"], check=False).out)


def _pod(space: Space) -> None:
    space.wait("condition=Ready", "pod/pair")
    first = space.exec("pair", "wget", "-qO-", "http://localhost:8000/", container="writer")
    until(lambda: space.exec("pair", "wget", "-qO-", "http://localhost:8000/", container="writer") != first)


def _config(space: Space) -> None:
    space.wait("jsonpath={.status.phase}=Succeeded", "pod/configured")
    said = space.out("logs", "configured")
    assert said.startswith("blue on ")
    assert "verbose = true" in said


def _job(space: Space) -> None:
    space.wait("condition=Complete", "job/squares", seconds=30)
    pods = space.get("pods", "-l", "job-name=squares")
    assert sorted(space.out("logs", p["metadata"]["name"]) for p in pods) == ["0", "1", "16", "4", "9"]


def _daemonset(space: Space) -> None:
    space.k("rollout", "status", "ds/agent", "--timeout=30s")
    assert "load average" in space.out("logs", "ds/agent")


def _rbac(space: Space) -> None:
    account = f"--as=system:serviceaccount:{space.name}:reader"
    assert space.out("auth", "can-i", "list", "pods", account) == "yes"
    assert space.out("auth", "can-i", "delete", "pods", account, check=False) == "no"


def _routed(host: str, path: str) -> str:
    """What the cluster's nginx answers."""
    url = f"http://127.0.0.1:{HTTP}{path}"
    return run(["curl", "-sS", "--max-time", "3", "-H", f"Host: {host}", url], check=False).out


def _ingress(space: Space) -> None:
    space.wait("condition=Ready", "pod/shop", "pod/hello")
    until(lambda: _routed("shop.example", "/") == "welcome to the shop\n")
    assert _routed("shop.example", "/hello") == "hello\n"
    assert "404" in _routed("shop.example", "/hello/there")


def _dns(space: Space) -> None:
    space.wait("condition=Ready", "pod/nginx", "pod/not-nginx")
    until(lambda: "It works" in _routed("test.nginx", "/nginx/"))
    assert _routed("test.nginx", "/not-nginx/index.html") == "not nginx\n"


GOALS: dict[str, Callable[[Space], None]] = {
    "web": _web, "nodeport": _nodeport, "pod": _pod, "config": _config, "job": _job, "daemonset": _daemonset,
    "rbac": _rbac, "ingress": _ingress, "dns": _dns,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.yaml")))
def test_example(space: Space, name: str) -> None:
    text = (EXAMPLES / f"{name}.yaml").read_text().replace("namespace: default", f"namespace: {space.name}")
    space.k("apply", "-f", "-", stdin=text)
    GOALS[name](space)
    # Again: nothing is made anew. (kubectl calls a pod with an injected token volume 'configured' each time.)
    assert "created" not in space.k("apply", "-f", "-", stdin=text).out
