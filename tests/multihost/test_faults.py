"""What happens to whole clusters: partitions of every shape, a master without power, an engine that dies.

Each ends in the same: all nodes Ready, each pod running once, everybody's Services answering on every host.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.agent import until
from tests.e2e.space import Space, container, deployment, service
from tests.multihost.cluster import LOST_AFTER, Cluster
from tests.multihost.test_nodes import ready, settle

PORT = {"port": 80, "targetPort": 8000}
WHO = ("sh", "-c", "mkdir /w; hostname > /w/index.html; exec httpd -f -p 8000 -h /w")


@pytest.fixture
def web(space: Space) -> str:
    """The service address of an app with a pod on each host, or more if hosts are lost."""
    app = deployment("web", 3, container("c", *WHO))
    app["spec"]["template"]["spec"] |= {
        "terminationGracePeriodSeconds": 1,
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "web"}},
        }],
    }  # fmt: skip
    space.apply(app, service("web", PORT))
    space.wait("condition=Available", "deployment/web")
    return space.path("svc/web", ".spec.clusterIP")


def answers(cluster: Cluster, host: str, vip: str, times: int = 6) -> bool:
    """Whether the service answers on a host so often in a row: by six each of its endpoints has likely been asked."""
    script = f"for i in $(seq {times}); do timeout 2 busybox wget -qO- http://{vip}/ || exit 1; done"
    return cluster.run(host, "sh", "-c", script, check=False).code == 0


def whole(cluster: Cluster, space: Space, vip: str) -> None:
    cluster.wait_ready(seconds=60)
    space.wait("condition=Available", "deployment/web")
    settle(cluster, space)
    for host in cluster.hosts:
        until(lambda host=host: answers(cluster, host, vip), seconds=30)  # type: ignore[misc]


FAULTS: dict[str, Callable[[Cluster], None]] = {
    "deaf": lambda c: c.lab.drop(c.hosts["h1"], c.hosts["h2"]),  # h1 hears h2, which hears nothing of h1
    "mute": lambda c: c.lab.drop(c.hosts["h2"], c.hosts["h1"]),
    "split": lambda c: c.lab.split([c.hosts["h1"]], [c.hosts["h2"], c.hosts["h3"]]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_partitions_heal(cluster: Cluster, space: Space, web: str, fault: str) -> None:
    FAULTS[fault](cluster)
    until(lambda: ready(cluster, "h2") == "Unknown", seconds=LOST_AFTER + 20)
    until(lambda: answers(cluster, "h1", web), seconds=LOST_AFTER + 20)  # who is left serves on
    cluster.lab.heal()
    whole(cluster, space, web)


def test_a_lossy_network_loses_nobody(cluster: Cluster, space: Space, web: str) -> None:
    for host in cluster.hosts.values():
        cluster.lab.lossy(host, 10)
    space.k("scale", "deployment/web", "--replicas=5")
    space.wait("jsonpath={.status.readyReplicas}=5", "deployment/web", seconds=60)
    assert [ready(cluster, host) for host in cluster.hosts] == ["True"] * 3
    cluster.lab.heal()
    whole(cluster, space, web)


def test_the_masters_host_loses_power(cluster: Cluster, space: Space, web: str) -> None:
    """Workers serve on, but for the pod that died with it, of which nobody can tell them; then all is as it was."""
    cluster.power_cut("h1")
    for host in ("h2", "h3"):
        until(lambda host=host: answers(cluster, host, web, times=1), seconds=20)  # type: ignore[misc]
    cluster.power_on("h1")
    whole(cluster, space, web)


@pytest.mark.long
def test_an_engine_dies_and_comes_back(cluster: Cluster, space: Space, web: str) -> None:
    host = cluster.hosts["h3"]
    host.kill_engine(signal.SIGKILL)
    until(lambda: ready(cluster, "h3") == "False", seconds=60)
    host.start_engine()
    whole(cluster, space, web)
