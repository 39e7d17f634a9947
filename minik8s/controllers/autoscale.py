"""The arithmetic of a HorizontalPodAutoscaler: from what pods use to how many there should be. Pure.

Three steps, as Kubernetes documents its algorithm: each metric proposes a number (`propose`), the greatest proposal is
held against what was recommended lately (`stabilize`), and the way there is no faster than the policies say (`pace`).
What was recommended and done before is a value (`Memory`) that goes in and comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import condition
from minik8s.api.quantity import parse_quantity
from minik8s.clock import parse_time

# kube-controller-manager's flags --horizontal-pod-autoscaler-…
TOLERANCE = 0.1
DOWNSCALE_STABILIZATION = 300.0  # seconds
CPU_INITIALIZATION = 300.0  # seconds after its start in which a pod's CPU counts only if measured while it was ready
READINESS_DELAY = 30.0  # seconds: a pod that has been unready since its first moments was never ready
MILLI = 1000


class Unmeasured(Exception):
    """No number can be proposed; the text says what is missing."""


class Sample(NamedTuple):
    """What one pod (or one of its containers) used: in thousandths of a core or of a byte, until `time`."""

    usage: int
    time: float
    window: float  # seconds over which it was measured


class Target(NamedTuple):
    """One metric's aim. Of `utilization` (percent of the requests) and `average` (thousandths, per pod) one is set."""

    resource: str
    container: str = ""
    utilization: int | None = None
    average: int | None = None


class Proposal(NamedTuple):
    """`utilization` in percent of the requests where the aim is one; `average` in thousandths, per measured pod."""

    replicas: int
    average: int
    utilization: int | None = None


class Tolerance(NamedTuple):
    """How far from 1 the ratio of what is to what should be may be before anything is done."""

    up: float = TOLERANCE
    down: float = TOLERANCE

    def covers(self, ratio: float) -> bool:
        return 1 - self.down <= ratio <= 1 + self.up


class _Groups(NamedTuple):
    ready: dict[str, int]  # name -> usage
    unready: list[str]  # measured or not: too young to be believed
    missing: list[str]  # without a measurement


