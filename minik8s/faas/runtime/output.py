"""What user code prints, in the container's log: each line behind the id of the call that printed it."""

from __future__ import annotations

import io
import os
import sys
from contextvars import ContextVar
from typing import Any, Final

MOST: Final = 4 * 2**20  # bytes of one call that are logged; the log is the node's, and shared
_LONGEST: Final = 16 * 2**10  # bytes of a line after which it is broken


class Printing:
    """One call's share of the log."""

    __slots__ = ("left", "prefix", "rest")

    def __init__(self, call: str) -> None:
        self.prefix = f"[{call}] ".encode() if call else b""
        self.left = MOST if call else sys.maxsize
        self.rest: dict[int, bytes] = {}  # by file descriptor, a line that has no end yet

    def write(self, descriptor: int, data: bytes) -> None:
        if self.left <= 0:
            return
        self.left -= len(data)
        if self.left <= 0:
            data = data[: self.left] + f"\n(the rest of the output is left out: more than {MOST} bytes)\n".encode()
        data = self.rest.pop(descriptor, b"") + data
        end = data.rfind(b"\n") + 1
        if len(data) - end < _LONGEST:
            if end < len(data):
                self.rest[descriptor] = data[end:]
        else:
            end = len(data)
        if end:
            self._put(descriptor, data[:end])

    def flush(self) -> None:
        """The call is over: lines without end end here."""
        for descriptor, data in self.rest.items():
            self._put(descriptor, data)
        self.rest.clear()

    def _put(self, descriptor: int, data: bytes) -> None:
        lines = data.split(b"\n") if len(data) > 1 else [data.rstrip(b"\n")]
        if not lines[-1] and len(lines) > 1:
            lines.pop()
        text = memoryview(b"".join(b"%b%b\n" % (self.prefix, line) for line in lines))
        try:
            while text:
                text = text[os.write(descriptor, text) :]
        except OSError:  # nobody reads the log any more, which is no fault of the code that prints
            return


class _Lines(io.RawIOBase):
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False

    def write(self, data: object) -> int:
        taken = bytes(data)  # type: ignore[call-overload]  # a buffer of any kind
        (asynchronous.get() or now[0]).write(self._descriptor, taken)
        return len(taken)


# Where code is synchronous one call runs at a time, and its threads print for it; else each task has its own.
now: list[Printing] = [Printing("")]
asynchronous: ContextVar[Printing | None] = ContextVar("asynchronous", default=None)


def capture() -> None:
    """From now on sys.stdout and sys.stderr of this process go through here."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw: Any = _Lines(descriptor)  # a raw stream will do, whatever the type says
        setattr(sys, name, io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True))


def report(text: str) -> None:
    """The traceback of an error that the code has raised, in the log."""
    (asynchronous.get() or now[0]).write(2, text.encode(errors="backslashreplace"))
