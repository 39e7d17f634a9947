"""The gateway of functions on a node: where it listens, with which certificate, and how others learn of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, closing
from typing import Any

from minik8s.aio import backoff
from minik8s.api.errors import StatusError
from minik8s.api.kinds.node import Node
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.config import Config
from minik8s.faas.gateway import ANNOTATION
from minik8s.faas.gateway.gateway import Gateway
from minik8s.log import get_logger
from minik8s.roles.identity import NodeIdentity
from minik8s.roles.kept_socket import SOCKET, KeptSocket
from minik8s.roles.listening import listening_at
from minik8s.roles.renewal import Credentials

Activity = tuple[str, Coroutine[Any, Any, Any]]
EVERYWHERE = ("", "0.0.0.0", "::")
LOOK = 30.0  # seconds between looks whether the Node still says where the gateway is
log = get_logger("gateway")


def open_gateway(config: Config, client: Client, informers: Informers) -> Gateway | None:
    """None where it is switched off."""
    if config.gateway_listen == "off" or not config.functions:
        return None
    return Gateway(client, informers, config.name, queue=config.gateway_queue)


def gateway_activities(
    config: Config, gateway: Gateway | None, client: Client, identity: NodeIdentity, credentials: Credentials
) -> list[Activity]:
    if gateway is None:
        return [("gateway", _none(client, config.name))]
    return [("gateway", gateway.run()), ("gateway clients", _serve(config, gateway, client, identity, credentials))]


async def _none(client: Client, node: str) -> None:
    """Nobody is to be led to a gateway that was here once."""
    await announce(client, node, "")
    await asyncio.Event().wait()


async def _serve(
    config: Config, gateway: Gateway, client: Client, identity: NodeIdentity, credentials: Credentials
) -> None:
    """Answer clients for ever."""
    host, port = config.gateway_address
    context = credentials.server(identity.serving, identity.ca_file) if config.gateway_tls else None
    async with AsyncExitStack() as stack:
        with listening_at(host, port, "gateway of functions", "--gateway-listen"):
            kept = stack.enter_context(closing(KeptSocket(config.path(SOCKET))))
            sock = kept.open(host, port)
        _, bound = await stack.enter_async_context(gateway.listening(sock, context))
        scheme = "https" if context else "http"
        log.info("gateway ready", address=f"{scheme}://{host}:{bound}")
        while True:  # the address may change, and the Node may be made anew
            url = f"{scheme}://{config.ip if host in EVERYWHERE else host}:{bound}"
            await announce(client, config.name, url)
            await asyncio.sleep(LOOK)


async def announce(client: Client, node: str, url: str) -> None:
    """Let a node say where its gateway is; "" for none. Returns when that is written."""
    for delay in backoff(0.2, 10.0):
        try:
            found = await client.get(Node, node)
            if found.metadata.annotations.get(ANNOTATION, "") != url:
                await client.patch(Node, node, None, {"metadata": {"annotations": {ANNOTATION: url or None}}})
            return
        except StatusError as error:
            log.debug("the gateway is not announced yet", error=str(error))
        await asyncio.sleep(delay)
