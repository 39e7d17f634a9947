"""One agent for all tests of this folder, a namespace of its own for each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent import Agent
from tests.e2e.space import DASHBOARD, HTTP, HTTPS, Space
from tests.images import docker_answers, make_images
from tests.kubectls import BOTH, KUBECTLS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for mark in ("docker", "root", "kubectl"):
                item.add_marker(mark)
            # Not of fixtures: waiting for the host while another run has it is no fault of a test.
            item.add_marker(pytest.mark.timeout(120, func_only=True))


@pytest.fixture(scope="session")
def possible() -> None:
    """Skips, with the reason, where this cannot be done."""
    if os.geteuid() != 0:
        pytest.skip("needs root: pods get a real network")
    if not docker_answers():
        pytest.skip("no Docker Engine answers")
    if shutil.which("nft") is None:
        pytest.skip("needs the package nftables")
    if not KUBECTLS:
        pytest.skip("no kubectl: run scripts/kubectl")
    make_images()
    make_images("ingress")


@pytest.fixture(scope="package")
def agent(possible: None) -> Iterator[Agent]:
    ports = ("--ingress-http-port", str(HTTP), "--ingress-https-port", str(HTTPS), "--dashboard-listen", DASHBOARD)
    with Agent.lent(*ports, "--dashboard-write") as lent:
        lent.start()
        lent.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
        yield lent


@pytest.fixture
def living(agent: Agent) -> Iterator[Agent]:
    """The agent, for tests that end it: started again for those that follow if one fails half-way."""
    try:
        yield agent
    finally:
        if agent.pid is None:
            agent.start()


@pytest.fixture
def space(agent: Agent, request: pytest.FixtureRequest) -> Iterator[Space]:
    made = Space.make(agent, request.node.name)
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture(params=BOTH or [None], ids=lambda path: path.name.removeprefix("kubectl.") if path else "none")
def both(space: Space, request: pytest.FixtureRequest) -> Space:
    """A namespace before the oldest and the newest kubectl at hand."""
    space.binary = request.param
    return space
