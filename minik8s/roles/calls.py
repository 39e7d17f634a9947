"""Asynchronous calls put together: the queue, the dispatcher, those who make calls, triggers, and the API's part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from minik8s.api.kinds.function import Function
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.service import Service
from minik8s.apiserver.auth import AUTHENTICATED, MASTERS, User
from minik8s.apiserver.handler import Handler
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.config import Config
from minik8s.faas.egress import EVERYWHERE, Egress, networks
from minik8s.faas.outbound import Outbound
from minik8s.faas.queue.api import QueueApi
from minik8s.faas.queue.caller import FunctionCaller, gateways
from minik8s.faas.queue.controller import CallController, terms
from minik8s.faas.queue.dispatcher import Dispatcher, Terms
from minik8s.faas.queue.queue import CallQueue, MemoryQueue
from minik8s.faas.queue.sqlite_queue import SqliteQueue
from minik8s.faas.queue.triggers import TriggerController
from minik8s.metrics import Reading, labels

if TYPE_CHECKING:
    import ssl

FILE = "functions.db"
CONTROLLER = User("system:function-caller", (MASTERS, AUTHENTICATED))


class Calls:
    """`functions` is what workflows call functions by; `waiting(KEY)`: asynchronous calls of a function to be made."""

    def __init__(self, config: Config, handler: Handler, informers: Informers, queue: CallQueue) -> None:
        client = Client(LoopbackTransport(handler, CONTROLLER))
        nodes, services, functions = informers.of(Node), informers.of(Service), informers.of(Function)

        def service(namespace: str, name: str) -> str:
            found = services.get(namespace, name)
            return "" if found is None or found.spec.clusterIP == "None" else found.spec.clusterIP

        def terms_of(function: str) -> Terms | None:
            found = functions.by_key(function)
            return terms(found) if found is not None else None

        def seconds(function: str) -> float | None:
            found = functions.by_key(function)
            return float(found.spec.timeoutSeconds) if found is not None else None

        def trust() -> ssl.SSLContext:
            import ssl

            return ssl.create_default_context(cafile=str(config.path("pki", "ca.crt")))

        own = Egress({config.ip, config.advertised}, networks(config.workflow_http_allow))
        self._inside = Outbound(Egress(allowed=EVERYWHERE), context=trust)  # gateways are on nodes, this one too
        self._outside = Outbound(own, service)
        self.functions = FunctionCaller(
            lambda: gateways(nodes.list(), config.name), self._inside, self._outside, seconds
        )
        self.dispatcher = Dispatcher(queue, terms_of, self.functions.make)
        self.waiting = self.dispatcher.waiting
        self._recorder = Recorder(client, "function-caller")
        self._controllers = (
            CallController(client, informers, self.dispatcher, self._recorder),
            TriggerController(client, informers, self.dispatcher),
        )
        self.api = QueueApi(client, self.dispatcher)
        handler.extend(self.api.subresources(), {})
        Reading("faas_asynchronous_calls_waiting", "gauge", "Asynchronous calls that have not ended.", lambda: (
            (labels(namespace=line.partition("/")[0], function=line.partition("/")[2]), each.calls)
            for line, each in sorted(queue.waiting().items()) if not line.endswith(">")
        ))  # fmt: skip

    def activities(self) -> list[tuple[str, Coroutine[Any, Any, Any]]]:
        return [
            ("calls", self.dispatcher.run()),
            ("calls of functions", self._inside.run()),
            ("calls that tell", self._outside.run()),
            ("recorder function-caller", self._recorder.run()),
            *((each.name, each.run()) for each in self._controllers),
        ]


@asynccontextmanager
async def open_calls(config: Config, handler: Handler, informers: Informers) -> AsyncIterator[Calls | None]:
    """None where functions are switched off. Raises StoreError for a queue that cannot be used."""
    if not config.functions:
        yield None
        return
    async with AsyncExitStack() as stack:
        queue: CallQueue = MemoryQueue()
        if config.store != "memory":
            queue = await stack.enter_async_context(SqliteQueue(config.path(FILE)))
        yield Calls(config, handler, informers, queue)
