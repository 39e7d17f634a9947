"""The transport over real sockets: what happens to those who read when the way to the server changes."""

from __future__ import annotations

import asyncio

import pytest

from minik8s.api.errors import ServiceUnavailable
from minik8s.apiserver.app import ApiServer
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.handler import AllowAll
from minik8s.client.http import HttpTransport
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache

PODS = "/api/v1/pods"


async def test_who_reads_is_told_at_once_when_the_way_changes() -> None:
    async with MemoryStore() as store, WatchCache(store) as cache:
        handler = build_handler(cache, authenticator=None, authorizer=AllowAll())
        async with ApiServer(handler).listening("127.0.0.1", 0) as (host, port):
            async with HttpTransport(f"http://{host}:{port}") as transport:
                reading = asyncio.Event()

                async def follow() -> None:
                    async with transport.stream(PODS, query={"watch": "true"}) as batches:
                        reading.set()
                        async for _ in batches:
                            pass

                followers = [asyncio.create_task(follow()) for _ in range(3)]
                await reading.wait()
                await asyncio.sleep(0)
                for _ in range(2):  # it may change again at once
                    await transport.reconnect()
                for follower in followers:
                    with pytest.raises(ServiceUnavailable):
                        await asyncio.wait_for(follower, 5)
                assert b"PodList" in await transport.request("GET", PODS)
