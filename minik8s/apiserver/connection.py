"""Connections that answer in Kubernetes' words also to what is no HTTP, where aiohttp would answer in its own."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from minik8s.api.errors import BadRequest, InternalError, StatusError
from minik8s.apiserver.request import error_response
from minik8s.log import get_logger

LONGEST = 200  # characters of the parser's complaint, which quotes what it has read

log = get_logger("http")


class Connection(web.RequestHandler):
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A Status, after which the connection ends. Strangers' mistakes do not fill the log; ours are told there."""
        error: StatusError
        if status < 500:
            error = BadRequest(f"this is no HTTP request: {' '.join((message or '').split())[:LONGEST]}")
        else:
            log.error("request failed", remote=request.remote, exc_info=exc)
            error = InternalError(f"an internal error occurred: {type(exc).__name__}")
        if request.writer.output_size > 0:
            raise ConnectionError("half of another answer has been sent already")
        told = error_response(error)
        response = web.Response(status=told.code, body=told.body, headers={"content-type": told.content_type})
        response.force_close()
        return response


class Server(web.Server):
    """aiohttp's, with connections of ours."""

    def __call__(self) -> Connection:
        settings: Any = self._kwargs
        return Connection(self, loop=self._loop, **settings)
