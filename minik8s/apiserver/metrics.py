"""Counts and times of requests, cheap enough to be kept for each, in Prometheus' text form."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

from minik8s.apiserver.routes import RequestInfo

BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds
_DURATION = "apiserver_request_duration_seconds"
_TOTAL = "apiserver_request_total"

Gauge = Callable[[], float]


class _Series:
    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0


class RequestMetrics:
    def __init__(self) -> None:
        self._durations: dict[tuple[str, str, str, str, str], _Series] = {}
        self._totals: dict[tuple[str, str, str, str, str, int], int] = {}
        self._gauges: dict[str, tuple[str, Gauge]] = {}

    def gauge(self, name: str, text: str, read: Gauge) -> None:
        """Show a value that somebody else keeps."""
        self._gauges[name] = (text, read)

    def observe(self, info: RequestInfo, code: int, seconds: float) -> None:
        """Count one request that has been answered; a watch counts when it begins."""
        key = (info.verb, info.group, info.version, info.resource, info.subresource)
        total = (*key, code)
        self._totals[total] = self._totals.get(total, 0) + 1
        series = self._durations.get(key)
        if series is None:
            series = self._durations[key] = _Series()
        series.buckets[bisect_left(BUCKETS, seconds)] += 1
        series.sum += seconds

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterable[str]:
        yield f"# HELP {_TOTAL} Requests by verb, resource and HTTP code."
        yield f"# TYPE {_TOTAL} counter"
        for (*key, code), count in self._totals.items():
            yield f'{_TOTAL}{{{_labels(key)},code="{code}"}} {count}'
        yield f"# HELP {_DURATION} Time to answer by verb and resource, in seconds."
        yield f"# TYPE {_DURATION} histogram"
        for labelled, series in self._durations.items():
            yield from _histogram(_labels(labelled), series)
        for name, (text, read) in self._gauges.items():
            yield f"# HELP {name} {text}"
            yield f"# TYPE {name} gauge"
            yield f"{name} {read():g}"


def _histogram(labels: str, series: _Series) -> Iterable[str]:
    total = 0
    for bound, count in zip((*BUCKETS, float("inf")), series.buckets, strict=True):
        total += count
        edge = "+Inf" if bound == float("inf") else f"{bound:g}"
        yield f'{_DURATION}_bucket{{{labels},le="{edge}"}} {total}'
    yield f"{_DURATION}_sum{{{labels}}} {series.sum:.6f}"
    yield f"{_DURATION}_count{{{labels}}} {total}"


def _labels(key: Iterable[object]) -> str:
    return ",".join(
        f'{name}="{value}"'
        for name, value in zip(("verb", "group", "version", "resource", "subresource"), key, strict=True)
    )
