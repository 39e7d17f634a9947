"""A whole agent whose objects lie in etcd: it lives, is killed and comes back, and etcd goes and comes under it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.agent import Agent, until
from tests.e2e.requests import Requests
from tests.e2e.space import Space, config_map, service, web
from tests.e2e.test_life import running
from tests.etcd import EtcdServer
from tests.images import docker_answers, make_images
from tests.kubectls import KUBECTLS

pytestmark = [
    pytest.mark.docker, pytest.mark.root, pytest.mark.kubectl, pytest.mark.etcd,
    pytest.mark.timeout(180, func_only=True),
]  # fmt: skip


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def agent(etcd: EtcdServer) -> Iterator[Agent]:
    if subprocess.run(["id", "-u"], capture_output=True, text=True).stdout.strip() != "0":
        pytest.skip("needs root")
    if not docker_answers():
        pytest.skip("no Docker Engine answers")
    if not KUBECTLS:
        pytest.skip("no kubectl: run scripts/kubectl")
    make_images("busybox", "nginx")
    with Agent.lent("--store", f"etcd://127.0.0.1:{etcd.port}") as lent:
        lent.start()
        lent.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
        yield lent


@pytest.fixture
def space(agent: Agent, etcd: EtcdServer, request: pytest.FixtureRequest) -> Iterator[Space]:
    made = Space.make(agent, request.node.name)
    try:
        yield made
    finally:
        if etcd.process is None:
            etcd.start()
        if agent.pid is None:
            agent.start()
        made.remove()


def test_what_people_do(space: Space) -> None:
    space.apply(web("w", 2), service("w", {"port": 80, "targetPort": "http"}))
    space.k("rollout", "status", "deploy/w", "--timeout=30s")
    space.k("scale", "deploy/w", "--replicas=3")
    space.k("rollout", "status", "deploy/w", "--timeout=30s")
    assert len(space.get("pods")) == 3
    space.k("delete", "deploy,svc", "--all", "--cascade=foreground", "--timeout=30s", seconds=40)
    assert space.get("pods") == []


def test_kill_9_of_the_agent(space: Space, agent: Agent) -> None:
    space.apply(web("w", 2), service("w", {"port": 80, "targetPort": "http"}, type="NodePort"), config_map("c", a="1"))
    space.k("rollout", "status", "deploy/w", "--timeout=30s")
    before, told = running(space), space.get("svc", "w")["spec"]
    agent.kill9()
    agent.start()
    assert space.get("svc", "w")["spec"] == told
    assert space.get("configmap", "c")["data"] == {"a": "1"}
    refused = space.k(
        "create", "service", "clusterip", "thief", f"--clusterip={told['clusterIP']}", "--tcp=80", check=False
    )
    assert "already allocated" in refused.err
    space.k("scale", "deploy/w", "--replicas=3")
    space.k("rollout", "status", "deploy/w", "--timeout=30s")
    assert before.items() <= running(space).items()


def test_etcd_goes_and_comes_back(space: Space, agent: Agent, etcd: EtcdServer) -> None:
    space.apply(web("w", 2), service("w", {"port": 80, "targetPort": "http"}))
    space.k("rollout", "status", "deploy/w", "--timeout=30s")
    before, pid = running(space), agent.pid
    watch = space.popen("get", "configmaps", "-w", "-o", "name", stdout=subprocess.PIPE, text=True)
    try:
        with Requests(space.path("svc/w", ".spec.clusterIP")) as loop:
            etcd.kill()
            assert len(space.get("pods")) == 2  # reads are served from memory
            refused = space.k("create", "configmap", "lost", check=False, seconds=40)
            assert refused.code == 1
            assert f"etcd at 127.0.0.1:{etcd.port} cannot be reached" in refused.err
            etcd.start()
            until(lambda: space.k("create", "configmap", "kept", check=False).code == 0, seconds=30)
            seen = loop.count
            until(lambda: loop.count > seen + 20)
        assert not loop.failures, loop.failures
        until(lambda: "configmap/kept" in (watch.stdout.readline() if watch.stdout else ""), seconds=20)
    finally:
        watch.kill()
        watch.wait()
    space.k("scale", "deploy/w", "--replicas=3")
    space.k("rollout", "status", "deploy/w", "--timeout=30s")
    assert agent.pid == pid
    assert before.items() <= running(space).items()
