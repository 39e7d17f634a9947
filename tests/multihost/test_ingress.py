"""One host name on every node's address, wherever the pods behind it are; a lost node is no longer named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agent import run, until
from tests.e2e.space import Space, service
from tests.multihost.cluster import Cluster, on


@pytest.fixture
def routed(cluster: Cluster, space: Space) -> Iterator[str]:
    """A host name that leads to a pod on h2."""
    for host in cluster.lab.hosts:
        host.make_images("ingress")
    script = "mkdir /w; echo here >/w/index.html; exec httpd -f -p 8000 -h /w"
    host = f"shop.{space.name}"
    paths = [{"path": "/", "service": {"name": "p", "port": 80}}]
    space.apply(
        on("h2", "p", "sh", "-c", script),
        service("p", {"port": 80, "targetPort": 8000}),
        {"apiVersion": "net.minik8s.io/v1", "kind": "DNS", "metadata": {"name": "d"},
         "spec": {"host": host, "paths": paths}},
    )  # fmt: skip
    space.wait("condition=Ready", "pod/p")
    yield host
    space.k("delete", "dns", "d")


def ask(address: str, host: str) -> str:
    return run(["curl", "-sS", "--max-time", "3", "-H", f"Host: {host}", f"http://{address}/"], check=False).out.strip()


def test_every_node_answers_and_a_lost_one_is_not_named(cluster: Cluster, space: Space, routed: str) -> None:
    every = sorted(host.address for host in cluster.hosts.values())
    space.until("dns d", lambda d: d.get("status", {}).get("addresses") == every, seconds=40)
    until(lambda: [ask(address, routed) for address in every] == ["here"] * 3, seconds=30)
    found = cluster.hosts["h3"].run("dig", "+short", "@10.96.0.10", routed)
    assert sorted(found.out.split()) == every
    lost = cluster.hosts["h3"].address
    cluster.power_cut("h3")
    space.until("dns d", lambda d: d["status"].get("addresses") == [a for a in every if a != lost], seconds=40)
    assert ask(every[0], routed) == "here"
