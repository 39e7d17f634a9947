"""A log file of bounded size: when it is full it is put aside, and the oldest one put aside is forgotten."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

LARGEST = 4 * 2**20  # bytes of a file
KEPT = 3  # files, with the one that is written
NAME = "agent.log"


class BoundedFile:
    """Only its owner may read it: logs name what others need not know. One process writes, by whole lines."""

    def __init__(self, path: Path, *, largest: int = LARGEST) -> None:
        """Raises OSError."""
        self._path, self._largest = path, largest
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def write(self, line: str) -> None:
        data = line.encode(errors="backslashreplace") + b"\n"
        with suppress(OSError):  # a full disk must not stop the agent
            if self._size and self._size + len(data) > self._largest:
                self._put_aside()
            self._size += os.write(self._descriptor, data)

    def _put_aside(self) -> None:
        for number in range(KEPT - 1, 0, -1):
            with suppress(FileNotFoundError):
                _aside(self._path, number - 1).replace(_aside(self._path, number))
        os.close(self._descriptor)
        self._open()

    def close(self) -> None:
        os.close(self._descriptor)


def files(path: Path) -> list[Path]:
    """Those that are there, the oldest first, the one that is written last."""
    return [each for number in range(KEPT - 1, -1, -1) if (each := _aside(path, number)).exists()]


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


class Reader:
    """Reads a log that somebody else writes and puts aside meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._current: BinaryIO | None = None
        self._begun = b""  # a line whose end is not written yet

    def new(self) -> list[str]:
        """Whole lines that have come since the last call, the oldest first; at first all there are. Raises OSError."""
        if self._current is None:
            found = b"".join(each.read_bytes() for each in files(self._path)[:-1])
            self._current = self._path.open("rb")
        else:
            found = b""
        found += self._current.read()
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino != os.fstat(self._current.fileno()).st_ino:  # it was put aside
                found += self._current.read()
                self._current.close()
                self._current = self._path.open("rb")
                found += self._current.read()
        *lines, self._begun = (self._begun + found).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def close(self) -> None:
        if self._current is not None:
            self._current.close()
