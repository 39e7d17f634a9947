"""Pods of different hosts reach each other, in one subnet and across subnets, whatever happens to the network."""

from __future__ import annotations

from tests.e2e.space import Space
from tests.multihost.cluster import Cluster, one_on_each


def test_lab(cluster: Cluster, space: Space) -> None:
    print(cluster.kubectl("get", "nodes", "-o", "wide").out)
    print(one_on_each(space, cluster))
