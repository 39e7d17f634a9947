"""The kubelet's server and the way to it, on the simulated engine: who may ask, what is answered, each dialect."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.runtime.base import ExecResult
from minik8s.runtime.fake import FakeRuntime
from tests.kubelet.streaming.cluster import Cluster


def runtime(cluster: Cluster) -> FakeRuntime:
    assert isinstance(cluster.runtime, FakeRuntime)
    return cluster.runtime


async def ask(where: tuple[str, int], path: str, context: ssl.SSLContext) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"https://{where[0]}:{where[1]}{path}", ssl=context) as answer:
            body = await answer.read()
            return answer.status, await answer.json() if answer.content_type == "application/json" else body


@asynccontextmanager
async def websocket(cluster: Cluster, path: str, protocol: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    url = f"https://{cluster.api[0]}:{cluster.api[1]}/api/v1/namespaces/default/pods/{path}"
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, ssl=cluster.trust, protocols=[protocol] if protocol else ()) as socket:
            yield socket


async def messages(socket: aiohttp.ClientWebSocketResponse) -> list[Any]:
    return [message.data async for message in socket]


# -- the kubelet alone


async def test_only_the_api_server_may_ask_but_everybody_whether_it_lives(fake: Cluster) -> None:
    assert await ask(fake.kubelet, "/healthz", fake.trust) == (200, b"ok")
    assert await ask(fake.kubelet, "/metrics", fake.master) == (200, b"up 1\n")
    code, status = await ask(fake.kubelet, "/pods", fake.trust)
    assert (code, status["reason"]) == (401, "Unauthorized")
    code, status = await ask(fake.kubelet, "/exec/default/web/app?command=id&output=1", fake.stranger)
    assert (code, status["reason"]) == (403, "Forbidden")
    assert "system:node:n2" in status["message"]
    assert await ask(fake.kubelet, "/pod-network", fake.stranger) == (200, {})  # it is a reader of that page alone


async def test_pods_are_listed(fake: Cluster) -> None:
    await fake.pod("web", "sleep", "60")
    code, listed = await ask(fake.kubelet, "/pods", fake.master)
    assert code == 200
    assert [pod["metadata"]["name"] for pod in listed["items"]] == ["web"]


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/containerLogs/default/none/app", 404, 'pods "none" not found'),
        ("/containerLogs/default/web/none", 400, "container none is not valid for pod web"),
        ("/containerLogs/default/web/app?tailLines=-1", 422, "tailLines: Invalid value: -1: must be greater than"),
        ("/containerLogs/default/web/app?tailLines=x", 422, "must be an integer"),
        ("/containerLogs/default/web/app?sinceTime=yesterday", 422, "RFC 3339"),
        ("/containerLogs/default/web/app?previous=true", 400, 'previous terminated container "app" in pod "web" not'),
        ("/exec/default/web/app?command=id&output=1", 400, "Upgrade request required"),
        ("/exec/default/web/app?output=1", 400, "at least 1 command"),
        ("/exec/default/web/app?command=id", 400, "at least 1 of stdin, stdout, stderr"),
    ],
)
async def test_mistakes_are_told_in_words(fake: Cluster, path: str, code: int, words: str) -> None:
    await fake.pod("web", "sleep", "60")
    got, status = await ask(fake.kubelet, path, fake.master)
    assert (got, status["kind"]) == (code, "Status")
    assert words in status["message"]


async def test_a_container_that_has_not_started_says_what_it_waits_for(fake: Cluster) -> None:
    body = {"metadata": {"name": "slow"}, "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "x"}]}}
    made = await fake.client.create(Pod, body, "default")
    await fake.pods.caught_up(made.metadata.resourceVersion)
    code, status = await ask(fake.kubelet, "/containerLogs/default/slow/app", fake.master)
    assert (code, status["message"]) == (400, 'container "app" in pod "slow" is waiting to start: ContainerCreating')
    code, status = await ask(fake.kubelet, "/exec/default/slow/app?command=id&output=1", fake.master)
    assert (code, 'container not found ("app")' in status["message"]) == (404, True)


# -- through the API server


async def test_a_log_comes_through_the_api_server(fake: Cluster) -> None:
    container = await fake.pod("web", "sleep", "60")
    for number in range(5):
        runtime(fake).write_log(container, f"line {number}")
    path = "/api/v1/namespaces/default/pods/web/log"
    assert await ask(fake.api, path + "?tailLines=2", fake.trust) == (200, b"line 3\nline 4\n")
    assert await ask(fake.api, path + "?limitBytes=6", fake.trust) == (200, b"line 0")
    code, status = await ask(fake.api, path + "?tailLines=-1", fake.trust)
    assert (code, status["reason"]) == (422, "Invalid")


async def test_a_flood_of_lines_comes_whole(fake: Cluster) -> None:
    container = await fake.pod("web", "sleep", "60")
    for number in range(20_000):
        runtime(fake).write_log(container, f"line {number}")
    _, body = await ask(fake.api, "/api/v1/namespaces/default/pods/web/log", fake.trust)
    assert body == b"".join(b"line %d\n" % number for number in range(20_000))


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io", ""])
async def test_exec_in_binary_channels(fake: Cluster, protocol: str) -> None:
    container = await fake.pod("web", "sleep", "60")
    runtime(fake).answer_exec(container, ExecResult(3, b"hello\n"))
    async with websocket(fake, "web/exec?command=anything&stdout=true&stderr=true", protocol) as socket:
        assert (socket.protocol or "") == protocol
        greeting, output, *rest = await messages(socket)
    assert greeting == b"\1"
    assert output == b"\1hello\n"
    if protocol.startswith("v"):
        assert b'"reason":"ExitCode","message":"3"' in rest[0]
        assert rest[0][0] == 3
    else:
        assert rest == [b"\3command terminated with non-zero exit code: exit status 3"]


@pytest.mark.parametrize("protocol", ["v4.base64.channel.k8s.io", "base64.channel.k8s.io"])
async def test_exec_in_text_channels(fake: Cluster, protocol: str) -> None:
    await fake.pod("web", "sleep", "60")
    async with websocket(fake, "web/exec?command=echo&command=hi&stdout=true", protocol) as socket:
        got = await messages(socket)
    assert got[:2] == ["1", "1" + base64.b64encode(b"hi\n").decode()]
    assert len(got) == (3 if protocol.startswith("v4") else 2)


async def test_v5_can_end_stdin(fake: Cluster) -> None:
    await fake.pod("web", "sleep", "60")
    async with websocket(fake, "web/exec?command=cat&stdin=true&stdout=true", "v5.channel.k8s.io") as socket:
        await socket.send_bytes(b"\0some text")
        assert (await socket.receive()).data == b"\1"
        assert (await socket.receive()).data == b"\1some text"
        await socket.send_bytes(b"\xff\0")
        assert (await messages(socket))[-1] == b'\3{"metadata":{},"status":"Success"}'


async def test_a_client_that_goes_leaves_nothing_behind(fake: Cluster) -> None:
    await fake.pod("web", "sleep", "60")
    before = fake.connections()
    async with websocket(fake, "web/exec?command=cat&stdin=true&stdout=true", "v5.channel.k8s.io") as socket:
        await socket.send_bytes(b"\0x")
        await socket.receive()
        assert fake.connections() > before
    await fake.until(lambda: fake.connections() == before)


async def test_ports_over_plain_channels(fake: Cluster) -> None:
    await fake.pod("web", "sleep", "60")
    sandbox = next(i for i in await fake.runtime.containers(fake.uids["web"]) if i.is_sandbox)
    runtime(fake).listen(sandbox.id, 80, lambda data: b"got " + data)
    async with websocket(fake, "web/portforward?ports=80,81", "v4.channel.k8s.io") as socket:
        heads = [(await socket.receive()).data for _ in range(4)]
        assert heads == [b"\0\x50\0", b"\1\x50\0", b"\2\x51\0", b"\3\x51\0"]
        refused = (await socket.receive()).data
        assert refused[:1] == b"\3"
        assert b"connection refused" in refused
        await socket.send_bytes(b"\0ping")
        assert (await socket.receive()).data == b"\0got ping"


async def test_no_ports_are_an_error(fake: Cluster) -> None:
    await fake.pod("web", "sleep", "60")
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with websocket(fake, "web/portforward", "v4.channel.k8s.io"):
            pass
    assert caught.value.status == 400


async def test_bytes_behind_a_refused_upgrade_do_not_reach_the_kubelet(fake: Cluster) -> None:
    """Else a client could send requests of its own with the API server's rights."""
    container = await fake.pod("web", "sleep", "60")
    runtime(fake).write_log(container, "a secret")
    reader, writer = await asyncio.open_connection(*fake.api, ssl=fake.trust)
    head = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 99\r\n\r\n"
    writer.write(f"GET /api/v1/namespaces/default/pods/web/exec?command=id&stdout=1 HTTP/1.1\r\n{head}".encode())
    assert b" 400 " in await reader.readline()
    writer.write(b"GET /containerLogs/default/web/app HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"a secret" not in await reader.read()
    writer.close()


async def test_a_node_that_does_not_answer_is_named(fake: Cluster) -> None:
    await fake.pod("web", "sleep", "60")
    silent = {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}
    await fake.client.patch(Node, "n1", None, {"status": silent}, subresource="status")
    code, status = await ask(fake.api, "/api/v1/namespaces/default/pods/web/log", fake.trust)
    assert code == 503
    assert status["message"] == ('the kubelet of node "n1" does not answer at 127.0.0.1:1: connection refused')


async def test_a_container_must_be_named_among_several(fake: Cluster) -> None:
    await fake.pod("two", "sleep", "60", containers=("one", "other"))
    path = "/api/v1/namespaces/default/pods/two/log"
    code, status = await ask(fake.api, path, fake.trust)
    assert code == 400
    assert status["message"] == "a container name must be specified for pod two, choose one of: [one other]"
    annotation = {"metadata": {"annotations": {"kubectl.kubernetes.io/default-container": "other"}}}
    await fake.client.patch(Pod, "two", "default", annotation)
    assert (await ask(fake.api, path, fake.trust))[0] == 200


async def test_methods_and_subresources_that_are_not_served(fake: Cluster) -> None:
    await fake.pod("web", "sleep", "60")
    async with aiohttp.ClientSession() as session:
        url = f"https://{fake.api[0]}:{fake.api[1]}/api/v1/namespaces/default"
        async with session.post(f"{url}/pods/web/log", ssl=fake.trust) as answer:
            assert answer.status == 405
        async with session.get(f"{url}/configmaps/web/exec", ssl=fake.trust) as answer:
            assert answer.status == 404
