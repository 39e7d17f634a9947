"""Where the API server sends streams to: containers, the kubelet's paths, proxied addresses."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest

from minik8s.api.errors import BadRequest, ServiceUnavailable
from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.service import Service
from minik8s.apiserver import streaming
from minik8s.apiserver.app import ApiServer
from minik8s.apiserver.streaming import (
    NodeStreams,
    Proxied,
    choose_container,
    log_target,
    parse_proxied,
    pod_address,
    service_address,
    upgrade_target,
)
from minik8s.client.base import Client
from minik8s.store.watch_cache import WatchCache

ONE = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"containers": [{"name": "app"}]}}
TWO: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"containers": [{"name": "app"}, {"name": "side"}], "initContainers": [{"name": "prepare"}]},
}


def pod(body: dict[str, Any]) -> Pod:
    return msgspec.convert(body, Pod)


def test_the_container_is_the_one_named_the_default_or_the_only_one() -> None:
    assert choose_container(pod(ONE), "") == "app"
    assert choose_container(pod(TWO), "prepare") == "prepare"
    annotated = {**TWO, "metadata": {**TWO["metadata"], "annotations": {streaming.DEFAULT_CONTAINER: "side"}}}
    assert choose_container(pod(annotated), "") == "side"
    with pytest.raises(BadRequest, match=r"choose one of: \[app side\] or one of the init containers: \[prepare\]$"):
        choose_container(pod(TWO), "")
    with pytest.raises(BadRequest, match="container other is not valid for pod web"):
        choose_container(pod(TWO), "other")


def test_the_kubelets_paths() -> None:
    asked = {"follow": "true", "tailLines": "5", "container": "app", "insecureSkipTLSVerifyBackend": "true"}
    assert log_target(pod(ONE), asked) == "/containerLogs/shop/web/app?follow=true&tailLines=5"
    query = [("command", "sh"), ("command", "-c"), ("command", "a b&c=é"), ("stdin", "true"), ("tty", "false")]
    assert upgrade_target("exec", pod(ONE), query) == (
        "/exec/shop/web/app?input=1&command=sh&command=-c&command=a+b%26c%3D%C3%A9"
    )
    assert upgrade_target("portforward", pod(ONE), [("ports", "80,81")]) == "/portForward/shop/web?port=80%2C81"


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("web", Proxied("", "web", "")),
        ("web:80", Proxied("", "web", "80")),
        ("https:web:main", Proxied("https", "web", "main")),
        ("https:web:", Proxied("https", "web", "")),
    ],
)
def test_names_of_what_is_proxied(name: str, want: Proxied) -> None:
    assert parse_proxied(name) == want


def test_wrong_names_of_what_is_proxied() -> None:
    with pytest.raises(BadRequest, match="SCHEME:NAME:PORT"):
        parse_proxied("ftp:web:80")


def test_a_pods_ports_have_names() -> None:
    ports = {"containers": [{"name": "app", "ports": [{"name": "main", "containerPort": 8080}]}]}
    running = pod({**ONE, "spec": ports, "status": {"podIP": "10.0.0.9"}})
    assert pod_address(running, "") == pod_address(running, "main") == ("10.0.0.9", 8080)
    assert pod_address(running, "99") == ("10.0.0.9", 99)
    with pytest.raises(BadRequest, match='no port named "other"'):
        pod_address(running, "other")
    with pytest.raises(ServiceUnavailable, match="no address"):
        pod_address(pod(ONE), "")


def test_a_service_leads_to_a_ready_endpoint() -> None:
    service = msgspec.convert({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "a", "port": 80}]}}, Service)
    dead = {"addresses": ["10.0.0.1"], "conditions": {"ready": False}}
    ready = {"addresses": ["10.0.0.2"], "conditions": {"ready": True}}
    found = msgspec.convert({"endpoints": [dead, ready], "ports": [{"name": "a", "port": 8080}]}, EndpointSlice)
    assert service_address(service, [found], "") == service_address(service, [found], "80") == ("10.0.0.2", 8080)
    with pytest.raises(ServiceUnavailable, match="no endpoints available"):
        service_address(service, [], "a")
    with pytest.raises(BadRequest, match="name one of its ports"):
        service_address(service, [found], "other")


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "example.org"])
def test_addresses_that_are_this_machines_own_are_refused(address: str) -> None:
    with pytest.raises(BadRequest, match="may not be proxied"):
        streaming.check_address(address)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its own head and body, and ignore that the connection should be closed."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length:")), 0)
    body = head + await reader.readexactly(length)
    writer.write(b"HTTP/1.1 201 Fine\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()


async def test_a_pod_is_proxied_to_without_the_clients_credentials(
    api: Any, cache: WatchCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "check_address", lambda address: None)  # the backend of this test is local
    client: Client = api.client
    echo = await asyncio.start_server(_echo, "127.0.0.1", 0)
    port = echo.sockets[0].getsockname()[1]
    body = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "app", "image": "x"}]}}
    await client.create(Pod, body, "default")
    await client.patch(Pod, "web", "default", {"status": {"podIP": "127.0.0.1"}}, subresource="status")
    server = ApiServer(api.handler, streams=NodeStreams(client, None))
    async with server.listening("127.0.0.1", 0) as (host, bound), aiohttp.ClientSession() as session:
        url = f"http://{host}:{bound}/api/v1/namespaces/default/pods/web:{port}/proxy/a%20b/c?x=1&y=2"
        async with session.post(url, data=b"payload", headers={"Authorization": "Bearer t", "X-Mine": "1"}) as answer:
            assert answer.status == 201
            text = await answer.text()
    assert text.startswith("POST /a%20b/c?x=1&y=2 HTTP/1.1\r\n")
    assert text.endswith("\r\n\r\npayload")
    assert "X-Mine: 1" in text
    assert "authorization" not in text.lower()
    echo.close()
