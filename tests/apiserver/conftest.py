"""An API server in memory, called without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from api_harness import Api

from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.handler import AllowAll
from minik8s.clock import ManualClock
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache


@pytest.fixture
async def cache() -> AsyncIterator[WatchCache]:
    async with MemoryStore() as store, WatchCache(store) as cache:
        yield cache


@pytest.fixture
async def api(cache: WatchCache) -> Api:
    clock = ManualClock()
    handler = build_handler(cache, authenticator=None, authorizer=AllowAll(), clock=clock)
    api = Api(handler, clock, cache)
    for name in ("default", "kube-system", "other"):
        answer = await api.post("/api/v1/namespaces", {"metadata": {"name": name}})
        assert answer.code == 201, answer.body
    return api
