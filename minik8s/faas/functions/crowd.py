"""What is known of a crowd of pods (those of one function, or those that functions share), shape by shape: who tells
what is in flight, what calls go there for, and so how many are wanted. No clock and no API: times are given.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from minik8s.api.kinds.function import PROCESS, Function
from minik8s.api.kinds.functionrevision import SHARED, FunctionRevision
from minik8s.api.kinds.pod import Pod
from minik8s.faas.functions import revisions, scale
from minik8s.faas.functions.scale import Bounds, Decision, Sample, Seen

SILENT = 2.5  # seconds after which a gateway's last word does not count: it tells every second while there is something
FORGOTTEN = 5.0  # seconds without a call after which pods that get no more traffic go
CLOSE = 0.2  # seconds: reports nearer to each other become one sample


class Demand(NamedTuple):
    """What a gateway tells of one function and shape."""

    function: str  # namespace/name
    shape: str
    concurrency: float  # calls in flight on average since it told last, held ones included
    waiting: int  # calls that are held now
    requests: int  # since it told last


class Want(NamedTuple):
    """What one shape of a crowd is for."""

    revision: FunctionRevision  # any of that shape
    bounds: Bounds
    called: bool  # some share of calls goes there
    loading: str = ""  # a revision that waits for its trial


class _Told(NamedTuple):
    at: float
    load: float
    waiting: int


@dataclass
class Group:
    """Pods of one shape: what is known of how busy they are, and what was decided last."""

    samples: deque[Sample] = field(default_factory=deque)
    told: dict[tuple[str, str], _Told] = field(default_factory=dict)  # by gateway and function
    busy: float = -math.inf
    desired: int = 0
    panic_until: float = 0.0
    called: bool = False
    near: set[str] = field(default_factory=set)  # nodes whose gateways hold calls
    promised: Pod | None = None  # an idle pod that calls may go to already, and whose claim is still to be written
    claimed: list[str] = field(default_factory=list)  # pods that have been taken from a pool, and not told of yet
    claimed_at: float = -math.inf

    def tell(self, gateway: str, demand: Demand, unit: float, now: float) -> None:
        """`unit`: how many calls of that function one pod is meant to have in flight."""
        self.told[gateway, demand.function] = _Told(now, demand.concurrency / unit, demand.waiting)
        if demand.concurrency or demand.waiting or demand.requests:
            self.busy = now
        self.near = {gateway} if demand.waiting else set()
        self._sample(Sample(now, sum(told.load for told in self.told.values() if now - told.at < SILENT)))

    def _sample(self, new: Sample) -> None:
        samples = self.samples
        if len(samples) > 1 and new.at - samples[-2].at < CLOSE:
            before, last = samples[-2], samples.pop()
            spans = last.at - before.at, new.at - last.at
            mean = (last.load * spans[0] + new.load * spans[1]) / (sum(spans) or 1.0)
            new = Sample(new.at, max(mean, new.load))
        samples.append(new)
        while samples[0].at < new.at - scale.STABLE:
            samples.popleft()

    def decide(self, want: Want | None, ready: int, now: float) -> Decision | None:
        """None for what has neither traffic nor calls any more."""
        waiting = sum(told.waiting for told in self.told.values() if now - told.at < SILENT)
        if want is None:
            if now - self.busy >= FORGOTTEN and not waiting:
                return None
            return Decision(self.desired, "Draining", "calls end on what has no traffic", 0.0, scale.TICK)
        if want.loading:
            self.busy = now  # its first call is likely to follow
        seen = Seen(now, self.samples, waiting, self.busy, ready, self.desired, self.panic_until, want.loading)
        decision = scale.decide(seen, want.bounds)
        self.desired, self.panic_until = decision.desired, decision.panic_until
        return decision


def group_of(groups: dict[str, Group], shape: str, count: int, now: float, *, called: bool) -> Group:
    """The group of a shape; a new one begins with the `count` pods that are there."""
    group = groups.get(shape)
    if group is None:
        group = groups[shape] = Group(desired=count)
        if count:  # this process has just begun: what is there was needed
            group.busy = now
            group.samples.append(Sample(now, count))
    if called and not group.called and not group.samples:
        # Calls move here from pods of another shape: so many are needed here, too.
        busiest = max(groups.values(), key=lambda other: other.desired)
        group.samples.extend(busiest.samples)
        group.busy = max(group.busy, busiest.busy)
    group.called = called
    return group


def key_of(function: Function) -> str:
    """Of the crowd that a function runs in: namespace/name, or namespace/SHARED."""
    name = SHARED if function.spec.isolation == PROCESS else function.metadata.name
    return f"{function.metadata.namespace}/{name}"


def unit(function: Function) -> float:
    """How many calls one pod is meant to have in flight."""
    return function.spec.concurrency * function.spec.scale.targetUtilization / 100


def wants(members: Iterable[Function], histories: Mapping[str, Sequence[FunctionRevision]]) -> dict[str, Want]:
    """The shapes that calls go to, or that somebody's newest revision is of. `histories` by uid, the newest last."""
    found: dict[str, Want] = {}
    for function in members:
        for shape, want in _wants_of(function, histories[function.metadata.uid]).items():
            found[shape] = _both(found[shape], want) if shape in found else want
    return found


def _wants_of(function: Function, history: Sequence[FunctionRevision]) -> dict[str, Want]:
    percents = {share.revision: share.percent for share in function.status.traffic}
    scaling, found = function.spec.scale, {}
    for shape in {each.spec.shape for each in history if each.metadata.name in percents or each is history[-1]}:
        fitting = [each for each in history if each.spec.shape == shape]
        percent = sum(percents.get(each.metadata.name, 0) for each in fitting)
        least = math.ceil(scaling.minReplicas * percent / 100)
        bounds = Bounds(least, scaling.maxReplicas, scaling.idleSeconds, unit(function))
        tried = [each.metadata.name for each in fitting if each is history[-1] and revisions.undecided(each)]
        found[shape] = Want(fitting[-1], bounds, percent > 0, "".join(tried))
    return found


def _both(one: Want, other: Want) -> Want:
    """Of two functions that share pods."""
    a, b = one.bounds, other.bounds
    bounds = Bounds(max(a.least, b.least), max(a.most, b.most), max(a.idle, b.idle))
    return Want(other.revision, bounds, one.called or other.called, one.loading or other.loading)
