"""Gateways that speak TLS: everybody who calls functions, also the master itself, goes by the cluster's CA."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator

import pytest

from tests.agent import Agent, Ended, run, until
from tests.e2e.space import Space

HELLO = "def main(params):\n    return {'hello': params.get('name', 'nobody')}\n"
LIFE, YEAR = "15s", "365d"  # of certificates, where they are to be seen renewed, and otherwise


pytestmark = [pytest.mark.long, pytest.mark.timeout(240, func_only=True)]


@pytest.fixture
def secure(living: Agent, request: pytest.FixtureRequest) -> Iterator[Agent]:
    """The agent, its gateway with TLS while the test runs, and certificates that live as long as the test says."""
    before = living.options
    again(living, *before, "--gateway-tls", "--cluster-signing-duration", getattr(request, "param", YEAR))
    try:
        yield living
    finally:
        again(living, *before, "--no-gateway-tls", "--cluster-signing-duration", YEAR)  # it remembers what it is told
        living.options = before


def again(agent: Agent, *options: str) -> None:
    """Start it anew, with a new certificate: one that is good for a year is not made anew."""
    agent.stop()
    agent.options = options
    (agent.data / "node" / "kubelet.crt").unlink()
    agent.start()


@pytest.fixture
def space(secure: Agent, request: pytest.FixtureRequest) -> Iterator[Space]:
    made = Space.make(secure, request.node.name)
    try:
        yield made
    finally:
        made.remove()


def curl(space: Space, scheme: str, *words: str) -> Ended:
    url = f"{scheme}://{space.agent.address}:{space.agent.gateway_port}/function/{space.name}/f"
    return run(["curl", "-sS", "--max-time", "20", "-w", " %{http_code}", *words, url], check=False)


def function(space: Space) -> None:
    space.apply({"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": {"name": "f"},
                 "spec": {"code": {"inline": HELLO}, "scale": {"minReplicas": 1}}})  # fmt: skip
    space.wait("condition=Ready", "function.faas.minik8s.io/f", seconds=120)


def statuses(space: Space) -> dict[str, int]:
    """Of the calls that the gateway remembers, by how their ids begin: cron calls are named after their Trigger."""
    shown = space.k("get", "--raw", f"/apis/faas.minik8s.io/v1/namespaces/{space.name}/functions/f/calls").json
    return {call["id"]: call["status"] for call in shown["items"]}


def test_everybody_speaks_tls_with_the_gateway(space: Space) -> None:
    function(space)
    authority = ("--cacert", str(space.agent.data / "pki" / "ca.crt"))
    assert curl(space, "https", *authority, "-d", '{"name": "curl"}').out == '{"hello":"curl"} 200'
    assert "certificate" in curl(space, "https", "-d", "{}").err  # not of an authority that this machine knows
    refused = curl(space, "http", "-d", "{}").out
    assert "Client sent an HTTP request to an HTTPS server" in refused
    assert refused.endswith(" 400")

    minik8s = space.agent.minik8s
    assert minik8s("-n", space.name, "trigger", "f", "-d", '{"name": "cli"}').json == {"hello": "cli"}
    queued = ("func", "invoke", "f", "-d", '{"name": "queue"}', "--async", "--watch")
    assert minik8s("-n", space.name, *queued).json == {"hello": "queue"}
    states = {"A": {"Type": "Task", "Resource": "function:f", "End": True}}
    space.apply({"apiVersion": "faas.minik8s.io/v1", "kind": "Workflow", "metadata": {"name": "w"},
                 "spec": {"definition": {"StartAt": "A", "States": states}}})  # fmt: skip
    words = ("wf", "run", "w", "--input", '{"name": "task"}', "--wait", "--timeout", "30s")
    assert minik8s("-n", space.name, *words).json == {"hello": "task"}


def certificate(space: Space) -> str:
    return ssl.get_server_certificate((space.agent.address, space.agent.gateway_port), timeout=10)


@pytest.mark.parametrize("secure", [LIFE], indirect=True)
def test_certificates_are_renewed_under_calls_of_the_clock(space: Space) -> None:
    function(space)
    every_minute = {"schedule": "* * * * *", "payload": {"name": "clock"}}
    space.apply({"apiVersion": "faas.minik8s.io/v1", "kind": "Trigger", "metadata": {"name": "tick"},
                 "spec": {"function": "f", "cron": every_minute}})  # fmt: skip
    shown = {certificate(space)}

    def renewed_twice_and_called_by_the_clock() -> bool:
        shown.add(certificate(space))
        authority = str(space.agent.data / "pki" / "ca.crt")
        assert json.loads(curl(space, "https", "--cacert", authority, "-d", "{}").out.rpartition(" ")[0])
        queued = space.agent.minik8s("-n", space.name, "func", "invoke", "f", "-d", "{}", "--async", "--watch").json
        assert queued == {"hello": "nobody"}
        return len(shown) > 2 and bool(space.path("trigger.faas.minik8s.io/tick", ".status.lastScheduleTime"))

    until(renewed_twice_and_called_by_the_clock, seconds=100)
    until(lambda: set(statuses(space).values()) == {200})
