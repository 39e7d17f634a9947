"""Between an agent and its Docker Engine: a wire that tests can cut, hang and mend."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ENGINE = "/var/run/docker.sock"
CHUNK = 64 * 1024
EVENTS = b"/events?"


@dataclass(eq=False)
class _Wire:
    """One connection of the agent, and ours to the engine in its stead."""

    near: socket.socket
    far: socket.socket
    follows_events: bool = False

    def cut(self) -> None:
        for end in (self.near, self.far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class EngineProxy:
    """Listens at `path`. Threads, so that it works whatever the test waits for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wires: set[_Wire] = set()
        self._refusing = False
        self._flowing = threading.Event()
        self._flowing.set()

    def __enter__(self) -> EngineProxy:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._flowing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    # -- faults

    def cut_events(self) -> int:
        """End the event stream; returns how many there were."""
        streams = [wire for wire in list(self._wires) if wire.follows_events]
        for wire in streams:
            wire.cut()
        return len(streams)

    def cut(self) -> None:
        """End every connection."""
        for wire in list(self._wires):
            wire.cut()

    def refuse(self) -> None:
        """Be away: end every connection, and new ones at once."""
        self._refusing = True
        self.cut()

    def hang(self) -> None:
        """Answer nothing, and say nothing of it."""
        self._flowing.clear()

    def mend(self) -> None:
        self._refusing = False
        self._flowing.set()

    # -- the wire

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(ENGINE)
            except OSError:
                near.close()
                continue
            wire = _Wire(near, far)
            self._wires.add(wire)
            threading.Thread(target=self._ask, args=(wire,), daemon=True).start()
            threading.Thread(target=self._answer, args=(wire,), daemon=True).start()

    def _ask(self, wire: _Wire) -> None:
        with suppress(OSError):
            while data := wire.near.recv(CHUNK):
                wire.follows_events = wire.follows_events or EVENTS in data.partition(b"\r\n")[0]
                wire.far.sendall(data)
            wire.far.shutdown(socket.SHUT_WR)  # stdin of an exec has ended; its output goes on

    def _answer(self, wire: _Wire) -> None:
        with suppress(OSError):
            while data := wire.far.recv(CHUNK):
                self._flowing.wait()
                wire.near.sendall(data)
        self._wires.discard(wire)
        wire.cut()
        wire.near.close()
        wire.far.close()
