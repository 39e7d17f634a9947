"""A queue of keys to look at, with three sets: queued, processing, dirty.

A key is in the queue at most once and never worked on twice at the same time; one that is added while it is being
worked on becomes dirty and is queued again when it is done. So many events collapse into one look, and none is lost.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import Iterator
from weakref import WeakSet

from minik8s.metrics import Counter, Histogram, Number, Reading, labels

BASE_DELAY = 0.005  # seconds; client-go's DefaultControllerRateLimiter
MAX_DELAY = 60.0  # seconds; client-go waits up to 1000 s, too long for people who watch


_LABELS = ("name",)
_BOUNDS = (1e-5, 1e-4, 0.001, 0.01, 0.1, 1.0, 10.0)  # seconds; client-go's are powers of ten as well
_ADDS = Counter("workqueue_adds_total", "Keys added to a queue.", _LABELS)
_RETRIES = Counter("workqueue_retries_total", "Keys that are to be tried again after a failure.", _LABELS)
_WAITED = Histogram("workqueue_queue_duration_seconds", "Time that keys wait in a queue.", _LABELS, bounds=_BOUNDS)
_WORKED = Histogram("workqueue_work_duration_seconds", "Time that keys are worked on.", _LABELS, bounds=_BOUNDS)


class WorkQueue:
    """One with a `name` is counted under it; those of the same name are counted together."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._since: dict[str, float] = {}  # when a key was queued, or taken up; only of a queue that is counted
        self._counters = tuple(metric.labels(name) for metric in (_ADDS, _RETRIES)) if name else ()
        self._times = tuple(metric.labels(name) for metric in (_WAITED, _WORKED)) if name else ()
        if name:
            _NAMED.add(self)
        self._ready: deque[str] = deque()
        self._queued: set[str] = set()
        self._processing: set[str] = set()
        self._dirty: set[str] = set()
        self._failures: dict[str, int] = {}
        self._later: list[tuple[float, int, str]] = []
        self._due: dict[str, float] = {}
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None
        self._getters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Keys that wait now (not those that are being worked on or are due later)."""
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being worked on; delayed keys do not count."""
        return not self._ready and not self._processing

    def add(self, key: str) -> None:
        if key in self._processing:
            self._dirty.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.append(key)
            if self.name:
                self._counters[0].inc()
                self._since[key] = time.perf_counter()
            self._wake_next()

    def add_after(self, key: str, delay: float) -> None:
        """Add after `delay` seconds; of several delays for one key the earliest counts."""
        if delay <= 0:
            self.add(key)
            return
        due = asyncio.get_running_loop().time() + delay
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._later, (due, self._sequence, key))
        self._schedule()

    def add_rate_limited(self, key: str) -> float:
        """Add after a delay that doubles with each failure since `forget`; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        if self.name:
            self._counters[1].inc()
        delay = min(BASE_DELAY * 2.0 ** min(failures, 30), MAX_DELAY) * (0.75 + random.random() / 4)
        self.add_after(key, delay)
        return delay

    def failures(self, key: str) -> int:
        return self._failures.get(key, 0)

    def forget(self, key: str) -> None:
        self._failures.pop(key, None)

    async def get(self) -> str:
        """The next key; it must be given back with `done`."""
        while not self._ready:
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled() and self._ready:
                    self._wake_next()  # we were woken and cannot take it: pass it on
                raise
        key = self._ready.popleft()
        self._queued.discard(key)
        self._processing.add(key)
        if self.name:
            now = time.perf_counter()
            self._times[0].observe(now - self._since[key])
            self._since[key] = now
        return key

    def done(self, key: str) -> None:
        self._processing.discard(key)
        if self.name:
            self._times[1].observe(time.perf_counter() - self._since.pop(key))
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)

    def _wake_next(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._later[0][0], self._release) if self._later else None

    def _release(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        self._timer = None
        if self._later:
            self._schedule()

    def unfinished(self, now: float) -> list[float]:
        """For how long each key has been worked on that is being worked on now; `now` as time.perf_counter."""
        return [now - self._since[key] for key in self._processing]


_NAMED: WeakSet[WorkQueue] = WeakSet()


def _by_name() -> dict[str, list[WorkQueue]]:
    found: dict[str, list[WorkQueue]] = {}
    for queue in sorted(_NAMED, key=lambda queue: queue.name):
        found.setdefault(queue.name, []).append(queue)
    return found


def _depths() -> Iterator[tuple[str, Number]]:
    for name, queues in _by_name().items():
        yield labels(name=name), sum(len(queue) for queue in queues)


def _longest() -> Iterator[tuple[str, Number]]:
    now = time.perf_counter()
    for name, queues in _by_name().items():
        yield labels(name=name), max((age for queue in queues for age in queue.unfinished(now)), default=0.0)


Reading("workqueue_depth", "gauge", "Keys that wait in a queue.", _depths)
_LONGEST_TEXT = "For how long the key has been worked on that has been for longest."
Reading("workqueue_longest_running_processor_seconds", "gauge", _LONGEST_TEXT, _longest)