def propose(
    target: Target, pods: Sequence[Pod], samples: Mapping[str, Sample], current: int, tolerance: Tolerance, now: float
) -> Proposal:
    """How many pods would bring `target` about, of `pods` with these `samples` (by name). Raises Unmeasured.

    Where a pod says nothing, it is taken to use what keeps the number as it is: all it may when there seem to be too
    many pods, nothing when there seem to be too few.
    """
    groups = _group(pods, samples, target.resource, now)
    if not groups.ready:
        raise Unmeasured(f"no ready pod has been measured for {target.resource} yet")
    if target.utilization is not None:
        goal = target.utilization
        requests = {pod.metadata.name: _request(pod, target) for pod in pods}

        def rate(usage: Mapping[str, int]) -> float:
            return _percent(usage, requests) / goal

        def whole(name: str) -> int:
            return requests[name] * max(100, goal) // 100

        shown: int | None = _percent(groups.ready, requests)
    else:
        average = target.average or 1

        def rate(usage: Mapping[str, int]) -> float:
            return sum(usage.values()) // len(usage) / average

        def whole(name: str) -> int:
            return average

        shown = None
    replicas = _replicas(groups, current, tolerance, rate, whole)
    return Proposal(replicas, sum(groups.ready.values()) // len(groups.ready), shown)


def _replicas(
    groups: _Groups,
    current: int,
    tolerance: Tolerance,
    rate: Callable[[Mapping[str, int]], float],
    whole: Callable[[str], int],
) -> int:
    usage, ratio = groups.ready, rate(groups.ready)
    young = groups.unready if ratio > 1 else []
    if not young and not groups.missing:
        return current if tolerance.covers(ratio) else math.ceil(ratio * len(usage))
    usage = dict(usage)
    if ratio != 1:
        usage |= {name: whole(name) if ratio < 1 else 0 for name in groups.missing}
    usage |= dict.fromkeys(young, 0)
    again = rate(usage)
    if tolerance.covers(again) or (ratio < 1 < again) or (again < 1 < ratio):
        return current
    wanted = math.ceil(again * len(usage))
    return max(wanted, current) if again > 1 else min(wanted, current)


def _group(pods: Sequence[Pod], samples: Mapping[str, Sample], resource: str, now: float) -> _Groups:
    groups = _Groups({}, [], [])
    for pod in pods:
        name, sample = pod.metadata.name, samples.get(pod.metadata.name)
        if pod.deleting or pod.status.phase == "Failed":
            continue
        if pod.status.phase == "Pending":
            groups.unready.append(name)
        elif sample is None:
            groups.missing.append(name)
        elif resource == "cpu" and _is_young(pod, sample, now):
            groups.unready.append(name)
        else:
            groups.ready[name] = sample.usage
    return groups


def _is_young(pod: Pod, sample: Sample, now: float) -> bool:
    """Whether the pod's CPU tells of its start rather than of its work."""
    ready = condition(pod.status.conditions, "Ready")
    if ready is None or not pod.status.startTime:
        return True
    started, changed = parse_time(pod.status.startTime), parse_time(ready.lastTransitionTime)
    if started + CPU_INITIALIZATION > now:
        return ready.status == "False" or sample.time < changed + sample.window
    return ready.status == "False" and started + READINESS_DELAY > changed


def _request(pod: Pod, target: Target) -> int:
    """What the pod's containers (or the one that is meant) request, in thousandths."""
    total = 0
    sidecars = (each for each in pod.spec.initContainers if each.restartPolicy == "Always")
    for container in (*pod.spec.containers, *sidecars):
        if target.container and container.name != target.container:
            continue
        quantity = container.resources.requests.get(target.resource)
        if quantity is None:
            raise Unmeasured(
                f"container {container.name} of pod {pod.metadata.name} requests no {target.resource}, of which a "
                f"percentage could be taken: set resources.requests.{target.resource}"
            )
        total += math.ceil(parse_quantity(quantity) * MILLI)
    return total


def _percent(usage: Mapping[str, int], requests: Mapping[str, int]) -> int:
    asked = sum(requests[name] for name in usage)
    if not asked:
        raise Unmeasured("the pods request nothing of which a percentage could be taken")
    return sum(usage.values()) * 100 // asked


# -- from proposals to a number


class Policy(NamedTuple):
    """At most `value` pods (or per cent of them) may come or go within `seconds`."""

    type: str  # Pods | Percent
    value: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rules:
    """One direction of `spec.behavior`. `select`: Max lets the freest policy count, Min the strictest."""

    policies: tuple[Policy, ...]
    select: str = "Max"
    window: float = 0.0  # seconds of stabilization


UP = Rules((Policy("Pods", 4, 15.0), Policy("Percent", 100, 15.0)))
DOWN = Rules((Policy("Percent", 100, 15.0),), window=DOWNSCALE_STABILIZATION)


class Behavior(NamedTuple):
    up: Rules = UP
    down: Rules = DOWN
    tolerance: Tolerance = Tolerance()


def behavior(spec: Mapping[str, Any] | None) -> Behavior:
    """`spec.behavior` of a stored object, whose defaults the API has filled in."""
    up, down = ((spec or {}).get(direction) or {} for direction in ("scaleUp", "scaleDown"))
    tolerances = (float(parse_quantity(rules.get("tolerance", TOLERANCE))) for rules in (up, down))
    return Behavior(_rules(up, UP), _rules(down, DOWN), Tolerance(*tolerances))


def _rules(spec: Mapping[str, Any], default: Rules) -> Rules:
    policies = tuple(Policy(each["type"], each["value"], each["periodSeconds"]) for each in spec.get("policies") or ())
    window = spec.get("stabilizationWindowSeconds")
    return Rules(
        policies or default.policies, spec.get("selectPolicy") or "Max", default.window if window is None else window
    )


@dataclass(frozen=True, slots=True)
class Memory:
    """What was recommended and done before: (time, replicas) and (time, replicas that came or, negative, went)."""

    recommended: tuple[tuple[float, int], ...] = ()
    changes: tuple[tuple[float, int], ...] = ()

    def recommend(self, replicas: int, now: float, behavior: Behavior) -> Memory:
        longest = max(behavior.up.window, behavior.down.window)
        kept = tuple(each for each in self.recommended if each[0] > now - longest)
        return Memory((*kept, (now, replicas)), self.changes)

    def change(self, difference: int, now: float, behavior: Behavior) -> Memory:
        longest = max(policy.seconds for rules in (behavior.up, behavior.down) for policy in rules.policies)
        kept = tuple(each for each in self.changes if each[0] > now - longest)
        return Memory(self.recommended, (*kept, (now, difference)))

    def changed_since(self, moment: float) -> tuple[int, int]:
        """How many came and how many went after `moment`."""
        recent = [change for time, change in self.changes if time > moment]
        return sum(each for each in recent if each > 0), -sum(each for each in recent if each < 0)


class Verdict(NamedTuple):
    """A number of replicas with the condition reason and the words that explain it."""

    replicas: int
    reason: str
    message: str


def stabilize(memory: Memory, wanted: int, current: int, behavior: Behavior, now: float) -> Verdict:
    """Up only to what all recommendations of the upward window agree on, down likewise."""
    lowest = min([wanted, *_since(memory, now - behavior.up.window)])
    highest = max([wanted, *_since(memory, now - behavior.down.window)])
    found = min(max(current, lowest), highest)
    if found == wanted:
        return Verdict(found, "ReadyForNewScale", f"{wanted} replicas are recommended, and nothing speaks against it")
    if wanted > current:
        text = f"{wanted} are recommended, but fewer were within {behavior.up.window:g} s: the lowest counts"
        return Verdict(found, "ScaleUpStabilized", text)
    text = f"{wanted} are recommended, but more were within {behavior.down.window:g} s: the highest counts"
    return Verdict(found, "ScaleDownStabilized", text)


def _since(memory: Memory, moment: float) -> Iterable[int]:
    return (replicas for time, replicas in memory.recommended if time > moment)


def pace(
    memory: Memory, wanted: int, current: int, least: int, most: int, behavior: Behavior, now: float
) -> tuple[Verdict, bool]:
    """No further than the policies and the bounds allow; and whether they had to be asked."""
    if wanted > current:
        limit = max(current, _limit_up(memory, current, behavior.up, now))
        if wanted > min(limit, most):
            if most <= limit:
                return Verdict(most, "TooManyReplicas", f"{wanted} are wanted, maxReplicas is {most}"), True
            return Verdict(limit, "ScaleUpLimit", f"{wanted} are wanted; the policies allow {limit} by now"), True
    elif wanted < current:
        limit = min(current, _limit_down(memory, current, behavior.down, now))
        if wanted < max(limit, least):
            if least >= limit:
                return Verdict(least, "TooFewReplicas", f"{wanted} are wanted, minReplicas is {least}"), True
            return Verdict(limit, "ScaleDownLimit", f"{wanted} are wanted; the policies allow {limit} by now"), True
    return Verdict(
        wanted, "DesiredWithinRange", f"{wanted} is within minReplicas {least} and maxReplicas {most}"
    ), False


def _limit_up(memory: Memory, current: int, rules: Rules, now: float) -> int:
    def limit(policy: Policy) -> int:
        came, went = memory.changed_since(now - policy.seconds)
        start = current - came + went
        return start + policy.value if policy.type == "Pods" else -(-start * (100 + policy.value) // 100)

    return _selected(rules, current, map(limit, rules.policies), freest=max, strictest=min)


def _limit_down(memory: Memory, current: int, rules: Rules, now: float) -> int:
    def limit(policy: Policy) -> int:
        came, went = memory.changed_since(now - policy.seconds)
        start = current - came + went
        return start - policy.value if policy.type == "Pods" else start * (100 - policy.value) // 100

    return _selected(rules, current, map(limit, rules.policies), freest=min, strictest=max)


def _selected(
    rules: Rules,
    current: int,
    limits: Iterable[int],
    *,
    freest: Callable[[Iterable[int]], int],
    strictest: Callable[[Iterable[int]], int],
) -> int:
    if rules.select == "Disabled":
        return current
    return strictest(limits) if rules.select == "Min" else freest(limits)
