"""A listener that speaks TLS: who speaks something else is told, and nobody holds up others by saying nothing."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from minik8s.apiserver import tls_transport
from minik8s.apiserver.tls_listener import TlsListener
from minik8s.config import Config
from minik8s.roles.identity import client_context, master_identity, server_context


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Place(NamedTuple):
    port: int
    config: Config
    context: ssl.SSLContext  # of the server
    listener: TlsListener


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    config = Config(data_dir=folder, node_name="n1", node_ip="127.0.0.1")
    identity = master_identity(config)
    context = server_context(identity.serving, identity.ca_file)
    sock = socket.create_server(("127.0.0.1", 0))
    listener = TlsListener(context, Echo)
    listener.adopt(sock)
    yield Place(sock.getsockname()[1], config, context, listener)
    await listener.finish(0.5)


async def shown(at: Place) -> bytes:
    """What an echo over TLS comes back with; the certificate is verified, and is given."""
    context = client_context(at.config.path("pki", "ca.crt"), None)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port, ssl=context)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return bytes(certificate)


async def test_tls_is_spoken_with_a_certificate_that_may_change(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        first = await shown(at)
        assert await shown(at) == first
        at.config.path("pki", "apiserver.crt").unlink()
        at.context.load_cert_chain(*master_identity(at.config).serving)
        assert await shown(at) != first


async def test_plain_http_is_told_so_however_much_of_it_comes(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        for request in (b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n" + 1_000_000 * b"x", b"\0"):
            reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
            writer.write(request)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"Client sent an HTTP request to an HTTPS server" in answer
            writer.close()


async def test_who_is_silent_goes_or_breaks_off_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_transport, "HANDSHAKE_TIMEOUT", 0.2)
    async with place(tmp_path) as at:
        silent = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(20)]
        gone = await asyncio.open_connection("127.0.0.1", at.port)
        gone[1].transport.abort()
        half = await asyncio.open_connection("127.0.0.1", at.port)
        half[1].write(tls_transport.HANDSHAKE)
        broken = await asyncio.open_connection("127.0.0.1", at.port)
        broken[1].write(tls_transport.HANDSHAKE + 100 * b"?")
        await shown(at)
        for reader, writer in (*silent, half):
            assert await reader.read() == b""  # given up
            writer.close()
        with suppress(ConnectionResetError):  # an alert, or the end before all was read
            await broken[0].read()
        broken[1].close()
        await shown(at)


async def test_who_shakes_hands_is_waited_for_and_nobody_else(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        begun = asyncio.get_running_loop().time()
        silent = await asyncio.open_connection("127.0.0.1", at.port)
        context = client_context(at.config.path("pki", "ca.crt"), None)
        sides = ssl.MemoryBIO(), ssl.MemoryBIO()
        half = context.wrap_bio(*sides, server_hostname="127.0.0.1")
        with suppress(ssl.SSLWantReadError):
            half.do_handshake()
        await shown(at)  # so the others have been accepted
        finishing = asyncio.create_task(at.listener.finish(60))
        await asyncio.sleep(0)
        assert not finishing.done()
        silent[1].write(sides[1].read())
        while True:
            sides[0].write(await silent[0].read(65536))
            with suppress(ssl.SSLWantReadError):
                half.do_handshake()
                break
        silent[1].write(sides[1].read())
        await finishing
        assert asyncio.get_running_loop().time() - begun < 30
        half.write(b"heard")
        silent[1].write(sides[1].read())
        sides[0].write(await silent[0].read(65536))
        silent[1].close()


async def test_connections_outlive_the_listener(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        context = client_context(at.config.path("pki", "ca.crt"), None)
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port, ssl=context)
    writer.write(b"still")
    assert await reader.readexactly(5) == b"still"
    writer.close()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", at.port)
