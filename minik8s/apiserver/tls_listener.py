"""Listens, accepts, and lets each client shake hands: `loop.create_server` for our own TLS transport."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

from minik8s.apiserver.tls_transport import TlsTransport

BACKLOG = 1024
AT_ONCE = 64  # connections that are accepted before others have their turn
PAUSE = 1.0  # seconds without accepting when the process or the machine has no room for another
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class TlsListener:
    """`make` makes the protocol of a connection whose handshake has succeeded; from then on that ends it."""

    def __init__(self, context: ssl.SSLContext, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._make = make
        self._clients: set[TlsTransport] = set()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._settled: asyncio.Future[None] | None = None  # once it is waited for: nobody shakes hands any more
        self.sockets: list[socket.socket] = []

    async def listen(self, host: str | None, port: int) -> None:
        """At all addresses of `host`, None for those of the machine. OSError if one cannot be had."""
        kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
        found = await self._loop.getaddrinfo(host or None, port, type=kind, flags=passive)
        places = sorted({(family, address) for family, _, _, _, address in found})
        for sock in [socket.create_server(address, family=family, backlog=BACKLOG) for family, address in places]:
            self.adopt(sock)

    def adopt(self, sock: socket.socket) -> None:
        """One that listens already."""
        sock.setblocking(False)
        self.sockets.append(sock)
        self._resume(sock)

    async def finish(self, seconds: float) -> None:
        """Accept nobody any more. Who shakes hands believes to be heard, and has so many seconds to end it."""
        self._deafen()
        self._settled = self._loop.create_future()
        self._settle()
        await asyncio.wait([self._settled], timeout=seconds)
        self.close()

    def close(self) -> None:
        """Accept nobody any more, and give up those who still shake hands."""
        self._deafen()
        for client in self._clients:
            if client.shaking:
                client.abort()

    def _deafen(self) -> None:
        for sock in self.sockets:
            if sock.fileno() >= 0:
                self._loop.remove_reader(sock.fileno())
                sock.close()
        for pause in self._pauses.values():
            pause.cancel()

    def _resume(self, sock: socket.socket) -> None:
        self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                client, peer = sock.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in _SCARCE:
                    raise
                self._loop.remove_reader(sock.fileno())
                self._pauses[sock] = self._loop.call_later(PAUSE, self._resume, sock)
                return
            self._greet(client, peer)

    def _greet(self, client: socket.socket, peer: object) -> None:
        try:
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = self._context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        except OSError:  # it has gone already
            client.close()
            return
        self._clients.add(TlsTransport(sock, peer, self._agreed, self._over))

    def _agreed(self) -> asyncio.BaseProtocol:
        self._settle()
        return self._make()

    def _over(self, client: TlsTransport) -> None:
        self._clients.discard(client)
        self._settle()

    def _settle(self) -> None:
        settled = self._settled
        if settled is not None and not settled.done() and not any(client.shaking for client in self._clients):
            settled.set_result(None)
