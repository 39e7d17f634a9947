"""One gRPC health check over plain HTTP/2, by hand: a unary call needs four frames, not a library.

The answer is judged by its message alone: grpc.health.v1.HealthCheckResponse with status SERVING is `08 01`. A refusal
comes as trailers without a message, so no header compression has to be understood. RFC 9113, grpc.io PROTOCOL-HTTP2.
"""

from __future__ import annotations

import asyncio
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS, ACK, PADDED = 1, 4, 1, 8
STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
LIMIT = 1 << 16  # bytes of one frame that we are willing to read


class HealthCheckFailed(Exception):
    """The server answered, and not with SERVING."""


async def check(host: str, port: int, service: str) -> None:
    """Return if the service is SERVING; HealthCheckFailed or OSError otherwise. The caller sets the time limit."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(_request(f"{host}:{port}", service))
        message = await _message(reader, writer)
    except asyncio.IncompleteReadError:
        raise HealthCheckFailed("the server closed the connection") from None
    finally:
        writer.close()
    status = message[1] if len(message) >= 2 and message[0] == 8 else 0
    if status != 1:
        raise HealthCheckFailed(f"service unhealthy (responded with {STATUS.get(status, str(status))!r})")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _header(name: str, value: str) -> bytes:
    """A literal header field without indexing, no Huffman code (RFC 7541, 6.2.2); lengths under 127."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _request(authority: str, service: str) -> bytes:
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "kube-probe/minik8s"),
    )
    name = service.encode()[:120]
    message = b"\x0a" + bytes([len(name)]) + name if name else b""
    body = b"\x00" + struct.pack(">I", len(message)) + message
    return b"".join(
        (
            PREFACE,
            _frame(SETTINGS, 0, 0, b""),
            _frame(HEADERS, END_HEADERS, 1, b"".join(_header(*field) for field in fields)),
            _frame(DATA, END_STREAM, 1, body),
        )
    )


async def _message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The first message of stream 1."""
    data = b""
    while True:
        head = await reader.readexactly(9)
        length, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
        stream = int.from_bytes(head[5:]) & 0x7FFFFFFF
        if length > LIMIT:
            raise HealthCheckFailed("the answer is not HTTP/2")
        payload = await reader.readexactly(length)
        if kind == SETTINGS and not flags & ACK:
            writer.write(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            writer.write(_frame(PING, ACK, 0, payload))
        elif kind == GOAWAY or (kind == RST_STREAM and stream == 1):
            raise HealthCheckFailed("the server refused the call")
        elif stream == 1 and kind == DATA:
            data += payload[1 : len(payload) - payload[0]] if flags & PADDED else payload
            if len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[1:5]):
                return data[5 : 5 + int.from_bytes(data[1:5])]
        if stream == 1 and kind in (DATA, HEADERS) and flags & END_STREAM:
            raise HealthCheckFailed("the server does not implement the grpc health protocol for this service")
