"""One call, whoever performs it: is it meant for this revision, what does the code say, and how it is sent."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from minik8s.faas.runtime import http1, output
from minik8s.faas.runtime.answers import Answer, call, failure, render, traceback_of
from minik8s.faas.runtime.contracts import Contract
from minik8s.faas.runtime.http1 import Header, Incoming
from minik8s.faas.runtime.serverless import BadParameters, Request
from minik8s.faas.runtime.settings import Settings

NOT_LOADED: Header = (b"minik8s-runtime", b"not-loaded")


class Caller:
    def __init__(self, contract: Contract, settings: Settings) -> None:
        self.contract = contract
        self.settings = settings
        self._revision = settings.revision.encode()

    def refusal(self, request: Incoming) -> bytes | None:
        """The answer to what another process must serve. Nothing is run, and the connection ends."""
        revision = request.header(b"minik8s-revision")
        if request.target.startswith(b"/-/"):
            return http1.json_answer(404, {"error": "NotFound", "message": "ask this on a new connection"}, close=True)
        if revision is not None and revision != self._revision:
            return not_loaded(revision.decode("latin-1"))
        return None

    def call_id(self, request: Incoming) -> str:
        if not request.call:
            given = request.header(b"minik8s-call")
            request.call = given.decode("latin-1")[:64] if given else os.urandom(8).hex()
        return request.call

    def request(self, request: Incoming) -> Request:
        return Request(request.method, request.target, request.headers, request.body, self.call_id(request))

    def answer(self, request: Incoming, deadline: float) -> Answer:
        """Of code that blocks."""
        made = self._application if self.contract.name == "wsgi" else self._called
        return self.guarded(lambda: made(request, deadline))  # type: ignore[no-any-return]  # the Answer of either

    def _application(self, request: Incoming, deadline: float) -> Answer:
        from minik8s.faas.runtime.wsgi import run

        return run(self.contract.target, self.request(request))

    def _called(self, request: Incoming, deadline: float) -> Answer:
        result = call(self.contract, self.settings, self.request(request), deadline)
        if type(result) is not dict and inspect.isawaitable(result):  # a plain function that returns a coroutine
            import asyncio

            result = asyncio.run(_awaited(result))
        return render(result, self.contract, self.settings)

    def guarded(self, do: Callable[[], Any]) -> Any:
        """What the code does, or the Answer that tells of its error."""
        try:
            return do()
        except BaseException as error:  # the code's own, sys.exit() among them
            return failed(error)

    def whole(self, answer: Answer, request: Incoming) -> bytes:
        """A HTTP answer of one piece."""
        assert isinstance(answer.body, bytes)
        try:
            return http1.whole(
                answer.status, answer.headers, answer.body, close=not request.keep_alive, method=request.method
            )
        except ValueError as error:  # a header of the code's
            return self.whole(failure(error), request)

    def head(self, answer: Answer, request: Incoming, *, close: bool, chunked: bool) -> bytes:
        """The head of an answer that comes in pieces."""
        head = http1.head(answer.status, answer.headers, length=None, close=close)
        return head if chunked else head.replace(b"transfer-encoding: chunked\r\n", b"")


def not_loaded(revision: str) -> bytes:
    text = {"error": "NotLoaded", "message": f"revision {revision!r} is not loaded here; nothing was run"}
    return http1.json_answer(404, text, [NOT_LOADED], close=True)


def failed(error: BaseException) -> Answer:
    """The answer to an error of the code's, which stands in the log, too, unless it is the client's fault."""
    if not isinstance(error, BadParameters):
        output.report(traceback_of(error))
    return failure(error)


async def _awaited(result: Any) -> Any:
    return await result
