"""The gateway on a real node: pods, code and agents come and go under load, and no call fails that need not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException

import pytest

from tests.agent import Agent, until
from tests.e2e.space import Space

SLOW = "import time\n\ndef main(params):\n    time.sleep(0.05)\n    return 'v1'\n"
CLIENTS = 6


@pytest.fixture
def space(agent: Agent, request: pytest.FixtureRequest) -> Iterator[Space]:
    made = Space.make(agent, request.node.name)
    try:
        yield made
    finally:
        made.remove()


def function(space: Space, code: str, **spec: object) -> None:
    space.apply({"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": {"name": "f"},
                 "spec": {"code": {"inline": code}, **spec}})  # fmt: skip
    space.wait("condition=Ready", "function.faas.minik8s.io/f", seconds=30)


def call(space: Space) -> tuple[int, str]:
    """A call by a connection of its own; (0, why) if it got no answer."""
    connection = HTTPConnection(space.agent.address, space.agent.gateway_port, timeout=40)
    try:
        connection.request("POST", f"/function/{space.name}/f", b"{}", {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, HTTPException) as error:
        return 0, repr(error)
    finally:
        connection.close()


@contextmanager
def load(space: Space, clients: int = CLIENTS) -> Iterator[list[tuple[int, str]]]:
    """Clients that call all the time; what they were answered."""
    answers: list[tuple[int, str]] = []
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            answers.append(call(space))

    with ThreadPoolExecutor(clients) as pool:
        going = [pool.submit(go_on) for _ in range(clients)]
        try:
            yield answers
        finally:
            over.set()
    for each in going:
        each.result()


def pods(space: Space) -> list[str]:
    """Those that are not to be deleted."""
    found = space.k("get", "pods", "-l", "faas.minik8s.io/function=f", "-o", "json").json["items"]
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


def test_from_nothing_to_many_pods_and_new_code_and_back_no_call_fails(space: Space) -> None:
    scale = {"minReplicas": 0, "maxReplicas": 3, "idleSeconds": 1}
    function(space, SLOW, concurrency=1, scale=scale)
    until(lambda: not pods(space), seconds=30)
    with load(space) as answers:
        until(lambda: len(pods(space)) == 3, seconds=40)
        function(space, SLOW.replace("v1", "v2"), concurrency=1, scale=scale)
        until(lambda: (200, "v2") in answers, seconds=30)
        function(space, SLOW.replace("v1", "v2"), concurrency=1, scale=scale | {"maxReplicas": 1})
        until(lambda: len(pods(space)) == 1, seconds=40)
    assert set(answers) == {(200, "v1"), (200, "v2")}
    until(lambda: not pods(space), seconds=40)
    assert call(space) == (200, "v2")
    shown = space.k("get", "--raw", f"/apis/faas.minik8s.io/v1/namespaces/{space.name}/functions/f/calls").out
    assert json.loads(shown)["items"][0]["cold"] is True


def test_an_agent_that_is_started_again_or_killed_loses_only_what_was_under_way(space: Space, living: Agent) -> None:
    function(space, SLOW, scale={"minReplicas": 1})
    with load(space) as answers:
        until(lambda: len(answers) > 20)
        living.restart()
        restarted = len(answers)
        until(lambda: len(answers) > restarted + 20)
    assert {answer for answer in answers if answer[0] != 200} == set()
    with load(space) as answers:
        until(lambda: len(answers) > 20)
        living.kill9()
        living.start()
        killed = len(answers)
        until(lambda: len(answers) > killed + 20)
    assert len([answer for answer in answers if answer[0] != 200]) <= CLIENTS
