"""A node's engine through the API server: what it holds, and what is done to it, simulated and real."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.kubelet.streaming.cluster import Cluster

PROXY = "/api/v1/nodes/n1/proxy/engine"


async def ask(cluster: Cluster, method: str, path: str = "") -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session:
        url = f"https://{cluster.api[0]}:{cluster.api[1]}{PROXY}{path}"
        async with session.request(method, url, ssl=cluster.trust) as answer:
            return (
                answer.status,
                await answer.json() if answer.content_type == "application/json" else await answer.text(),
            )


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
def either(request: pytest.FixtureRequest) -> Cluster:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


async def container(cluster: Cluster, name: str) -> dict[str, Any]:
    code, found = await ask(cluster, "GET")
    assert code == 200
    (one,) = [each for each in found["containers"] if each.get("pod", {}).get("container") == name]
    return dict(one)


async def test_a_containers_life_from_outside(either: Cluster) -> None:
    await either.pod("web", "sh", "-c", "trap 'exit 0' TERM; echo hello; sleep 600 & wait")
    app = await container(either, "app")
    assert app["pod"] == {"namespace": "default", "name": "web", "container": "app"}
    assert app["state"] == "running"
    code, text = await ask(either, "GET", f"/containers/{app['id']}/log?tailLines=5")
    assert (code, text) == (200, "hello\n")
    code, status = await ask(either, "DELETE", f"/containers/{app['id']}")
    assert (code, status["reason"]) == (409, "Conflict")
    assert "running container" in status["message"]
    # A kubelet would start another: the engine itself must not.
    assert (await ask(either, "POST", f"/containers/{app['id']}/restart"))[0] == 200
    assert (await container(either, "app"))["state"] == "exited"
    assert (await ask(either, "DELETE", f"/containers/{app['id']}"))[0] == 200
    assert (await ask(either, "DELETE", f"/containers/{app['id']}"))[0] == 404


async def test_mistakes_are_told_in_words(fake: Cluster) -> None:
    for method, path, code, words in (
        ("POST", "/containers/feed/stop", 404, "No such container: feed"),
        ("DELETE", "/pods/feed", 400, "containers, images, volumes, networks"),
        ("GET", "/containers/feed/log", 404, "No such container"),
        ("GET", "/containers/feed/log?tailLines=x", 422, "tailLines"),
        ("POST", "/containers/feed/kill", 404, ""),
    ):
        got, status = await ask(fake, method, path)
        assert (got, words in status["message"]) == (code, True), path


async def test_an_engine_that_is_down_is_told(fake: Cluster) -> None:
    fake.runtime.stop_engine()  # type: ignore[attr-defined]
    code, status = await ask(fake, "GET")
    assert (code, status["reason"]) == (503, "ServiceUnavailable")
    assert "does not answer" in status["message"]
