"""How many pods a function is given, by how much is in flight. Pure.

All is counted in pods' worth of calls: load 1.0 is what one pod is meant to have in flight (targetUtilization percent
of concurrency). The mean over a minute decides (stable); the mean over six seconds decides as soon as it asks for twice
what is ready (panic), and then nothing is taken away for a minute: windows and threshold are Knative's defaults. Calls
that are held for want of a pod make the short window count at once, and from zero the first of them does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

STABLE, PANIC = 60.0, 6.0  # seconds
PANIC_AT = 2.0  # times what is ready
REACH = 2.0  # seconds for which a sample stands, at the most: what comes later is about something else
TICK = 1.0  # seconds between two looks at what is not at rest
ROUNDING = 1e-6  # of means: 3.0000000001 pods are 3

IDLE, PANICKING, HELD, MEAN, WARM, LOADING = "Idle", "Panic", "CallsHeld", "Mean", "RecentCalls", "Loading"


class Sample(NamedTuple):
    """What was in flight on average since the sample before, held calls included."""

    at: float
    load: float


class Bounds(NamedTuple):
    least: int
    most: int
    idle: float  # seconds without a call after which there may be none
    unit: float = 0.0  # calls that are load 1.0, for the reason's words; 0: not the same for all


class Seen(NamedTuple):
    now: float
    samples: Sequence[Sample]  # in order; older ones than STABLE do not count
    waiting: int  # calls that are held
    busy: float  # when a call was last in flight
    ready: int  # pods
    desired: int  # as decided before
    panic_until: float  # as decided before; 0: no panic
    loading: str = ""  # a revision that needs a pod for its trial


class Decision(NamedTuple):
    desired: int
    kind: str  # which rule decided
    reason: str  # a sentence
    panic_until: float
    again: float | None  # seconds until time alone may change it


def decide(seen: Seen, bounds: Bounds) -> Decision:
    now, samples = seen.now, seen.samples
    mean, brief = average(samples, now, STABLE), average(samples, now, PANIC)
    wanted, urgent = _whole(mean), _whole(brief)
    quiet = now - seen.busy if not seen.waiting else 0.0
    until = seen.panic_until
    if brief >= PANIC_AT * max(seen.ready, 1):
        until = now + STABLE
    elif quiet >= max(bounds.idle, PANIC):
        until = 0.0  # nothing has been called since before the short window: there is nothing to be afraid of
    if until > now:
        number, kind = max(seen.desired, wanted, urgent, 1), PANICKING
        why = f"{_calls(brief, bounds)} in flight over the last {PANIC:g}s: scaled up at once, not down for a while"
    elif quiet >= bounds.idle:
        number, kind, why = 0, IDLE, f"no call for {bounds.idle:g}s"
    elif seen.waiting:
        number, kind = max(wanted, urgent, seen.desired, 1), HELD
        why = f"{seen.waiting} calls wait for a replica: {_calls(brief, bounds)} over the last {PANIC:g}s"
    elif wanted:
        # What held calls have brought does not go before the last seconds ask for less, or it would come again.
        number, kind = max(wanted, min(urgent, seen.desired)), MEAN
        told = (mean, STABLE) if number == wanted else (brief, PANIC)
        why = f"{_calls(told[0], bounds)} in flight over the last {told[1]:g}s"
    else:
        number, kind, why = 1, WARM, f"called within the last {bounds.idle:g}s"
    if seen.loading and number < 1:
        number, kind, why = 1, LOADING, f"{seen.loading} waits to be loaded"
    desired = max(bounds.least, min(number, bounds.most))
    if desired != number:
        limit = f"minReplicas is {bounds.least}" if desired > number else f"maxReplicas is {bounds.most}"
        why = f"{limit}; {why}" + (f" (would be {number})" if number else "")
    return Decision(desired, kind, why, until, _again(seen, kind, bounds))


def average(samples: Sequence[Sample], now: float, window: float) -> float:
    """The mean load of the last `window` seconds, or of as many as samples tell of; each stands for the time since the
    one before, REACH at the most, and the last also for a moment after."""
    if not samples:
        return 0.0
    known = samples[0].at - TICK
    begin = max(now - window, known)
    if now <= begin:
        return samples[-1].load
    total, before = 0.0, known
    for sample in samples:
        covered = min(sample.at - max(before, begin), REACH)
        if covered > 0:
            total += sample.load * covered
        before = sample.at
    total += samples[-1].load * max(0.0, min(now, before + REACH) - max(before, begin))
    return total / (now - begin)


def _whole(load: float) -> int:
    return math.ceil(load - ROUNDING)


def _calls(load: float, bounds: Bounds) -> str:
    if not bounds.unit:
        return f"{load:.1f} pods' worth of calls"
    return f"{load * bounds.unit:.1f} calls on average ({bounds.unit:g} are meant for one replica)"


def _again(seen: Seen, kind: str, bounds: Bounds) -> float | None:
    if kind in (IDLE, LOADING):
        return None
    if seen.samples and seen.samples[0].at > seen.now - STABLE:
        return TICK  # the windows move on
    return max(seen.busy + bounds.idle - seen.now, TICK / 10)
