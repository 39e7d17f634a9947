"""Over real HTTPS: credentials, limits, streams, and the HTTP transport of the client."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from api_harness import config_map
from tls_harness import Authority

from minik8s.api.errors import AlreadyExists, Forbidden, NotFound, ServiceUnavailable, Unauthorized
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.namespace import Namespace
from minik8s.apiserver import http1, http_writer
from minik8s.apiserver.app import ApiServer
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import Attributes, Decision, User
from minik8s.apiserver.handler import Handler
from minik8s.client.base import Client
from minik8s.client.http import HttpTransport
from minik8s.store.watch_cache import WatchCache

CMS = "/api/v1/namespaces/default/configmaps"


class Known:
    """One token, and every certificate of the authority."""

    async def authenticate(self, *, common_name: str, organizations: Sequence[str], token: str) -> User | None:
        if token == "admin-token":
            return User("admin", ("system:masters",))
        if token:
            raise Unauthorized("invalid bearer token")
        return User(common_name, tuple(organizations)) if common_name else None


class MastersOnly:
    def authorize(self, attributes: Attributes) -> Decision:
        open_path = attributes.path in ("/version", "/readyz")
        return Decision("system:masters" in attributes.user.groups or open_path)


class Served(NamedTuple):
    url: str
    authority: Authority
    handler: Handler

    def transport(self, token: str = "admin-token", name: str = "", *organizations: str) -> HttpTransport:
        return HttpTransport(self.url, self.authority.client_context(name, *organizations), token=token)


@pytest.fixture
async def served(cache: WatchCache, tmp_path: Path) -> AsyncIterator[Served]:
    authority = Authority(tmp_path)
    handler = build_handler(cache, authenticator=Known(), authorizer=MastersOnly())
    async with ApiServer(handler).listening("127.0.0.1", 0, authority.server_context()) as (_, port):
        served = Served(f"https://127.0.0.1:{port}", authority, handler)
        async with served.transport() as transport:
            await Client(transport).create(Namespace, {"metadata": {"name": "default"}})
        yield served


async def test_client_over_https(served: Served) -> None:
    async with served.transport() as transport:
        client = Client(transport)
        made = await client.create(ConfigMap, config_map("a", data={"k": "v"}), "default")
        assert (await client.get(ConfigMap, "a", "default")) == made
        with pytest.raises(AlreadyExists):
            await client.create(ConfigMap, config_map("a"), "default")
        with pytest.raises(NotFound):
            await client.get(ConfigMap, "b", "default")
        listed = await client.list(ConfigMap, "default")
        resource = client.resource(ConfigMap)
        async with client.watch(resource, ConfigMap, "default", after=listed.metadata.resourceVersion) as batches:
            await client.patch(ConfigMap, "a", "default", {"data": {"k": "w"}})
            await client.delete(ConfigMap, "a", "default")
            seen = []
            async for batch in batches:
                seen += [(event.type, event.object.data) for event in batch]
                if len(seen) == 2:
                    break
        assert seen == [("MODIFIED", {"k": "w"}), ("DELETED", {"k": "w"})]


async def test_credentials(served: Served) -> None:
    async with served.transport(token="wrong") as transport:
        with pytest.raises(Unauthorized):
            await transport.request("GET", CMS)
    async with served.transport(token="") as transport:
        assert b"gitVersion" in await transport.request("GET", "/version")
        with pytest.raises(
            Forbidden, match='User "system:anonymous" cannot list resource "configmaps" in API group ""'
        ):
            await transport.request("GET", CMS)
    async with served.transport("", "jane", "system:masters") as transport:
        await transport.request("GET", CMS)
    async with served.transport("", "joe", "people") as transport:
        with pytest.raises(Forbidden, match='User "joe"'):
            await transport.request("GET", CMS)


async def test_out_of_reach() -> None:
    async with HttpTransport("https://127.0.0.1:1") as transport:
        with pytest.raises(ServiceUnavailable, match=r"cannot reach https://127\.0\.0\.1:1"):
            await transport.request("GET", "/version")


async def test_bodies_have_a_limit(served: Served) -> None:
    connector = aiohttp.TCPConnector(ssl=served.authority.client_context())
    async with aiohttp.ClientSession(connector=connector, headers={"authorization": "Bearer admin-token"}) as session:
        async with session.post(served.url + CMS, data=b"x" * (10 << 20)) as answer:
            assert answer.status == 413, await answer.text()
            assert (await answer.json())["reason"] == "RequestEntityTooLarge"

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b"x" * (1 << 20)

        async with session.post(served.url + CMS, data=endless()) as answer:
            assert answer.status == 413, await answer.text()


async def test_big_answers_are_packed(served: Served) -> None:
    async with served.transport() as transport:
        client = Client(transport)
        for index in range(20):
            await client.create(ConfigMap, config_map(f"c{index}", data={"k": "x" * 10_000}), "default")
    connector = aiohttp.TCPConnector(ssl=served.authority.client_context())
    headers = {"authorization": "Bearer admin-token", "accept-encoding": "gzip"}
    async with aiohttp.ClientSession(connector=connector, headers=headers, auto_decompress=False) as session:
        async with session.get(served.url + CMS) as answer:
            assert answer.headers["content-encoding"] == "gzip"
            assert len(await answer.read()) < 50_000
        async with session.get(f"{served.url}{CMS}/c1") as answer:
            assert "content-encoding" not in answer.headers


async def test_broken_http_does_no_harm(served: Served) -> None:
    port = int(served.url.rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(served.authority.ca))
    for junk in (
        b"\x00\xff\x00\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(junk)
        assert b" 400 " in await reader.readline()
        writer.close()
    async with served.transport() as transport:
        await transport.request("GET", CMS)


async def test_a_watch_ends_when_its_client_goes(served: Served, cache: WatchCache) -> None:
    async with served.transport() as transport:
        async with transport.stream(CMS, query={"watch": "true", "resourceVersion": str(cache.revision)}):
            while not cache._watchers:
                await asyncio.sleep(0.001)
    async with asyncio.timeout(5):
        while cache._watchers:
            await asyncio.sleep(0.001)


async def test_connections_that_say_nothing_are_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HEAD_TIMEOUT", 0.1)
    port = int(served.url.rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(served.authority.ca))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"GET /version HT")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_a_client_that_does_not_read_is_cut_off(
    served: Served, cache: WatchCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_writer, "WRITE_TIMEOUT", 0.2)
    async with served.transport() as transport:
        client = Client(transport)
        for index in range(40):
            await client.create(ConfigMap, config_map(f"c{index}", data={"k": "x" * 500_000}), "default")
    loop = asyncio.get_running_loop()
    async with ApiServer(served.handler).listening("127.0.0.1", 0) as address:
        for query in ("", "?watch=true"):
            with socket.socket() as client_socket:
                client_socket.setblocking(False)
                await loop.sock_connect(client_socket, address)
                head = f"GET {CMS}{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin-token\r\n\r\n"
                await loop.sock_sendall(client_socket, head.encode())
                await asyncio.sleep(0.6)  # longer than the server is patient
                received = 0
                async with asyncio.timeout(10):
                    with suppress(ConnectionResetError):
                        while data := await loop.sock_recv(client_socket, 1 << 20):
                            received += len(data)
                assert 0 < received < 20_000_000
    assert not cache._watchers


async def test_a_watcher_that_does_not_read_holds_nobody_up(
    served: Served, cache: WatchCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_writer, "WRITE_TIMEOUT", 0.2)
    changes = 60
    head = f"GET {CMS}?watch=true&resourceVersion={cache.revision} HTTP/1.1\r\nHost: x\r\n"
    async with ApiServer(served.handler).listening("127.0.0.1", 0) as address, served.transport() as transport:
        client = Client(transport)
        (reader, writer), (_, silent) = [await asyncio.open_connection(*address, limit=2**20) for _ in range(2)]
        for one in (writer, silent):
            one.write(head.encode() + b"Authorization: Bearer admin-token\r\n\r\n")
        while len(cache._watchers.get("/configmaps/default/", ())) < 2:
            await asyncio.sleep(0.001)
        silent.transport.pause_reading()

        async def follow() -> list[str]:
            await reader.readuntil(b"\r\n\r\n")
            frames = [(await reader.readuntil(b"\n\r\n")).split(b"\r\n")[1] for _ in range(changes)]
            return [json.loads(frame)["object"]["data"]["n"] for frame in frames]

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follow())
            await client.create(ConfigMap, config_map("a", data={"n": "0", "k": "x" * 500_000}), "default")
            for number in range(1, changes):
                await client.patch(ConfigMap, "a", "default", {"data": {"n": str(number)}})
            while len(cache._watchers["/configmaps/default/"]) > 1:  # the other one has been cut off
                await asyncio.sleep(0.001)
        assert following.result() == [str(number) for number in range(changes)]
        for one in (writer, silent):
            one.transport.abort()


async def test_many_idle_connections(served: Served) -> None:
    port = int(served.url.rpartition(":")[2])
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
    async with served.transport() as transport:
        await transport.request("GET", "/version")
    for _, writer in idle:
        writer.close()
