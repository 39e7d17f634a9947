"""As little HTTP/1.1 over TLS as a load generator can do with: requests as bytes, one asyncio protocol, one socket."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
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
