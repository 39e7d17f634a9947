"""What this process counts, in Prometheus' text form: counters, gauges and histograms, and the form itself.

A registry belongs to the process, because Prometheus scrapes processes: parts that share one are told apart by names
and labels. Counting costs a dictionary look-up and an addition; everything else is done when somebody reads.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # usual bounds

Number = int | float
Samples = Iterable[tuple[str, str, Number]]  # suffix of the name, labels as text, value


# -- the form


def labels(**pairs: str) -> str:
    """`a="b",c="d"`, escaped as the format wants it."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def family(name: str, kind: str, text: str, samples: Samples) -> Iterator[str]:
    """The lines of one metric; none at all if it has no samples."""
    head = True
    for suffix, labelled, value in samples:
        if head:
            yield f"# HELP {name} {text}"
            yield f"# TYPE {name} {kind}"
            head = False
        yield f"{name}{suffix}{{{labelled}}} {_number(value)}" if labelled else f"{name}{suffix} {_number(value)}"


def page(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _number(value: Number) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9g}"


# -- what is counted


class Value:
    """One number; `inc` and `set`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Number = 0

    def inc(self, by: Number = 1) -> None:
        self.value += by

    def set(self, value: Number) -> None:
        self.value = value


class Distribution:
    """How many observations fell between the bounds, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


_Child = TypeVar("_Child")


class _Metric(Generic[_Child]):
    """One name with a child per combination of label values; without labels there is one child."""

    kind: str

    def __init__(self, name: str, text: str, names: Sequence[str] = (), *, registry: Registry | None = None) -> None:
        self.name, self.text, self._names = name, text, tuple(names)
        self._children: dict[tuple[str, ...], _Child] = {}
        (REGISTRY if registry is None else registry).add(self)
        self._only: _Child | None = None if names else self.labels()

    def _new(self) -> _Child:
        raise NotImplementedError

    def labels(self, *values: str) -> _Child:
        """The child for these values of the labels, in their order."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self._names):
                raise ValueError(f"{self.name} has the labels {self._names}, not {values}")
            child = self._children[values] = self._new()
        return child

    @property
    def only(self) -> _Child:
        if self._only is None:
            raise ValueError(f"{self.name} needs its labels: {self._names}")
        return self._only

    def lines(self) -> Iterator[str]:
        return family(self.name, self.kind, self.text, self._samples())

    def _samples(self) -> Samples:
        for values, child in list(self._children.items()):
            yield from self._told(labels(**dict(zip(self._names, values, strict=True))), child)

    def _told(self, labelled: str, child: _Child) -> Samples:
        raise NotImplementedError


class Counter(_Metric[Value]):
    kind = "counter"

    def _new(self) -> Value:
        return Value()

    def inc(self, by: Number = 1) -> None:
        self.only.inc(by)

    @property
    def value(self) -> Number:
        return self.only.value

    def _told(self, labelled: str, child: Value) -> Samples:
        yield "", labelled, child.value


class Gauge(Counter):
    kind = "gauge"

    def set(self, value: Number) -> None:
        self.only.set(value)


class Histogram(_Metric[Distribution]):
    kind = "histogram"

    def __init__(
        self,
        name: str,
        text: str,
        names: Sequence[str] = (),
        *,
        bounds: Sequence[float] = SECONDS,
        registry: Registry | None = None,
    ) -> None:
        self._bounds = tuple(bounds)
        super().__init__(name, text, names, registry=registry)

    def _new(self) -> Distribution:
        return Distribution(self._bounds)

    def observe(self, value: float) -> None:
        self.only.observe(value)

    def _told(self, labelled: str, child: Distribution) -> Samples:
        prefix, total = f"{labelled}," if labelled else "", 0
        for bound, count in zip(self._bounds, child.counts, strict=False):
            total += count
            yield "_bucket", f'{prefix}le="{bound:g}"', total
        total += child.counts[-1]
        yield "_bucket", f'{prefix}le="+Inf"', total
        yield "_sum", labelled, child.sum
        yield "_count", labelled, total


class Reading:
    """A metric that somebody else keeps and that is looked up when it is shown: (labels as text, value) of each."""

    def __init__(
        self,
        name: str,
        kind: str,
        text: str,
        read: Callable[[], Iterable[tuple[str, Number]]],
        *,
        registry: Registry | None = None,
    ) -> None:
        self.name, self._kind, self._text, self._read = name, kind, text, read
        (REGISTRY if registry is None else registry).add(self)

    def lines(self) -> Iterator[str]:
        return family(self.name, self._kind, self._text, (("", labelled, value) for labelled, value in self._read()))


class Registry:
    """Metrics by name; one that is added again replaces the former."""

    def __init__(self) -> None:
        self._metrics: dict[str, _Metric[Any] | Reading] = {}

    def add(self, metric: _Metric[Any] | Reading) -> None:
        self._metrics[metric.name] = metric

    def lines(self) -> Iterator[str]:
        for metric in list(self._metrics.values()):
            yield from metric.lines()


REGISTRY: Final = Registry()


# -- of every process: the names are those that Prometheus' client libraries use

_TICK = os.sysconf("SC_CLK_TCK")


def _started() -> float:
    """Unix time at which this process began (proc(5): starttime, in ticks since boot)."""
    with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:
        ticks = int(stat.read().rpartition(")")[2].split()[19])
        return time.time() - float(uptime.read().split()[0]) + ticks / _TICK


def _resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _process(name: str, kind: str, text: str, read: Callable[[], Number]) -> None:
    def one() -> Iterator[tuple[str, Number]]:
        try:
            yield "", read()
        except OSError:  # /proc is not mounted, or is another process namespace's
            return

    Reading(f"process_{name}", kind, text, one)


_process("cpu_seconds_total", "counter", "CPU time of this process, in seconds.", time.process_time)
_process("resident_memory_bytes", "gauge", "Memory that this process holds.", _resident)
_process("start_time_seconds", "gauge", "Unix time at which this process started.", _started)
_process("open_fds", "gauge", "Open file descriptors.", lambda: len(os.listdir("/proc/self/fd")))
