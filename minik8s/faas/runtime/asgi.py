"""ASGI applications (asgi.readthedocs.io): what they are told of a request, and their lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

from minik8s.faas.runtime.contracts import LoadError
from minik8s.faas.runtime.http1 import Incoming

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
