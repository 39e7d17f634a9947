"""A gateway for tests: a real HTTP server whose functions are Python ones, at a node of a cluster in memory."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from minik8s.api.kinds.function import Function
from minik8s.api.kinds.node import Node
from minik8s.faas.gateway import ANNOTATION
from minik8s.testing import Cluster


class Raised(Exception):
    """As the runtime tells of an exception of a user's code."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error, self.message = error, message


class Gateway:
    """`functions` by name: from the payload to the result. What is not among them is not ready."""

    def __init__(self, **functions: Callable[[Any], Any]) -> None:
        self.functions = functions
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.method, request.raw_path, headers, body))
        function = self.functions.get(request.path.split("/")[3])
        is_json = body and "json" in headers.get("content-type", "json")
        if function is None:
            return web.Response(status=503, text="nothing is ready", headers={"Minik8s-Error": "Unavailable"})
        try:
            value = function(msgspec.json.decode(body) if is_json else body)
        except Raised as raised:
            said = {"error": raised.error, "message": raised.message, "traceback": "Traceback:\n  line"}
            return web.json_response(said, status=500, headers={"Minik8s-Error": "FunctionError"})
        return value if isinstance(value, web.Response) else web.json_response(value)

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()

    async def at(self, it: Cluster) -> None:
        """Be that of the cluster's first node, once it is ready."""
        ready = await it.until(Node, lambda node: any(c.type == "Ready" and c.status == "True"
                                                      for c in node.status.conditions))  # fmt: skip
        patch = {"metadata": {"annotations": {ANNOTATION: self.url}}}
        await it.client.patch(Node, ready.metadata.name, None, patch)
        await it.until(Node, lambda node: ANNOTATION in node.metadata.annotations)


async def define(it: Cluster, name: str, **spec: Any) -> Function:
    spec.setdefault("code", {"inline": "def main(params):\n    return params\n"})
    made = await it.client.create(Function, {"metadata": {"name": name}, "spec": spec}, "default")
    await it.until(Function, lambda each: each.metadata.name == name)
    return made
