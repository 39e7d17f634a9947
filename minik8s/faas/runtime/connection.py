"""The supervisor's view of one connection: at the door, in conversation, lingering, or lent to a worker."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

from minik8s.faas.runtime.http1 import MAX_HEAD, Reader

if TYPE_CHECKING:
    from minik8s.faas.runtime.revision import Worker

LINGER: Final = 2.0  # seconds for which what a client still sends is thrown away, so that it can read its answer
_CLOSE_WAIT: Final = 8  # of the kernel's states of TCP: the client will send no more
_SEP: Final = b"\r\n\r\n"
_HEADER: Final = b"\nminik8s-revision:"


class Connection:
    """`slot` is its place on the board. `reader` is there while the supervisor itself is spoken to."""

    __slots__ = ("reader", "slot", "sock", "until", "worker")

    def __init__(self, sock: socket.socket, slot: int) -> None:
        self.sock = sock
        self.slot = slot
        self.worker: Worker | None = None
        self.reader: Reader | None = None
        self.until = 0.0  # when a lingering one is closed

    def peek(self) -> bytes | None:
        """What has come, without taking it, if a whole head is there; b"" at the end of the connection."""
        try:
            data = self.sock.recv(MAX_HEAD, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        if not data or _SEP in data or len(data) == MAX_HEAD:
            return data
        return b"" if self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSE_WAIT else None

    def say(self, data: bytes) -> None:
        """Answers of the supervisor's are small: what the kernel does not take at once is not sent."""
        with contextlib.suppress(OSError):
            self.sock.send(data, socket.MSG_DONTWAIT)

    def take(self) -> bytes | None:
        """What has come; None if there is nothing now, b"" at the end."""
        try:
            return self.sock.recv(MAX_HEAD * 4, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # also for copies in processes that have not noticed yet
        self.sock.close()


def wanted(head: bytes) -> tuple[bool, str]:
    """Of the peeked start of a request: whether it is for the supervisor itself, and the revision it names."""
    line = head[: head.find(b"\r\n")]
    if line.partition(b" ")[2].startswith(b"/-/"):
        return True, ""
    start = head[: head.find(_SEP) + 2].lower()
    at = start.find(_HEADER)
    if at < 0:
        return False, ""
    at += len(_HEADER)
    return False, head[at : head.find(b"\r\n", at)].strip().decode("latin-1")
