"""What nodes and pods have used in the last hour: fixed rings in memory, filled from metrics.k8s.io every 15 s.

A series costs 1.9 kB: two rings of 4-byte numbers. Who has not been measured for an hour is forgotten.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Iterable
from typing import Any

import msgspec

from minik8s.api.errors import StatusError
from minik8s.api.meta import Struct
from minik8s.api.quantity import parse_quantity
from minik8s.client.base import Transport

INTERVAL = 15.0  # seconds
PATIENT = 6  # looks without a measurement, as at the start, after which they become rare
UNMEASURED = 120.0  # seconds between those
SLOTS = 240  # an hour
MOST = 6000  # series; beyond that, new ones are not kept
METRICS = "/apis/metrics.k8s.io/v1beta1"
Key = tuple[str, str, str]  # "nodes" or "pods", namespace, name
Sample = tuple[Key, float, float]  # cores, bytes


class _Name(Struct):
    name: str = ""
    namespace: str = ""


class _Container(Struct):
    usage: dict[str, str] = {}


class _Measured(Struct):
    metadata: _Name = _Name()
    usage: dict[str, str] = {}
    containers: tuple[_Container, ...] = ()


class _List(Struct):
    items: tuple[_Measured, ...] = ()


_list = msgspec.json.Decoder(_List)


class _Series:
    __slots__ = ("cpu", "last", "memory")

    def __init__(self) -> None:
        self.cpu = array("f", [math.nan]) * SLOTS
        self.memory = array("f", [math.nan]) * SLOTS
        self.last = 0


class History:
    """Pure but for what it keeps: `add` one round of samples, `show` a series."""

    def __init__(self) -> None:
        self._times = array("d", [0.0]) * SLOTS
        self._round = 0
        self._series: dict[Key, _Series] = {}

    def add(self, now: float, samples: Iterable[Sample]) -> None:
        """`now` in Unix seconds."""
        slot = self._round % SLOTS
        self._times[slot] = now
        for series in self._series.values():
            series.cpu[slot] = series.memory[slot] = math.nan
        for key, cores, size in samples:
            chosen = self._series.get(key) or self._new(key)
            if chosen is not None:
                chosen.cpu[slot], chosen.memory[slot], chosen.last = cores, size, self._round
        for key in [key for key, series in self._series.items() if series.last <= self._round - SLOTS]:
            del self._series[key]
        self._round += 1

    def _new(self, key: Key) -> _Series | None:
        if len(self._series) >= MOST:
            return None
        self._series[key] = made = _Series()
        return made

    def show(self, kind: str, namespace: str = "", name: str = "") -> dict[str, list[float | None]]:
        """`times` (Unix seconds, oldest first), `cpu` (cores) and `memory` (bytes); None where nothing was measured.

        Without a name: the sum of all of that kind, in the namespace if one is given.
        """
        if name:
            one = self._series.get((kind, namespace, name))
            chosen = [] if one is None else [one]
        else:
            chosen = [s for (k, ns, _), s in self._series.items() if k == kind and namespace in ("", ns)]
        slots = [slot % SLOTS for slot in range(max(0, self._round - SLOTS), self._round)] if chosen else []
        return {
            "times": [self._times[slot] for slot in slots],
            "cpu": [_sum(series.cpu[slot] for series in chosen) for slot in slots],
            "memory": [_sum(series.memory[slot] for series in chosen) for slot in slots],
        }


def _sum(values: Iterable[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) if known else None


def samples(kind: str, answer: bytes) -> list[Sample]:
    """Out of a NodeMetricsList or PodMetricsList; a pod's containers are added up."""
    found = []
    for item in _list.decode(answer).items:
        usages = [item.usage] if kind == "nodes" else [container.usage for container in item.containers]
        cpu, memory = (math.fsum(_amount(usage, name) for usage in usages) for name in ("cpu", "memory"))
        found.append(((kind, item.metadata.namespace, item.metadata.name), cpu, memory))
    return found


def _amount(usage: dict[str, str], resource: str) -> float:
    return float(parse_quantity(usage.get(resource, "0")))


async def collect(history: History, transport: Transport) -> None:
    """Fill the history for ever. While the metrics cannot be had the rings stand still."""
    misses = 0
    while True:
        found: list[Any] = []
        try:
            for kind in ("nodes", "pods"):
                found += samples(kind, await transport.request("GET", f"{METRICS}/{kind}"))
        except StatusError:
            pass  # there is no metrics API, or it does not answer now
        if found:
            history.add(time.time(), found)
        misses = 0 if found else misses + 1
        await asyncio.sleep(INTERVAL if misses < PATIENT else UNMEASURED)
