"""Streams by the official Python client: plain WebSocket channels, for port-forward too."""

from __future__ import annotations

import asyncio

import pytest
from kubernetes import client, stream

from tests.kubelet.streaming.cluster import Cluster

pytestmark = pytest.mark.docker


def connected(cluster: Cluster) -> client.CoreV1Api:
    configuration = client.Configuration()
    configuration.host = f"https://{cluster.api[0]}:{cluster.api[1]}"
    configuration.ssl_ca_cert = f"{cluster.folder}/ca.crt"
    return client.CoreV1Api(client.ApiClient(configuration))


async def test_exec(docker: Cluster) -> None:
    await docker.pod("web", "sleep", "1000")
    command = ["sh", "-c", "echo out; echo err >&2; exit 4"]

    def run() -> tuple[str, str, int]:
        api = connected(docker)
        ran = stream.stream(
            api.connect_get_namespaced_pod_exec, "web", "default", command=command, stdout=True, stderr=True,
            stdin=False, tty=False, _preload_content=False,
        )  # fmt: skip
        ran.run_forever(timeout=20)
        return ran.read_stdout(), ran.read_stderr(), ran.returncode

    assert await asyncio.to_thread(run) == ("out\n", "err\n", 4)


async def test_port_forward(docker: Cluster) -> None:
    await docker.pod("web", "nc", "-ll", "-p", "8080", "-e", "cat")

    def speak(port: int) -> tuple[bytes, str | None]:
        forwarded = stream.portforward(
            connected(docker).connect_get_namespaced_pod_portforward, "web", "default", ports=str(port)
        )
        socket = forwarded.socket(port)
        socket.settimeout(20)
        if port == 8080:
            socket.sendall(b"hello\n")
        answer = socket.recv(100)
        socket.close()
        return answer, forwarded.error(port)

    assert await asyncio.to_thread(speak, 8080) == (b"hello\n", None)
    answer, error = await asyncio.to_thread(speak, 81)
    assert answer == b""
    assert error is not None
    assert "81 in the pod: connection refused" in error
