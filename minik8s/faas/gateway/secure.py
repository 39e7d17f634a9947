"""TLS on a socket that listens, as asyncio's servers do it, but that who speaks plain HTTP there is told so.

OpenSSL hangs up without a word on what is no TLS. So the first byte is looked at before it is asked: TLS begins with a
record of the type handshake, which is 22 (RFC 8446, 5.1).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from minik8s.log import get_logger

HANDSHAKE = b"\x16"
HANDSHAKE_TIMEOUT = 10.0  # seconds for the first byte, and as many for the handshake
LINGER = 1.0  # seconds for a client that is still sending to read that it was refused
LAST_HANDSHAKES = 0.5  # seconds that those under way have when the listener ends
FULL = 1.0  # seconds of rest when this process has no file descriptor left
TOLD = b"Client sent an HTTP request to an HTTPS server: call https:// with the cluster's CA (pki/ca.crt).\n"
PLAIN = (b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
         b"Content-Length: %d\r\n\r\n%b" % (len(TOLD), TOLD))  # fmt: skip
Factory = Callable[[], asyncio.BaseProtocol]
log = get_logger("gateway")


@asynccontextmanager
async def listening(sock: socket.socket, clients: Factory, context: ssl.SSLContext) -> AsyncIterator[None]:
    """Accept connections as long as the body runs; the socket is closed at its end, connections stay."""
    sock.setblocking(False)
    admitted: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as tasks:

        def admit(connection: socket.socket) -> None:
            task = tasks.create_task(_admit(connection, clients, context))
            admitted.add(task)
            task.add_done_callback(admitted.discard)

        accepting = tasks.create_task(_accept(sock, admit))
        try:
            yield
        finally:
            accepting.cancel()
            await asyncio.wait([accepting])
            sock.close()
            if admitted:  # who has begun to speak believes to be heard
                await asyncio.wait(admitted, timeout=LAST_HANDSHAKES)
            for task in admitted:
                task.cancel()


async def _accept(sock: socket.socket, admit: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            connection, _ = await asyncio.get_running_loop().sock_accept(sock)
        except ConnectionError:
            continue  # it has gone while it waited
        except OSError as error:
            log.warning("no connection can be accepted", error=str(error))
            await asyncio.sleep(FULL)
        else:
            admit(connection)


async def _admit(connection: socket.socket, clients: Factory, context: ssl.SSLContext) -> None:
    with suppress(OSError):  # also of TLS: whoever it was has no answer of ours
        if await _speaks_tls(connection):  # from here on it is the transport's to close
            await asyncio.get_running_loop().connect_accepted_socket(
                clients, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
            )


async def _speaks_tls(connection: socket.socket) -> bool:
    """Who does not is told so, and its connection closed. Raises OSError for one that says nothing."""
    try:
        first = await _first_byte(connection)
        if first == HANDSHAKE:
            return True
        if first:
            await _refuse(connection)
    except BaseException:
        connection.close()
        raise
    connection.close()
    return False


async def _first_byte(connection: socket.socket) -> bytes:
    """It stays to be read. b"" from a client that has nothing to say. Raises TimeoutError."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            await readable.wait()
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)


async def _refuse(connection: socket.socket) -> None:
    """What is closed with something unread is reset, and its last words are lost."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, PLAIN)
    connection.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(LINGER):
        while await loop.sock_recv(connection, 65536):
            pass
