"""How many pods: tables of situations, and laws that hold in all of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minik8s.faas.functions.scale import (
    HELD,
    IDLE,
    LOADING,
    MEAN,
    PANIC,
    PANICKING,
    STABLE,
    TICK,
    WARM,
    Bounds,
    Sample,
    Seen,
    average,
    decide,
)

NOW = 10_000.0


def steady(load: float, seconds: int = 60, until: float = NOW) -> list[Sample]:
    return [Sample(until - back, load) for back in range(seconds, -1, -1)]


def seen(samples: list[Sample] | None = None, **more: object) -> Seen:
    values: dict[str, object] = {"waiting": 0, "busy": NOW, "ready": 1, "desired": 1, "panic_until": 0.0} | more
    return Seen(now=NOW, samples=samples or [], **values)  # type: ignore[arg-type]


BOUNDS = Bounds(0, 10, 60.0, unit=7.0)
QUIET = NOW - 61

CASES = {
    "nothing yet, nothing asked": (seen(busy=0.0, ready=0, desired=0), BOUNDS, 0, IDLE),
    "the first call is held": (seen([Sample(NOW, 0.1)], waiting=1, ready=0, desired=0), BOUNDS, 1, HELD),
    "a burst is held": (seen([Sample(NOW, 4.2)], waiting=30, ready=0, desired=0), BOUNDS, 5, PANICKING),
    "as many as is meant": (seen(steady(1.0)), BOUNDS, 1, MEAN),
    "a little more": (seen(steady(1.1)), BOUNDS, 2, MEAN),
    "rounding does not make pods": (seen(steady(1.0 + 1e-9)), BOUNDS, 1, MEAN),
    "held calls take nothing away": (seen(steady(0.5), waiting=1, ready=4, desired=4), BOUNDS, 4, HELD),
    "what held calls brought stays while it is used": (
        seen([*steady(0.5, 60, NOW - 7), *steady(3.4, 5)], ready=4, desired=4),
        BOUNDS,
        4,
        MEAN,
    ),
    "but grows no more": (seen([*steady(0.5, 60, NOW - 7), *steady(3.4, 5)], ready=3, desired=3), BOUNDS, 3, MEAN),
    "the most": (seen(steady(30.0), ready=10, desired=10, panic_until=NOW), BOUNDS, 10, PANICKING),
    "the least": (seen(steady(0.5)), Bounds(3, 10, 60.0), 3, MEAN),
    "the least when idle": (seen(busy=QUIET), Bounds(2, 10, 60.0), 2, IDLE),
    "idle": (seen(steady(0.0), busy=QUIET), BOUNDS, 0, IDLE),
    "not yet idle": (seen(steady(0.0), busy=NOW - 59), BOUNDS, 1, WARM),
    "idle sooner than the window": (seen(steady(2.0, 60, NOW - 10), busy=NOW - 10), Bounds(0, 10, 5.0), 0, IDLE),
    "idle for long, but calls are held": (seen([], busy=QUIET, waiting=2), BOUNDS, 1, HELD),
    "panic does not go down": (seen(steady(0.2), ready=8, desired=8, panic_until=NOW + 1), BOUNDS, 8, PANICKING),
    "panic is over": (seen(steady(0.2), ready=8, desired=8, panic_until=NOW), BOUNDS, 1, MEAN),
    "idle ends panic": (seen(steady(0.0), busy=QUIET, ready=8, desired=8, panic_until=NOW + 9), BOUNDS, 0, IDLE),
    "a trial": (seen(busy=0.0, ready=0, desired=0, loading="f-00001"), BOUNDS, 1, LOADING),
    "a trial beside calls": (seen(steady(2.5), ready=3, loading="f-00002"), BOUNDS, 3, MEAN),
}


@pytest.mark.parametrize(("situation", "bounds", "desired", "kind"), CASES.values(), ids=CASES.keys())
def test_situations(situation: Seen, bounds: Bounds, desired: int, kind: str) -> None:
    found = decide(situation, bounds)
    assert (found.desired, found.kind) == (desired, kind)
    assert found.reason


def test_the_reason_tells_figures_and_limits() -> None:
    found = decide(seen(steady(30.0), ready=10, desired=10), BOUNDS)
    assert found.reason.startswith("maxReplicas is 10; 210.0 calls on average (7 are meant for one replica)")
    assert found.reason.endswith("(would be 30)")
    assert decide(seen(busy=QUIET), BOUNDS).reason == "no call for 60s"
    assert decide(seen(busy=QUIET), Bounds(2, 9, 60.0)).reason == "minReplicas is 2; no call for 60s"


def test_a_jump_to_twice_what_is_ready_counts_at_once_and_a_smaller_one_by_the_minute() -> None:
    doubled = [*steady(2.0, 60, NOW - 6), *steady(4.0, 5)]
    assert decide(seen(doubled, ready=2, desired=2), BOUNDS).desired == 4
    more = [*steady(2.0, 60, NOW - 6), *steady(3.0, 5)]
    assert decide(seen(more, ready=2, desired=2), BOUNDS).desired == 3  # ceil of a mean between 2 and 3
    assert decide(seen(more, ready=2, desired=2), BOUNDS).kind == MEAN


def test_after_a_burst_pods_go_within_the_window() -> None:
    """A second by second story: 20 held calls at once, then silence."""
    desired, panic, samples, busy = 0, 0.0, [Sample(NOW, 20 / 7)], NOW
    numbers = []
    for second in range(130):
        now = NOW + second
        situation = Seen(now, samples, 20 if second == 0 else 0, busy, desired, desired, panic)
        found = decide(situation, BOUNDS)
        desired, panic = found.desired, found.panic_until
        numbers.append(desired)
        if second == 1:
            samples.append(Sample(now, 0.0))
    assert numbers[0] == 3
    assert numbers[59] >= 1
    assert numbers[61] == 0
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize(
    ("samples", "window", "mean"),
    [
        ([], STABLE, 0.0),
        ([Sample(NOW, 3.0)], STABLE, 3.0),  # as long as there is history
        (steady(2.0), STABLE, 2.0),
        (steady(2.0), PANIC, 2.0),
        (steady(4.0, 30, NOW - 30), PANIC, 0.0),  # gateways are silent when there is nothing
        ([Sample(NOW - 3, 6.0)], PANIC, 6.0 * 3 / 4),  # one second before, and two after: REACH
        ([Sample(NOW - 50, 1.0), Sample(NOW, 1.0)], STABLE, 3 / 51),  # what is between has nobody told of
    ],
)
def test_averages(samples: list[Sample], window: float, mean: float) -> None:
    assert average(samples, NOW, window) == pytest.approx(mean)


loads = st.floats(0, 50, allow_nan=False)
histories = st.lists(st.tuples(st.floats(0, 5), loads), max_size=40)


@st.composite
def situations(draw: st.DrawFn) -> Seen:
    at, samples = NOW - draw(st.floats(0, 100)), []
    for pause, load in draw(histories):
        at = min(at + pause, NOW)
        samples.append(Sample(at, load))
    return Seen(
        NOW, samples, draw(st.integers(0, 50)), NOW - draw(st.floats(0, 200)), draw(st.integers(0, 20)),
        draw(st.integers(0, 20)), draw(st.sampled_from([0.0, NOW - 1, NOW + 1, NOW + 60])),
        draw(st.sampled_from(["", "f-00001"])),
    )  # fmt: skip


@st.composite
def limits(draw: st.DrawFn) -> Bounds:
    least = draw(st.integers(0, 5))
    return Bounds(least, draw(st.integers(max(least, 1), 20)), draw(st.floats(1, 120)), draw(st.sampled_from([0, 7])))


@given(situations(), limits())
def test_the_bounds_are_kept(situation: Seen, bounds: Bounds) -> None:
    found = decide(situation, bounds)
    assert bounds.least <= found.desired <= bounds.most
    assert found.again is None or found.again > 0


@given(situations(), limits())
def test_panic_never_scales_down(situation: Seen, bounds: Bounds) -> None:
    found = decide(situation, bounds)
    if found.panic_until > NOW:
        assert found.desired >= min(situation.desired, bounds.most)


@given(situations(), limits())
def test_zero_only_when_idle_and_nothing_is_held_or_loading(situation: Seen, bounds: Bounds) -> None:
    found = decide(situation, bounds)
    if found.desired == 0:
        assert NOW - situation.busy >= bounds.idle
        assert not situation.waiting
        assert not situation.loading
        assert bounds.least == 0


@given(situations(), limits())
def test_what_is_not_at_rest_is_looked_at_again(situation: Seen, bounds: Bounds) -> None:
    found = decide(situation, bounds)
    if found.kind not in (IDLE, LOADING):
        assert found.again is not None
        assert found.again <= max(TICK, bounds.idle) + 1e-6


@given(situations(), limits(), st.floats(1, 4))
def test_more_load_never_means_fewer_pods(situation: Seen, bounds: Bounds, times: float) -> None:
    assume(situation.samples)
    more = situation._replace(samples=[Sample(each.at, each.load * times) for each in situation.samples])
    assert decide(more, bounds).desired >= decide(situation, bounds).desired


@given(loads, limits())
def test_steady_load_gets_what_it_needs(load: float, bounds: Bounds) -> None:
    found = decide(seen(steady(load), ready=bounds.most, desired=0), bounds)
    assert found.desired == max(bounds.least, min(max(math.ceil(load - 1e-6), 1), bounds.most))
