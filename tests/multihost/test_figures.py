"""What pods of several hosts use, read at one place, and workloads that are scaled by it across the hosts."""

from __future__ import annotations

import time
from typing import Any

from tests.agent import until
from tests.e2e.space import Space, service, web
from tests.multihost.cluster import Cluster, one_on_each

BRIEF = 6.0  # seconds in which figures are read though a host is cut off


def shown(space: Space, *words: str) -> set[str]:
    """The names that `kubectl top` has figures of; nodes without any it tells as unknown."""
    lines = space.k("top", *words, "--no-headers", check=False).out.splitlines()
    return {line.split()[0] for line in lines if "<unknown>" not in line}


def test_figures_of_every_host_and_without_one_that_is_cut_off(cluster: Cluster, space: Space) -> None:
    one_on_each(space, cluster)
    pods = {f"p-{host}" for host in cluster.hosts}
    until(lambda: shown(space, "pod") == pods)
    assert shown(space, "node") == set(cluster.hosts)
    cluster.lab.isolate(cluster.hosts["h2"])
    until(lambda: shown(space, "pod") == pods - {"p-h2"})
    began = time.monotonic()
    assert shown(space, "node") == set(cluster.hosts) - {"h2"}
    assert time.monotonic() - began < BRIEF
    cluster.heal()
    until(lambda: shown(space, "node") == set(cluster.hosts))


def test_a_workload_is_scaled_over_the_hosts_and_reached_through_its_service(cluster: Cluster, space: Space) -> None:
    apart: dict[str, Any] = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}
    scaled = web("web", 1)
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    scaled["spec"]["template"]["spec"]["affinity"] = {"podAntiAffinity": rule}
    space.apply(scaled, service("web"))
    target = {"type": "AverageValue", "averageValue": "64Ki"}  # each nginx takes more than that
    space.apply({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "annotations": {"autoscaling.minik8s.io/sync-period": "1s"}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": "memory", "target": target}}],
        },
    })  # fmt: skip
    space.until("deployment web", lambda it: it["status"].get("readyReplicas") == 3, seconds=40)
    assert {pod["spec"]["nodeName"] for pod in space.get("pods")} == set(cluster.hosts)
    address = space.path("service/web", ".spec.clusterIP")
    for host in cluster.hosts:
        assert "It works" in until(lambda host=host: cluster.sh(host, f"curl -sm2 http://{address}/ || true"))
