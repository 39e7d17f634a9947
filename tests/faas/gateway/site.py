"""A gateway on a real API server in memory, before pods that are real HTTP servers of this process.

`Pod` keeps the contract of runtimes: revisions are put with a token, calls of others are 404 not-loaded. What a
revision does is said by its code, which is the name of a function of the test's.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from minik8s.aio import background
from minik8s.api.kinds.environment import PLAIN, POOL_LABEL
from minik8s.api.kinds.function import LABEL, Function
from minik8s.api.kinds.functionrevision import SHAPE_LABEL, FunctionRevision
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod as PodObject
from minik8s.api.kinds.secret import Secret
from minik8s.api.meta import Condition
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import MASTERS, User
from minik8s.apiserver.handler import AllowAll
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.faas.gateway.fleet import Fleet
from minik8s.faas.gateway.gateway import Gateway
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache
from tests.patience import patience

Json = dict[str, Any]
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]
NODE = "here"
KEY = b"k" * 32
ADDRESSES = (f"127.{10 + os.getpid() % 200}.{n // 250}.{1 + n % 250}" for n in itertools.count())


class Pod:
    """A runtime. `calls` are those that it has begun; `puts` the revisions that were put; `ports` those of the gateway
    that anything came from, in order."""

    def __init__(self, name: str, behaviours: Mapping[str, Behaviour]) -> None:
        self.name, self.address = name, next(ADDRESSES)
        self.revisions: dict[str, str] = {}
        self.calls: list[web.Request] = []
        self.puts: list[Json] = []
        self.ports: list[int] = []
        self.in_flight = self.most = 0
        self.sulks = 0  # puts that it does not take for reasons of its own
        self._behaviours = behaviours
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_put("/-/revisions/{name}", self._put)
        app.router.add_route("*", "/{path:.*}", self._call)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.address, 8080, reuse_address=True).start()

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _put(self, request: web.Request) -> web.Response:
        token = hmac.new(KEY, f"default/{self.name}".encode(), "sha256").hexdigest()
        if request.headers.get("Authorization") != f"Bearer {token}":
            return web.json_response({"message": "wrong token"}, status=401)
        self.ports.append(_port(request))
        if self.sulks:
            self.sulks -= 1
            return web.Response(status=503)
        data = await request.read()
        (length,) = struct.unpack(">I", data[:4])
        settings, code = json.loads(data[4 : 4 + length]), data[4 + length :].decode()
        self.puts.append(settings)
        if code.startswith("broken"):
            return web.json_response({"reason": "LoadError", "message": f"Traceback: {code}"}, status=422)
        self.revisions[settings["revision"]] = code
        return web.json_response({"contract": "main", "seconds": 0.01})

    async def _call(self, request: web.Request) -> web.StreamResponse:
        revision = request.headers["Minik8s-Revision"]
        if revision not in self.revisions:
            response: web.StreamResponse = web.Response(status=404, headers={"Minik8s-Runtime": "not-loaded"})
            response.force_close()
            return response
        self.calls.append(request)
        self.ports.append(_port(request))
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            return await self._behaviours[self.revisions[revision]](request)
        finally:
            self.in_flight -= 1


def _port(request: web.Request) -> int:
    assert request.transport is not None
    return int(request.transport.get_extra_info("peername")[1])


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    said = {"method": request.method, "path": request.path_qs, "body": body.decode(), "headers": dict(request.headers)}
    return web.json_response(said, headers={"X-Custom": "yes"})


class _Transport:
    """The API, but for what is not under test: the archives, and the scaler's ear."""

    def __init__(self, inner: LoopbackTransport, codes: dict[str, bytes], posted: Callable[[str, Json], Any]) -> None:
        self._inner, self._codes, self._posted = inner, codes, posted
        self.stream = inner.stream
        self.fetched: list[str] = []
        self.settings: Callable[[str], Json] = lambda name: {"revision": name, "namespace": "default"}

    async def request(self, method: str, path: str, **more: Any) -> bytes:
        if path.endswith("/code"):
            name = path.split("/")[-2]
            self.fetched.append(name)
            return self._codes[name]
        if path.endswith("/settings"):
            return json.dumps(self.settings(path.split("/")[-2])).encode()
        if method == "POST" and path.endswith(("/functiondemands", "/calls")):
            return json.dumps(self._posted(path, json.loads(more["body"])) or {}).encode()
        return await self._inner.request(method, path, **more)


