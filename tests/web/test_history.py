"""The rings of the last hour: exact, bounded, forgetful."""

from __future__ import annotations

import sys

import pytest

from minik8s.web.history import MOST, SLOTS, History, samples

POD = ("pods", "a", "b")


def test_what_was_measured_is_shown_with_gaps() -> None:
    history = History()
    history.add(10, [(POD, 0.5, 100.0)])
    history.add(25, [])
    history.add(40, [(POD, 1.5, 300.0), (("pods", "a", "c"), 1.0, 50.0), (("nodes", "", "n"), 4.0, 9.0)])
    assert history.show("pods", "a", "b") == {
        "times": [10, 25, 40], "cpu": [0.5, None, 1.5], "memory": [100, None, 300],
    }  # fmt: skip
    assert history.show("pods", "a")["cpu"] == [0.5, None, 2.5]
    assert history.show("nodes")["memory"] == [None, None, 9]
    assert history.show("pods", "other", "b") == {"times": [], "cpu": [], "memory": []}


def test_it_holds_an_hour_and_forgets_who_has_gone() -> None:
    history = History()
    history.add(0, [(POD, 1.0, 1.0)])
    for n in range(1, SLOTS):
        history.add(n, [])
    assert history.show(*POD)["cpu"] == [1.0] + [None] * (SLOTS - 1)
    history.add(SLOTS, [(("pods", "a", "new"), 2.0, 2.0)])
    assert history.show(*POD)["times"] == []
    shown = history.show("pods", "a", "new")
    assert shown["times"] == list(range(1, SLOTS + 1))
    assert shown["cpu"] == [None] * (SLOTS - 1) + [2.0]


def test_a_thousand_pods_cost_a_few_megabytes_and_there_is_an_end() -> None:
    history = History()
    history.add(0, [(("pods", "a", str(n)), 1.0, 1.0) for n in range(MOST + 10)])
    assert len(history._series) == MOST
    one = history._series[("pods", "a", "0")]
    assert 1000 * (sys.getsizeof(one.cpu) + sys.getsizeof(one.memory)) < 3e6


def test_lists_of_the_metrics_api_are_read() -> None:
    pods = b"""{"items": [{"metadata": {"name": "b", "namespace": "a"}, "containers": [
        {"usage": {"cpu": "1500u", "memory": "1Mi"}}, {"usage": {"cpu": "250m", "memory": "512Ki"}}]}]}"""
    assert samples("pods", pods) == [(POD, pytest.approx(0.2515), 1.5 * 2**20)]
    nodes = b'{"items": [{"metadata": {"name": "n"}, "usage": {"cpu": "123456n", "memory": "2Gi"}}]}'
    assert samples("nodes", nodes) == [(("nodes", "", "n"), pytest.approx(0.000123456), 2.0 * 2**30)]
