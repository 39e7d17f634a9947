"""A loop of requests beside what a test does, to count what is lost meanwhile."""

from __future__ import annotations

import threading
import time
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple


class Failure(NamedTuple):
    at: float  # time.time() when it began
    took: float  # seconds
    why: str


class Requests:
    """`with Requests(address) as loop:` asks `http://address:port/` again and again, each time on a new connection."""

    def __init__(self, address: str, port: int = 80, *, pause: float = 0.01) -> None:
        self.address, self.port, self.pause = address, port, pause
        self.answers: dict[str, list[float]] = {}  # text -> when
        self.failures: list[Failure] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def count(self) -> int:
        return sum(len(times) for times in list(self.answers.values()))

    def last(self, text: str) -> float:
        """When the last answer with `text` came; 0 if never."""
        return max(self.answers.get(text, ()), default=0)

    def _run(self) -> None:
        while not self._end.wait(self.pause):
            began = time.time()
            connection = HTTPConnection(self.address, self.port, timeout=3)
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                text = response.read().decode().strip()
                if response.status != 200:
                    raise HTTPException(f"status {response.status}")
                self.answers.setdefault(text, []).append(time.time())
            except (OSError, HTTPException) as error:
                self.failures.append(Failure(began, time.time() - began, repr(error)))
            finally:
                connection.close()

    def __enter__(self) -> Requests:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join(10)
