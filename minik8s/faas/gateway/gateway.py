"""The gateway put together: what it follows, where it listens, whom it tells."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from minik8s import metrics
from minik8s.aio import periodic, supervise
from minik8s.api.kinds.function import Function
from minik8s.api.kinds.workflow import GROUP
from minik8s.apiserver.tls_listener import TlsListener
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.faas.gateway.calls import HOLD, Calls
from minik8s.faas.gateway.demand import Demand
from minik8s.faas.gateway.failures import refusal
from minik8s.faas.gateway.fleet import IDLE, Place
from minik8s.faas.gateway.inbound import Clients
from minik8s.faas.gateway.loading import Loader, Verdicts
from minik8s.faas.gateway.records import Records
from minik8s.faas.gateway.trace import Trace
from minik8s.faas.gateway.view import PORT, Target, View
from minik8s.faas.gateway.wire import Asked
from minik8s.faas.promise import Promises
from minik8s.faas.queue.queue import ENVELOPE, Envelope

DEMANDS = f"/apis/{GROUP}/v1/functiondemands"
QUEUE = 100  # calls of a function that may wait beyond what all its replicas could have in flight
BACKLOG = 4096
TIDY = 10.0  # seconds between looks at idle connections
# When the agent stops: seconds to agree on TLS, for clients to send what they are about to send, and for calls to end.
LAST_HANDSHAKES, LAST_REQUESTS, LAST_CALLS = 0.5, 0.2, 10.0

Json = dict[str, Any]


class Gateway:
    """`run` is eternal and does all but listening; `listening` answers clients as long as its body runs."""

    def __init__(
        self, client: Client, informers: Informers, node: str, *, queue: int = QUEUE, hold: float = HOLD
    ) -> None:
        self._client = client
        self._node = node
        self._random = random.Random()
        self.records = Records()
        self.view = View(
            informers,
            node,
            woken=lambda: self._demand.woken(),
            moved=lambda: self._verdicts.moved(),
        )
        self._loader = Loader(client)
        self._verdicts = Verdicts(client, self.view, self._loader)
        self._demand = Demand(node, self.view.loads, self._tell)
        self._calls = Calls(
            self.view, self._loader, self.records, self._demand.wanted,
            later=self._enqueue, bits=self._random.getrandbits, draw=self._random.random, queue=queue, hold=hold,
        )  # fmt: skip
        self.view.follow()
        metrics.Reading("faas_in_flight", "gauge", "Calls under way, waiting ones included.", self._in_flight)
        metrics.Reading("faas_waiting", "gauge", "Calls that wait for a pod.", self._waiting)

    async def run(self) -> None:
        await supervise(
            [
                ("gateway loader", self._loader.run()),
                ("gateway verdicts", self._verdicts.run()),
                ("gateway demand", self._demand.run()),
                ("gateway connections", periodic(TIDY, self._tidy)),
            ]
        )

    @asynccontextmanager
    async def listening(
        self, sock: socket.socket, context: ssl.SSLContext | None = None
    ) -> AsyncIterator[tuple[str, int]]:
        """Answer on a socket that listens; yields its address and port. At the end calls under way may finish."""
        await self.view.synced()  # whoever is answered before would be told that there are no functions
        clients = Clients(self._calls.serve, refusal)
        address = sock.getsockname()[:2]
        try:
            if context is not None:
                listener = TlsListener(context, clients)
                listener.adopt(sock)
                try:
                    yield address
                finally:
                    await listener.finish(LAST_HANDSHAKES)
            else:
                plain = await asyncio.get_running_loop().create_server(clients, sock=sock, backlog=BACKLOG)
                try:
                    yield address
                finally:
                    plain.close()
        finally:
            await clients.drain(LAST_REQUESTS, LAST_CALLS)

    async def page(self, query: Mapping[str, str]) -> tuple[str, bytes]:
        """The kubelet's page `/functions/calls?namespace=&name=`."""
        shown = self.records.shown(query.get("namespace", ""), query.get("name", ""))
        return "application/json", msgspec.json.encode(shown)

    # -- speaking with the API

    async def _tell(self, report: Json) -> None:
        body = msgspec.json.encode({"apiVersion": f"{GROUP}/v1", "kind": "FunctionDemand", **report})
        answer = await self._client.transport.request("POST", DEMANDS, body=body)
        for each in msgspec.json.decode(answer, type=Promises).promises:
            self.view.expect((each.crowd, each.shape), Place(each.pod, each.address, PORT, each.node))

    async def _enqueue(self, target: Target, asked: Asked, path: str, body: bytes, trace: Trace) -> bytes:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in asked.lines}
        key = headers.pop("idempotency-key", "")
        callback = headers.pop("x-callback-url", "")
        headers["traceparent"] = trace.parent.decode()
        query = "?" + asked.query.decode("latin-1") if asked.query else ""
        method = asked.method.decode("latin-1")
        envelope = Envelope(method, path + query, headers, body, key, callback)
        base = self._client.resource(Function).base_path(target.namespace)
        return await self._client.transport.request(
            "POST", f"{base}/{target.name}/calls", body=msgspec.json.encode(envelope), content_type=ENVELOPE
        )

    # -- housekeeping

    async def _tidy(self) -> None:
        self.view.tidy(asyncio.get_running_loop().time() - IDLE)

    def _in_flight(self) -> list[tuple[str, int]]:
        return [
            (metrics.labels(namespace=target.namespace, function=target.name), target.busy)
            for target in self.view.targets.values()
            if target.busy
        ]

    def _waiting(self) -> list[tuple[str, int]]:
        return [
            (metrics.labels(namespace=key.partition("/")[0], function=key.partition("/")[2], shape=shape), load.waiting)
            for (key, shape), load in self.view.loads.items()
            if load.waiting
        ]