class Site:
    """`url` is the gateway's. Objects are written as controllers would write them."""

    def __init__(self, client: Client, behaviours: dict[str, Behaviour]) -> None:
        self.client = client
        self.behaviours: dict[str, Behaviour] = {"echo": echo, **behaviours}
        self.codes: dict[str, bytes] = {}
        self.demands: list[Json] = []
        self.asked = asyncio.Event()  # a demand has come
        self.promises: list[Json] = []  # what the scaler answers
        self.later: list[Json] = []
        self.pods: dict[str, Pod] = {}
        self.gateway: Gateway
        self.transport: _Transport
        self.url = ""
        self.http: aiohttp.ClientSession

    def posted(self, path: str, body: Json) -> Json | None:
        if path.endswith("/calls"):
            self.later.append({"path": path, **body})
            return {"id": "c-1"}
        self.demands.append(body)
        self.asked.set()
        return {"promises": self.promises}

    def promise(self, pod: str, function: str = "f") -> Json:
        """As the scaler makes it: that calls of the function may go to this pod."""
        place = {"pod": f"default/{pod}", "address": self.pods[pod].address, "node": NODE}
        return {"crowd": f"default/{function}", "shape": "s", **place}

    async def function(self, name: str, *, namespace: str = "default", **spec: Any) -> None:
        await self.client.create(Function, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})

    async def revision(
        self,
        name: str,
        code: str = "echo",
        *,
        number: int = 1,
        shape: str = "s",
        ready: bool | None = True,
        **spec: Any,
    ) -> str:
        """NAME-0000N with a verdict, unless `ready` is None."""
        full = f"{name}-{number:05}"
        self.codes[full] = code.encode()
        spec = {"function": name, "number": number, "shape": shape, "concurrency": 10, "timeoutSeconds": 30,
                "maxBodyBytes": 8 << 20, "code": {"sha256": hashlib.sha256(code.encode()).hexdigest(), "size": 1},
                **spec}  # fmt: skip
        await self.client.create(
            FunctionRevision, {"metadata": {"name": full, "namespace": "default"}, "spec": spec}
        )  # fmt: skip
        if ready is not None:
            condition = {"type": "Ready", "status": "True" if ready else "False", "reason": "x", "message": "m"}
            patch = {"status": {"conditions": [condition]}}
            await self.client.patch(FunctionRevision, full, "default", patch, subresource="status")
        return full

    async def judged(self, revision: str) -> Condition:
        """The verdict on a revision, as soon as the gateway has written it."""
        made = await self.client.get(FunctionRevision, revision, "default")
        kind, after = self.client.resource(FunctionRevision), made.metadata.resourceVersion
        found = made.status.conditions
        async with (
            asyncio.timeout(patience(20)),
            self.client.watch(kind, FunctionRevision, "default", after=after) as batches,
        ):
            while not found:
                seen = [event.object for event in await anext(batches) if event.object.metadata.name == revision]
                found = seen[-1].status.conditions if seen else ()
        return found[0]

    async def traffic(self, name: str, **shares: int) -> None:
        """`traffic("f", v1=90, v2=10)`"""
        found = [{"revision": f"{name}-{int(key[1:]):05}", "percent": share} for key, share in shares.items()]
        await self.status(name, traffic=found)

    async def status(self, name: str, **status: Any) -> None:
        await self.client.patch(Function, name, "default", {"status": status}, subresource="status")

    async def simple(self, name: str = "f", code: str = "echo", *, pods: int = 1, **spec: Any) -> None:
        """A function with one revision and pods that run."""
        scale = {"scale": spec.pop("scale")} if "scale" in spec else {}
        await self.function(name, **scale, **{k: v for k, v in spec.items() if k in ("concurrency",)})
        await self.revision(name, code, **spec)
        await self.traffic(name, v1=100)
        for number in range(pods):
            await self.pod(f"{name}-{number}", name)

    async def pod(
        self, name: str, function: str, *, shape: str = "s", node: str = NODE, listening: bool = True
    ) -> Pod:  # fmt: skip
        """Of a function, or, without one, of a pool."""
        pod = self.pods[name] = Pod(name, self.behaviours)
        if listening:
            await pod.start()
        whose = {LABEL: function} if function else {POOL_LABEL: PLAIN}
        labels = {**whose, SHAPE_LABEL: shape}
        spec = {"nodeName": node, "containers": [{"name": "function", "image": "x"}]}
        await self.client.create(
            PodObject, {"metadata": {"name": name, "namespace": "default", "labels": labels}, "spec": spec}
        )  # fmt: skip
        await self.pod_status(name, phase="Running", podIP=pod.address)
        return pod

    async def pod_status(self, name: str, **status: Any) -> None:
        await self.client.patch(PodObject, name, "default", {"status": status}, subresource="status")

    async def delete_pod(self, name: str) -> None:
        """As a scaler does: the pod drains, and goes a little later."""
        await self.client.delete(PodObject, name, "default", grace=30)

    async def call(
        self, path: str = "/function/default/f", method: str = "POST", **more: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        async with self.http.request(method, self.url + path, **more) as answer:
            data = await answer.read()
            try:
                return answer.status, json.loads(data), answer.headers
            except ValueError:
                return answer.status, data, answer.headers

    def fleet(self, name: str = "f", shape: str = "s") -> Fleet:
        return self.gateway.view._fleet((f"default/{name}", shape))

    async def until(self, test: Callable[[], Any], seconds: float = 5.0) -> Any:
        """For what nobody tells of: looks at each turn of the loop's I/O."""
        async with asyncio.timeout(patience(seconds)):
            while not (found := test()):
                await asyncio.sleep(0.005)
        return found


@asynccontextmanager
async def site(*, queue: int = 100, hold: float = 5.0, **behaviours: Behaviour) -> AsyncIterator[Site]:
    async with MemoryStore() as store, WatchCache(store) as cache:
        handler = build_handler(cache, authenticator=None, authorizer=AllowAll())
        loopback = LoopbackTransport(handler, User("test", (MASTERS,)))
        it = Site(Client(loopback), behaviours)
        it.transport = _Transport(loopback, it.codes, it.posted)
        for namespace in ("default", "kube-system"):
            await it.client.create(Namespace, {"metadata": {"name": namespace}})
        await it.client.create(Node, {"metadata": {"name": NODE}})
        key = {"data": {"hmac": base64.b64encode(KEY).decode()}}
        await it.client.create(Secret, {"metadata": {"name": "function-runtime", "namespace": "kube-system"}, **key})
        client = Client(it.transport)
        informers = Informers(client)
        it.gateway = Gateway(client, informers, NODE, queue=queue, hold=hold)
        async with background(informers.run(), it.gateway.run()), aiohttp.ClientSession() as it.http:
            async with it.gateway.listening(socket.create_server(("127.0.0.1", 0))) as (host, port):
                it.url = f"http://{host}:{port}"
                yield it
            for pod in it.pods.values():
                await pod.stop()
