"""What the tests of the API server share: requests in one line, and small objects."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from minik8s.apiserver.auth import User
from minik8s.apiserver.handler import Handler
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.apiserver.request import ApiRequest, ApiResponse
from minik8s.client.base import Client
from minik8s.clock import ManualClock
from minik8s.store.watch_cache import WatchCache

ADMIN = User("admin", ("system:masters", "system:authenticated"))
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


class Answer:
    """A response, decoded."""

    def __init__(self, response: ApiResponse) -> None:
        self.code = response.code
        self.raw = response
        self.body: Any = (
            msgspec.json.decode(response.body)
            if response.content_type.startswith("application/json") and response.body
            else response.body
        )

    def __getitem__(self, key: str) -> Any:
        return self.body[key]

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))


class Api:
    """Requests in one line: `await api.post("/api/v1/namespaces", {...})`."""

    def __init__(self, handler: Handler, clock: ManualClock, cache: WatchCache) -> None:
        self.handler = handler
        self.clock = clock
        self.cache = cache
        self.client = Client(LoopbackTransport(handler, ADMIN))

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: User | None = ADMIN,
        token: str = "",
        content_type: str = "application/json",
        accept: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        path, _, text = path.partition("?")
        query = dict(pair.partition("=")[::2] for pair in text.split("&")) if text else {}
        data = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        request = ApiRequest(
            method,
            path,
            query,
            {"content-type": content_type, "accept": accept, **(headers or {})},
            data,
            user,
            token=token,
        )
        return Answer(await self.handler.handle(request))

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.call("GET", path, **more)

    async def post(self, path: str, body: Any, **more: Any) -> Answer:
        return await self.call("POST", path, body, **more)

    async def put(self, path: str, body: Any, **more: Any) -> Answer:
        return await self.call("PUT", path, body, **more)

    async def patch(self, path: str, body: Any, kind: str = "merge-patch", **more: Any) -> Answer:
        return await self.call("PATCH", path, body, content_type=f"application/{kind}+json", **more)

    async def delete(self, path: str, body: Any = None, **more: Any) -> Answer:
        return await self.call("DELETE", path, body, **more)

    async def watch(self, path: str, count: int, **more: Any) -> list[dict[str, Any]]:
        """The first `count` events of a watch."""
        answer = await self.get(path, **more)
        assert answer.raw.stream is not None, answer.body
        events: list[dict[str, Any]] = []
        async with aclosing(answer.raw.stream) as batches:
            async for batch in batches:
                events += [msgspec.json.decode(frame) for frame in batch]
                if len(events) >= count:
                    break
        return events


def config_map(name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **more.pop("metadata", {})}, **more}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "lab/busybox:1"}], **spec},
    }
