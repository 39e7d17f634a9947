"""Real agents to break. Each test says what must hold whatever happens."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.agent import Agent
from tests.faults.host import Host
from tests.images import docker_answers, make_images


@pytest.fixture(scope="session")
def engine() -> None:
    """The Docker Engine of this machine, with the images that the tests run."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not docker_answers():
        pytest.skip("no Docker Engine answers")
    make_images("busybox", "nginx")


@pytest.fixture(scope="module")
def agent(engine: None) -> Iterator[Agent]:
    """One agent, started, for a module; its tests leave it running, or start it again."""
    with Agent.lent() as agent:
        yield agent.start()


@pytest.fixture
def host(agent: Agent) -> Host:
    return Host(agent)
