"""`cluster`: three hosts in two subnets, joined to one cluster, for all tests of this folder; `space`: a namespace.

    def test_something(cluster: Cluster, space: Space) -> None:
        space.apply(on("h2", "p"))
        cluster.lab.isolate(cluster.hosts["h2"])

The cluster is made once in a test run and healed before each test, so a test may leave hosts cut off, off, without
engine or agent. What a test changes for good (labels, taints, deleted nodes) it puts back itself. It takes some 10 s
to boot. Tests that want other hosts or options make a `Lab` and a `Cluster` of their own; several exist side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.space import Space
from tests.kubectls import KUBECTLS
from tests.lab.host import LabHost
from tests.lab.lab import Lab
from tests.multihost.cluster import Cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for mark in ("docker", "root", "kubectl"):
                item.add_marker(mark)
            item.add_marker(pytest.mark.timeout(180, func_only=True))


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if lacking := LabHost.lacking():
        pytest.skip(lacking)
    if not KUBECTLS:
        pytest.skip("no kubectl: run scripts/kubectl")
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        made = Cluster(lab)
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture
def cluster(_cluster: Cluster) -> Cluster:
    _cluster.heal()
    return _cluster


@pytest.fixture
def space(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Space]:
    made = Space.make(cluster.master, request.node.name)
    try:
        yield made
    finally:
        made.remove()
