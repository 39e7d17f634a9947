"""The way between supervisor and worker: a packet is a small JSON object, with a connection where one is lent."""

from __future__ import annotations

import json
import os
import socket
from typing import Any


def tell(channel: socket.socket, **what: object) -> None:
    """Of a worker, to the supervisor, which always listens."""
    channel.send(json.dumps(what).encode())


def receive(channel: socket.socket) -> tuple[dict[str, Any], socket.socket | None] | None:
    """The supervisor's next message, with the connection in it if it is one; None once there is no supervisor."""
    data, descriptors, _, _ = socket.recv_fds(channel, 4096, 4)
    if not data:
        return None
    return json.loads(data), socket.socket(fileno=descriptors[0]) if descriptors else None


def lend(channel: socket.socket, slot: int, sock: socket.socket) -> None:
    """Raises OSError where the worker's buffer is full."""
    socket.send_fds(channel, [json.dumps({"slot": slot}).encode()], [sock.fileno()])


def give_job(channel: socket.socket, data: bytes, **what: object) -> None:
    """To a spare worker: `data` are settings and archive, as they were put. Raises OSError."""
    memory = os.memfd_create("job", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(data)
        socket.send_fds(channel, [json.dumps(what).encode()], [memory])
    finally:
        os.close(memory)


def receive_job(channel: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """Of a spare worker: what it is to load; None once there is no supervisor, or nothing will come."""
    told, descriptors, _, _ = socket.recv_fds(channel, 4096, 1)
    if not descriptors:
        return None
    with open(descriptors[0], "rb") as file:
        file.seek(0)
        return json.loads(told), file.read()
