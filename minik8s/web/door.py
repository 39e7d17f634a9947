"""Listens for browsers. Until the first one comes the dashboard is a mere socket: its code is read only then."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from minik8s.aio import supervise
from minik8s.client.base import Transport
from minik8s.log import get_logger
from minik8s.web.history import History, collect
from minik8s.web.settings import Settings

TAKEN_PAUSE = 30.0  # seconds between tries for a port that somebody else has
log = get_logger("dashboard")


async def serve(
    host: str, port: int, settings: Settings, transport: Transport, *, tls: ssl.SSLContext | None = None
) -> None:
    """Serve for ever. `transport` reads the metrics of which the history is made.

    A port that cannot be had is no fault of the cluster: it is told once, and tried again.
    """
    history = History()
    with await _listening(host, port) as listener:
        log.info(
            "dashboard ready", url=f"{'https' if tls else 'http'}://{host or '0.0.0.0'}:{listener.getsockname()[1]}"
        )
        await supervise([
            ("dashboard", _serve(listener, settings, history, tls)),
            ("usage history", collect(history, transport)),
        ])  # fmt: skip


async def _listening(host: str, port: int) -> socket.socket:
    told = False
    while True:
        try:
            return _listen(host, port)
        except OSError as error:
            if not told:
                remedy = "--dashboard-listen chooses another address, 'off' does without it"
                log.warning(
                    "the dashboard cannot listen", address=f"{host}:{port}", error=error.strerror, remedy=remedy
                )
            told = True
            await asyncio.sleep(TAKEN_PAUSE)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((host, port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


async def _serve(listener: socket.socket, settings: Settings, history: History, tls: ssl.SSLContext | None) -> None:
    await _somebody(listener)
    web, site = await asyncio.to_thread(_load)
    runner = web.AppRunner(site.Site(settings, history).application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, ssl_context=tls).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _load() -> tuple[Any, Any]:
    from aiohttp import web

    from minik8s.web import site

    return web, site


async def _somebody(listener: socket.socket) -> None:
    """Return when the first connection waits to be accepted."""
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(listener.fileno(), came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(listener.fileno())
