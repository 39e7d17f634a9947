"""Port forwarding: each local connection is carried by a WebSocket of its own (v4.channel.k8s.io).

Channel 0 is data, channel 1 an error in words; the first message of each only repeats the port (two bytes).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence

import aiohttp
import click

from minik8s.api.errors import StatusError
from minik8s.cli.channels import websocket
from minik8s.cli.wire import Credentials

PROTOCOLS = ("v4.channel.k8s.io",)
DATA, ERROR = 0, 1
CHUNK = 32 * 1024  # bytes in a message
LINGER = 5.0  # seconds of silence until a connection whose client has said its last is closed: there is no half-close


class Forwarding:
    """`run` listens until it is cancelled."""

    def __init__(
        self, credentials: Credentials, path: str, hosts: Sequence[str], pairs: Sequence[tuple[int, int]], *,
        tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._credentials, self._path, self._hosts, self._pairs, self._tell = credentials, path, hosts, pairs, tell

    async def run(self) -> None:
        servers = [server for local, remote in self._pairs for server in await self._listen(local, remote)]
        try:
            await asyncio.gather(*(server.serve_forever() for server in servers))
        finally:
            for server in servers:
                server.close()

    async def _listen(self, local: int, remote: int) -> list[asyncio.Server]:
        """One server per address; where a host has no IPv6, IPv4 alone is enough."""
        servers: list[asyncio.Server] = []
        for host in self._hosts:
            try:
                server = await asyncio.start_server(lambda r, w: self._carry(r, w, remote), host, local)
            except OSError as error:
                if servers and host == "::1" and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue
                why = error.strerror or str(error)
                raise click.ClickException(
                    f"cannot listen on {host}:{local}: {why}; another port: {local + 1}:{remote}"
                ) from None
            local = server.sockets[0].getsockname()[1]
            shown = f"[{host}]" if ":" in host else host
            self._tell(f"Forwarding from {shown}:{local} -> {remote}")
            servers.append(server)
        return servers

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, remote: int) -> None:
        self._tell(f"Handling connection for {remote}")
        try:
            async with websocket(self._credentials, self._path, [("ports", str(remote))], PROTOCOLS) as socket:
                heard = asyncio.Event()
                sending = asyncio.create_task(self._send(reader, socket, heard))
                try:
                    await self._receive(socket, writer, heard)
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
        except (StatusError, click.ClickException) as error:
            click.echo(f"error: forwarding to port {remote}: {error}", err=True)
        except ConnectionError:
            pass  # either side has had enough
        finally:
            writer.close()

    @staticmethod
    async def _send(
        reader: asyncio.StreamReader, socket: aiohttp.ClientWebSocketResponse, heard: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK):
            await socket.send_bytes(bytes([DATA]) + data)
        try:
            while True:
                heard.clear()
                async with asyncio.timeout(LINGER):
                    await heard.wait()
        except TimeoutError:
            await socket.close()

    @staticmethod
    async def _receive(
        socket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter, heard: asyncio.Event
    ) -> None:
        begun: set[int] = set()
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel not in begun:
                begun.add(channel)  # the port, which we know
                continue
            heard.set()
            if channel == DATA:
                writer.write(data)
                await writer.drain()
            elif channel == ERROR and data:
                raise click.ClickException(data.decode(errors="replace"))
