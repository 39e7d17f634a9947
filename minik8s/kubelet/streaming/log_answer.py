"""A container's log as the answer to a request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from minik8s.kubelet.streaming.logs import LogOptions, limited, send_batched
from minik8s.kubelet.trouble import engine_trouble
from minik8s.log import get_logger
from minik8s.runtime.base import Runtime, RuntimeFailure

log = get_logger("kubelet")


async def answer_log(
    request: web.Request, runtime: Runtime, container_id: str, options: LogOptions
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/plain"})
    with engine_trouble():
        async with runtime.logs(
            container_id, follow=options.follow, tail=options.tail, since=options.since, timestamps=options.timestamps
        ) as lines:
            await response.prepare(request)
            await _send(request, response, limited(lines, options.limit))
    return response


async def _send(request: web.Request, response: web.StreamResponse, pieces: AsyncGenerator[bytes, None]) -> None:
    """A client that has gone is no error; an engine that has must not look like the log's end."""
    async with aclosing(pieces):
        try:
            await send_batched(pieces, response.write)
        except* ConnectionError:
            pass
        except* RuntimeFailure as group:
            log.warning(
                "a log broke off",
                path=request.path,
                error=str(group.exceptions[0]),
                remedy="ask for it again once the container engine answers ('minik8s doctor')",
            )
            if request.transport is not None:
                request.transport.abort()
