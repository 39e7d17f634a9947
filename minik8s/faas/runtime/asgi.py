"""ASGI applications (asgi.readthedocs.io): what they may receive and send in a call, and around all calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import unquote

from minik8s.faas.runtime import http1
from minik8s.faas.runtime.calls import Caller, failed
from minik8s.faas.runtime.contracts import LoadError
from minik8s.faas.runtime.http1 import Gone, Incoming

_VERSIONS: Final = {"version": "3.0", "spec_version": "2.3"}


def scope_of(request: Incoming, state: dict[str, Any]) -> dict[str, Any]:
    path, _, query = request.target.partition(b"?")
    forwarded = (request.header(b"x-forwarded-for") or b"").partition(b",")[0].decode("latin-1").strip()
    host, _, port = (request.header(b"host") or b"localhost").decode("latin-1").partition(":")
    return {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": request.version,
        "method": request.method,
        "scheme": (request.header(b"x-forwarded-proto") or b"http").decode("latin-1"),
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": request.headers,
        "client": (forwarded, 0) if forwarded else None,
        "server": (host, int(port) if port.isdigit() else 80),
        "state": dict(state),
    }


class Lifespan:
    """The application's start and end, around all its calls, on the loop on which these run."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self._application = application
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.state: dict[str, Any] = {}
        self._to: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def startup(self) -> None:
        """Raises LoadError if the application says that it cannot start."""
        said = self.loop.run_until_complete(self._started())
        if said.get("type") == "lifespan.startup.failed":
            raise LoadError(f"the application's startup failed: {said.get('message', '')}")

    async def _started(self) -> dict[str, Any]:
        scope = {"type": "lifespan", "asgi": _VERSIONS, "state": self.state}
        self._task = asyncio.create_task(self._run(scope))
        return await self._ask("lifespan.startup")

    async def shutdown(self) -> None:
        await self._ask("lifespan.shutdown")

    async def _run(self, scope: dict[str, Any]) -> None:
        await self._application(scope, self._to.get, self._from.put)

    async def _ask(self, what: str) -> dict[str, Any]:
        """The application's answer; {} of one that knows no lifespan: it raises, or returns."""
        assert self._task is not None
        if self._task.done():
            return {}
        await self._to.put({"type": what})
        answer = asyncio.ensure_future(self._from.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            if not self._task.cancelled():
                self._task.exception()  # seen, as the specification has it
            return {}
        return answer.result()


class Wire(Protocol):
    """The connection of a call."""

    @property
    def lost(self) -> bool: ...
    async def more(self) -> None:
        """Wait for more of the request's body, or the connection's end."""

    async def put(self, data: bytes) -> None:
        """Raises Gone."""


class Exchange:
    """One call: what `receive` gives, and what becomes of what `send` is given."""

    def __init__(self, wire: Wire, request: Incoming, caller: Caller) -> None:
        self._wire = wire
        self._request = request
        self._caller = caller
        self._given = False  # the whole body was given
        self._start: dict[str, Any] | None = None
        self._begun = False  # the head was sent
        self._chunked = False
        self._left: int | None = None  # bytes of the length that the application has announced
        self.finished = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        request = self._request
        while not request.parts and not request.complete and not self._wire.lost:
            await self._wire.more()
        if self._given:
            while not self._wire.lost and not self.finished.is_set():
                await self._wire.more()
            return {"type": "http.disconnect"}
        if self._wire.lost and not request.complete:
            return {"type": "http.disconnect"}
        body, request.parts = request.body, []
        self._given = request.complete
        return {"type": "http.request", "body": body, "more_body": not request.complete}

    async def send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "http.response.start" and self._start is None:
            self._start = message
        elif kind == "http.response.body" and self._start is not None and not self.finished.is_set():
            await self._body(self._start, bytes(message.get("body", b"")), more=bool(message.get("more_body")))
        else:
            raise RuntimeError(f"ASGI: unexpected message {kind!r}")

    async def _body(self, start: dict[str, Any], body: bytes, *, more: bool) -> None:
        data = b""
        if not self._begun:
            data = self._head(start, None if more else len(body))
            self._begun = True
        if self._request.method == "HEAD":
            body = b""
        elif self._chunked:
            body = (http1.chunk(body) if body else b"") + (b"" if more else http1.LAST_CHUNK)
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("ASGI: the body is longer than the Content-Length that was announced")
        if not more and self._left:
            self._request.keep_alive = False  # the client waits for what does not come
        try:
            await self._wire.put(data + body)
        except Gone:
            if more:
                return  # as the specification has it: no error, the application learns it by receiving
        if not more:
            self.finished.set()

    def _head(self, start: dict[str, Any], length: int | None) -> bytes:
        """`length`: of a body that comes in one piece."""
        request = self._request
        headers = [(bytes(name).lower(), bytes(value)) for name, value in start.get("headers", ())]
        said = next((value for name, value in headers if name == b"content-length"), b"")
        if said.isdigit() and (length is None or request.method == "HEAD"):
            length = int(said)
        self._left = length if request.method != "HEAD" else None
        self._chunked = length is None and request.version != "1.0"
        if (length is None and not self._chunked) or not request.complete:
            request.keep_alive = False
        keep = [pair for pair in headers if pair[0] not in (b"content-length", b"transfer-encoding", b"connection")]
        head = http1.head(start["status"], keep, length=length, close=not request.keep_alive)
        return head if length is not None or self._chunked else head.replace(b"transfer-encoding: chunked\r\n", b"")

    async def ended(self, error: BaseException | None) -> None:
        """The application has returned, or raised."""
        if self.finished.is_set():
            return
        answer = failed(error or RuntimeError("the ASGI application returned without an answer"))
        if self._begun or not self._request.complete:
            self._request.keep_alive = False
        if not self._begun:
            await self._wire.put(self._caller.whole(answer, self._request))
