"""As little HTTP/1.1 over TLS as a load generator can do with: requests as bytes, one asyncio protocol, one socket."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

OBJECT_SIZE = 1024  # bytes of a ConfigMap as JSON


def context(ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)


def request(method: str, path: str, token: str, body: bytes = b"", accept: str = "application/json") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"authorization: Bearer {token}", f"accept: {accept}"]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def config_map(name: str, data: dict[str, str] | None = None) -> bytes:
    """A ConfigMap of exactly OBJECT_SIZE bytes."""
    obj: dict[str, Any] = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {**(data or {}), "filling": ""},
    }  # fmt: skip
    obj["data"]["filling"] = "x" * (OBJECT_SIZE - len(json.dumps(obj)))
    return json.dumps(obj).encode()


def length(head: bytes) -> int:
    """The content-length in the head of a response."""
    at = head.lower().index(b"content-length:") + 15
    end = head.find(b"\r", at)
    return int(head[at : end if end > 0 else len(head)])


class Answers:
    """What came back: a latency in seconds for each request, and those that were not answered with 2xx."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failed: list[str] = []

    def note(self, head: bytes, seconds: float) -> None:
        self.seconds.append(seconds)
        if head[9:10] != b"2":
            self.failed.append(head[9:60].decode(errors="replace"))


class Exchange(asyncio.Protocol):
    """A connection that always has one request under way, until `requests` ends."""

    def __init__(self, requests: Iterator[bytes], answers: Answers) -> None:
        self._requests = requests
        self._answers = answers
        self._rest = b""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are none by inheritance

    def next(self) -> None:
        try:
            message = next(self._requests)
        except StopIteration:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < end + 4 + length(data[:end]):
            self._rest = data
            return
        self._rest = b""
        self._answers.note(data[:end], time.perf_counter() - self._sent)
        self.next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)
            if error is not None:
                self._answers.failed.append(str(error))


class Stream(asyncio.Protocol):
    """A connection that sends a message and hands on whatever comes, chunk by chunk."""

    def __init__(self, message: bytes, chunks: Callable[[bytes], None]) -> None:
        self._message = message
        self._chunks = chunks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        self._chunks(data)


class Serial:
    """One client that does one thing after the other on a blocking socket: the least latency there is."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        plain = socket.create_connection(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = tls.wrap_socket(plain, server_hostname="localhost")
        self._buffer = bytearray(16 * 1024 * 1024)

    def exchange(self, message: bytes, answers: Answers) -> bytes:
        """Send, wait for all of the answer; its body."""
        buffer = memoryview(self._buffer)
        begun = time.perf_counter()
        self._sock.sendall(message)
        got, end = 0, -1
        while end < 0:
            got += self._read(buffer[got:])
            end = self._buffer.find(b"\r\n\r\n", 0, got)
        total = end + 4 + length(self._buffer[:end])
        while got < total:
            got += self._read(buffer[got:])
        answers.note(bytes(buffer[:end]), time.perf_counter() - begun)
        return bytes(buffer[end + 4 : total])

    def _read(self, into: memoryview) -> int:
        got = self._sock.recv_into(into)
        if not got:
            raise ConnectionError("the server has closed the connection")
        return got

    def close(self) -> None:
        self._sock.close()


class Others:
    """Watchers that are there to be served: what they get is thrown away, undecrypted, every PERIOD and not at each
    arrival, as if they were on other machines. `sizes` is what each has got, in bytes."""

    PERIOD = 0.02  # seconds

    def __init__(self) -> None:
        self._socks: list[socket.socket] = []
        self.sizes: list[int] = []
        self._buffer = bytearray(1024 * 1024)

    def add(self, port: int, tls: ssl.SSLContext, opening: bytes) -> None:
        with tls.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost") as shaken:
            shaken.sendall(opening)
            sock = socket.socket(fileno=shaken.detach())
        sock.setblocking(False)
        self._socks.append(sock)
        self.sizes.append(0)

    def empty(self) -> None:
        for number, sock in enumerate(self._socks):
            with suppress(BlockingIOError):
                self.sizes[number] += sock.recv_into(self._buffer)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self.empty()
        self.close()

    async def _run(self) -> None:
        while True:
            self.empty()
            await asyncio.sleep(self.PERIOD)

    def close(self) -> None:
        for sock in self._socks:
            sock.close()


def send_seconds(serving: tuple[Path, Path], ca: str, *, clients: int = 100, times: int = 100) -> float:
    """Processor time to send an event of a ConfigMap to one of many clients: TLS and TCP, and nothing else."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*serving)
    others, ours = Others(), []
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as greeter:
        for _ in range(clients):
            greeted = greeter.submit(lambda: tls.wrap_socket(listener.accept()[0], server_side=True))
            others.add(listener.getsockname()[1], context(ca), b"")
            ours.append(greeted.result())
    event, spent = b"x" * (OBJECT_SIZE + 300), 0.0
    for _ in range(times):
        begun = time.thread_time()
        for sock in ours:
            sock.send(event)
        spent += time.thread_time() - begun
        others.empty()
    others.close()
    for sock in ours:
        sock.close()
    return spent / clients / times
