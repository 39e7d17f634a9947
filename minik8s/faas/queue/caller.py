"""How the master calls a function: like everybody, by HTTP, at a gateway of any node that is ready, its own first."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from minik8s.aio import backoff
from minik8s.api.kinds.node import Node
from minik8s.faas.gateway import ANNOTATION
from minik8s.faas.gateway.wire import HAND_BACK
from minik8s.faas.outbound import Outbound, Refused, Unreachable
from minik8s.faas.queue.outcome import USER_ERROR, Answer, document, failure
from minik8s.faas.queue.queue import Call
from minik8s.faas.workflow import errors
from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.execution import MAX_DATA

LARGEST = 1024 * 1024  # bytes of an answer that are kept
SLACK = 120.0  # seconds beside the function's own time, for pods to start; then nobody is there any more
TOLD_SECONDS = 30.0  # for a URL that is told how a call has ended
PATIENCE = 60.0  # seconds in which a workflow waits for a gateway to be there
NO_GATEWAY = "no node that is ready has a gateway for functions: see --gateway-listen"


def gateways(nodes: Iterable[Node], own: str) -> list[str]:
    """URLs of gateways on nodes that are ready; that of the node `own` first. Pure."""
    ready = [node for node in nodes if ANNOTATION in node.metadata.annotations and _is_ready(node)]
    ready.sort(key=lambda node: (node.metadata.name != own, node.metadata.name))
    return [node.metadata.annotations[ANNOTATION].rstrip("/") for node in ready]


def _is_ready(node: Node) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in node.status.conditions)


class FunctionCaller:
    """Makes calls for the dispatcher, and is what workflows call functions by.

    `inside` reaches gateways, `outside` whatever may be told how a call has ended. `seconds(function)` is how long it
    may take; None: there is no such function.
    """

    def __init__(
        self, where: Callable[[], Sequence[str]], inside: Outbound, outside: Outbound,
        seconds: Callable[[str], float | None],
    ) -> None:  # fmt: skip
        self._where = where
        self._inside = inside
        self._outside = outside
        self._seconds = seconds

    async def make(self, call: Call) -> Answer:
        """For the dispatcher."""
        return await (self._tell(call) if call.target else self._ask(call, LARGEST))

    async def _ask(self, call: Call, largest: int) -> Answer:
        where, last = self._where(), NO_GATEWAY
        headers = {**call.headers, "minik8s-call": call.id, "idempotency-key": call.key or call.id}
        seconds = (self._seconds(call.function) or 0.0) + SLACK
        for place in [*where[:1], *random.sample(where[1:], max(len(where) - 1, 0))]:
            try:
                url = f"{place}/function/{call.function}{call.path}"
                reply = await self._inside.send(call.method, url, headers=headers, body=call.body, largest=largest,
                                                seconds=seconds, encoded=True)  # fmt: skip
            except (Unreachable, Refused) as error:
                last = f"{place}: {error}"
                if isinstance(error, Unreachable) and error.sent:
                    break  # it may be running: whoever asked decides whether it may run again
                continue
            reason = reply.headers.get("minik8s-error", "")
            return Answer(reply.code, reason, reply.headers.get("content-type", ""), reply.body, cut=reply.cut,
                          invoke=reply.headers.get("minik8s-invoke", ""))  # fmt: skip
        return Answer(0, cause=last)

    async def _tell(self, call: Call) -> Answer:
        try:
            reply = await self._outside.send("POST", call.target, headers=call.headers, body=call.body, largest=1024,
                                             seconds=TOLD_SECONDS)  # fmt: skip
        except Refused as error:
            return Answer(403, "Refused", cause=str(error))
        except Unreachable as error:
            return Answer(0, cause=str(error))
        return Answer(reply.code, "", reply.headers.get("content-type", ""), reply.body)

    async def invoke(self, namespace: str, name: str, payload: Any, key: str) -> Any:
        """For workflows: the answer as JSON. Raises StateError."""
        return (await self._asked(namespace, name, payload, key, {}))[1]

    async def hop(self, namespace: str, name: str, payload: Any, key: str) -> tuple[str, Any]:
        """For chains: (the next function, parameters for it), or ("", the answer as JSON). Raises StateError."""
        return await self._asked(namespace, name, payload, key, {"minik8s-invoke": HAND_BACK.decode()})

    async def _asked(self, namespace: str, name: str, payload: Any, key: str, more: dict[str, str]) -> tuple[str, Any]:
        name = name.lower().replace("_", "-")  # as the older dialects' names become
        function = f"{namespace}/{name}"
        if self._seconds(function) is None:
            raise StateError("Function.NotFound", f'there is no function "{name}" in the namespace "{namespace}"')
        headers = {"content-type": "application/json", "accept": "application/json", **more}
        call = Call(key, function, time.time(), headers=headers, body=msgspec.json.encode(payload), key=key)
        until = asyncio.get_running_loop().time() + PATIENCE
        for delay in backoff(0.05, 2.0):
            answer = await self._ask(call, MAX_DATA)
            if answer.code or asyncio.get_running_loop().time() > until:
                return answer.invoke, result(function, answer)
            await asyncio.sleep(delay)
        raise AssertionError("backoff is endless")


def result(function: str, answer: Answer) -> Any:
    """What an answer is to a workflow; StateError for a failure, called as the exception is, as with AWS Lambda. Pure.

    Others are Function.REASON (Timeout, TooManyRequests, Unavailable …), or Function.StatusCode.NNN of the function's
    own making. All of them are matched by States.TaskFailed.
    """
    if answer.cut:
        raise StateError(errors.DATA_LIMIT, f"{function} answers with more than {MAX_DATA} bytes")
    if answer.good:
        return document(answer.body)
    error, cause = failure(answer)
    if answer.reason != USER_ERROR:
        raise StateError(f"Function.{error}", cause or f"{function} answered {answer.code}")
    told = document(answer.body)
    trace = told.get("traceback") if isinstance(told, dict) else None
    lines = trace.splitlines() if isinstance(trace, str) else trace or []
    said = {"errorMessage": cause, "errorType": error, "stackTrace": lines}
    raise StateError(error, msgspec.json.encode(said).decode())
