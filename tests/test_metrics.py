"""Prometheus' text form: what is counted reads as its specification says, and costs little."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from minik8s.metrics import REGISTRY, Counter, Gauge, Histogram, Reading, Registry, family, labels, page


def text(registry: Registry) -> list[str]:
    return list(registry.lines())


def test_counters_and_gauges() -> None:
    registry = Registry()
    asked = Counter("asked_total", "Questions.", ("kind",), registry=registry)
    asked.labels("a").inc()
    asked.labels("a").inc(2)
    asked.labels('b"\\\n').inc(0.5)
    gauge = Gauge("depth", "How deep.", registry=registry)
    gauge.set(3)
    assert text(registry) == [
        "# HELP asked_total Questions.",
        "# TYPE asked_total counter",
        'asked_total{kind="a"} 3',
        'asked_total{kind="b\\"\\\\\\n"} 0.5',
        "# HELP depth How deep.",
        "# TYPE depth gauge",
        "depth 3",
    ]
    with pytest.raises(ValueError, match="kind"):
        asked.labels()
    with pytest.raises(ValueError, match="kind"):
        asked.inc()


def test_histograms_add_up() -> None:
    registry = Registry()
    took = Histogram("took_seconds", "Time.", bounds=(0.1, 1.0), registry=registry)
    for value in (0.05, 0.1, 0.5, 7.0):
        took.observe(value)
    assert text(registry)[2:] == [
        'took_seconds_bucket{le="0.1"} 2',
        'took_seconds_bucket{le="1"} 3',
        'took_seconds_bucket{le="+Inf"} 4',
        "took_seconds_sum 7.65",
        "took_seconds_count 4",
    ]


def test_what_is_added_again_replaces_the_former() -> None:
    registry = Registry()
    for value in (1, 2):
        Reading("x", "gauge", "X.", lambda value=value: [(labels(a="b"), value)], registry=registry)
    assert text(registry)[2:] == ['x{a="b"} 2']
    assert list(family("none", "gauge", "Nothing.", [])) == []


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool")
def test_prometheus_reads_what_this_process_tells() -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=page(REGISTRY.lines()), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
