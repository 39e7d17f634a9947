"""What Functions mean for their asynchronous calls: terms, a try when something has changed, an end with them."""

from __future__ import annotations

from minik8s.api.kinds.function import Destination as Stated
from minik8s.api.kinds.function import Function
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.faas.queue.dispatcher import Dispatcher, Terms
from minik8s.faas.queue.outcome import Destination, Policy

AT_ONCE = 128  # calls of one function under way, however many it could take


def terms(function: Function) -> Terms:
    """As many at once as all replicas that it may have can take: others would be refused by the gateway. Pure."""
    spec = function.spec
    asked = spec.asynchronous
    policy = Policy(asked.maxAttempts, float(asked.maxAgeSeconds), float(asked.backoffSeconds))
    at_once = max(min(spec.concurrency * spec.scale.maxReplicas, AT_ONCE), 1)
    namespace = function.metadata.namespace
    return Terms(policy, at_once, _destination(namespace, asked.onSuccess), _destination(namespace, asked.onFailure))


def _destination(namespace: str, stated: Stated | None) -> Destination | None:
    if stated is None:
        return None
    return Destination(f"{namespace}/{stated.function}" if stated.function else "", stated.url)


class CallController(Controller):
    name = "function-calls"
    workers = 1

    def __init__(self, client: Client, informers: Informers, dispatcher: Dispatcher, recorder: Recorder) -> None:
        super().__init__(client, informers)
        self._dispatcher = dispatcher
        self._recorder = recorder
        self._functions = informers.of(Function)
        self._functions.on_change(self._changed)
        dispatcher.given_up = self._given_up

    def _changed(self, old: Function | None, new: Function | None) -> None:
        if new is None and old is not None:
            self.queue.add(old.key)
        elif new is not None and (old is None or old.status.readyRevision != new.status.readyRevision):
            self._dispatcher.nudge(new.key)

    async def run(self) -> None:
        await self.informers.synced()
        for function in await self._dispatcher.queue.functions():  # that may have gone while nobody looked
            self.queue.add(function)
        await super().run()

    async def reconcile(self, key: str) -> float | None:
        if self._functions.by_key(key) is None:
            await self._dispatcher.queue.forget(key)
        return None

    def _given_up(self, key: str, text: str) -> None:
        function = self._functions.by_key(key)
        if function is not None:
            self._recorder.event(function, "Warning", "CallGivenUp", text)
