"""The arithmetic of autoscaling against tables worked out from Kubernetes' documented algorithm, and its laws."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.kinds.pod import Pod
from minik8s.controllers.autoscale import (
    DOWN,
    UP,
    Behavior,
    Memory,
    Policy,
    Rules,
    Sample,
    Target,
    Tolerance,
    Unmeasured,
    behavior,
    pace,
    propose,
    stabilize,
)

from .objects import NOW, pod

CPU = Target("cpu", utilization=50)
OLD = NOW - 3600


def worker(name: str, request: str | None = "100m", *, ready: bool = True, age: float = 3600, **more: Any) -> Pod:
    requests = {"cpu": request} if request is not None else {}
    found = pod(name, ready=ready, since=NOW - age + 1, created=NOW - age, **more)
    container = {"name": "c", "resources": {"requests": requests}}
    document = msgspec.to_builtins(found)
    document["spec"]["containers"] = [container]
    document["status"]["startTime"] = document["metadata"]["creationTimestamp"]
    return msgspec.convert(document, Pod)


def samples(**millis: int) -> dict[str, Sample]:
    return {name: Sample(usage, NOW, 10.0) for name, usage in millis.items()}


def wanted(pods: list[Pod], measured: dict[str, Sample], target: Target = CPU, current: int | None = None) -> int:
    return propose(target, pods, measured, len(pods) if current is None else current, Tolerance(), NOW).replicas


PLAIN = [
    # usage of each in millicores of the 100 it requests; wanted at 50 %
    ((50, 50), 2),  # as it should be
    ((55, 55), 2),  # within a tenth: left alone
    ((56, 56), 3),  # 56/50 × 2 = 2.24, up
    ((100, 100), 4),
    ((100, 0), 2),  # the average counts
    ((46, 46), 2),
    ((20, 20), 1),  # 20/50 × 2 = 0.8, up to one
    ((0, 0), 0),  # bounds are somebody else's
    ((1000, 1000), 40),
]


@pytest.mark.parametrize(("usage", "replicas"), PLAIN)
def test_utilization_of_pods_that_are_all_measured(usage: tuple[int, ...], replicas: int) -> None:
    pods = [worker(f"p{number}") for number in range(len(usage))]
    assert wanted(pods, samples(**{f"p{n}": value for n, value in enumerate(usage)})) == replicas


def test_average_value_needs_no_requests() -> None:
    pods = [worker("a", None), worker("b", None)]
    assert wanted(pods, samples(a=300, b=500), Target("cpu", average=100)) == 8


def test_shown_is_what_ready_pods_use() -> None:
    found = propose(CPU, [worker("a"), worker("b")], samples(a=80, b=40), 2, Tolerance(), NOW)
    assert (found.utilization, found.average) == (60, 60)


def test_unmeasured_pods_are_idle_on_the_way_up_and_busy_on_the_way_down() -> None:
    pods = [worker("a"), worker("b"), worker("c")]
    # 100 % of 2 pods would be 4; a third that may use nothing: 200/300 = 66 %, ceil(1.33 × 3) = 4
    assert wanted(pods, samples(a=100, b=100)) == 4
    # at 60 % the third one turns 1.2 into 0.8: not sure enough to do anything
    assert wanted(pods, samples(a=60, b=60)) == 3
    # 10 % of 2; the third may use all: 120/300 = 40 %, ceil(0.8 × 3) = 3
    assert wanted(pods, samples(a=10, b=10)) == 3


def test_pods_that_are_not_ready_yet_do_not_scale_up_further() -> None:
    pods = [worker("a"), worker("b", ready=False, age=20), worker("c", ready=False, age=20)]
    # One ready pod at 100 %: alone it would want 2; the young ones will take their share
    assert wanted(pods, samples(a=100, b=0, c=0)) == 3
    assert wanted(pods, samples(a=400, b=0, c=0)) == 8


def test_cpu_of_a_young_pod_counts_once_measured_while_ready() -> None:
    young = worker("a", age=60)
    assert wanted([young], {"a": Sample(100, NOW, 10.0)}) == 2
    with pytest.raises(Unmeasured):  # measured before it was ready
        wanted([young], {"a": Sample(100, NOW - 55, 10.0)})


def test_memory_of_a_young_pod_counts_at_once() -> None:
    found = worker("a", None, ready=False, age=5)
    assert wanted([found], samples(a=200), Target("memory", average=100)) == 2


def test_deleted_and_failed_pods_do_not_count() -> None:
    pods = [worker("a"), worker("b", deleting=True), worker("c", phase="Failed")]
    assert wanted(pods, samples(a=50, b=500, c=500), current=1) == 1


def test_what_is_missing_is_said() -> None:
    with pytest.raises(Unmeasured, match="container c of pod b requests no cpu"):
        wanted([worker("a"), worker("b", None)], samples(a=1, b=1))
    with pytest.raises(Unmeasured, match="no ready pod"):
        wanted([worker("a")], {})
    with pytest.raises(Unmeasured, match="no ready pod"):
        wanted([], {})


@given(st.lists(st.integers(0, 400), min_size=1, max_size=8), st.integers(0, 7), st.integers(1, 400))
def test_more_load_never_means_fewer_pods(usage: list[int], place: int, more: int) -> None:
    pods = [worker(f"p{n}") for n in range(len(usage))]
    before = wanted(pods, samples(**{f"p{n}": value for n, value in enumerate(usage)}))
    usage[place % len(usage)] += more
    assert wanted(pods, samples(**{f"p{n}": value for n, value in enumerate(usage)})) >= before


# -- stabilization and pace


def test_defaults_are_kubernetes_own() -> None:
    assert behavior(None) == Behavior(UP, DOWN, Tolerance(0.1, 0.1))
    fast = behavior({"scaleDown": {"stabilizationWindowSeconds": 0}, "scaleUp": {"selectPolicy": "Disabled"}})
    assert (fast.down.window, fast.up.select, fast.down.policies) == (0, "Disabled", DOWN.policies)


@pytest.mark.parametrize(
    ("recommended", "want", "current", "found", "reason"),
    [
        ((), 5, 3, 5, "ReadyForNewScale"),
        (((100, 3),), 5, 3, 5, "ReadyForNewScale"),  # no upward window
        (((100, 6), (200, 4)), 2, 6, 6, "ScaleDownStabilized"),
        (((400, 6), (200, 4)), 2, 6, 4, "ScaleDownStabilized"),  # the six are too long ago
        (((400, 6), (350, 4)), 2, 6, 2, "ReadyForNewScale"),
    ],
)
def test_stabilize(recommended: Any, want: int, current: int, found: int, reason: str) -> None:
    memory = Memory(recommended=tuple((NOW - ago, replicas) for ago, replicas in recommended))
    verdict = stabilize(memory, want, current, Behavior(), NOW)
    assert (verdict.replicas, verdict.reason) == (found, reason)


def test_an_upward_window_waits_for_the_lowest() -> None:
    slow = Behavior(up=Rules(UP.policies, window=60))
    memory = Memory(recommended=((NOW - 30, 4), (NOW - 90, 2)))
    assert stabilize(memory, 8, 3, slow, NOW)[:2] == (4, "ScaleUpStabilized")


ONE = Rules((Policy("Pods", 1, 10.0),))
PACES = [
    # changes (ago, by), wanted, current, behavior -> replicas, reason
    ((), 3, 3, Behavior(), 3, "DesiredWithinRange"),
    ((), 20, 3, Behavior(), 7, "ScaleUpLimit"),  # four pods are more than 100 %
    ((), 20, 6, Behavior(), 12, "ScaleUpLimit"),
    (((5, 4),), 20, 7, Behavior(), 7, "ScaleUpLimit"),  # done for this period
    (((20, 4),), 20, 7, Behavior(), 14, "ScaleUpLimit"),
    ((), 0, 10, Behavior(), 1, "TooFewReplicas"),
    ((), 99, 30, Behavior(), 40, "TooManyReplicas"),
    ((), 9, 3, Behavior(up=ONE, down=ONE), 4, "ScaleUpLimit"),
    (((9, 1),), 9, 4, Behavior(up=ONE, down=ONE), 4, "ScaleUpLimit"),
    (((11, 1),), 9, 4, Behavior(up=ONE, down=ONE), 5, "ScaleUpLimit"),
    ((), 1, 4, Behavior(up=ONE, down=ONE), 3, "ScaleDownLimit"),
    (((9, -1),), 1, 3, Behavior(up=ONE, down=ONE), 3, "ScaleDownLimit"),
    ((), 9, 3, Behavior(up=Rules(UP.policies, "Min")), 6, "ScaleUpLimit"),
    ((), 9, 3, Behavior(up=Rules(UP.policies, "Disabled")), 3, "ScaleUpLimit"),
    ((), 1, 4, Behavior(down=Rules((Policy("Pods", 3, 60), Policy("Percent", 50, 60)), "Min")), 2, "ScaleDownLimit"),
]


@pytest.mark.parametrize(("changes", "want", "current", "rules", "replicas", "reason"), PACES)
def test_pace(changes: Any, want: int, current: int, rules: Behavior, replicas: int, reason: str) -> None:
    memory = Memory(changes=tuple((NOW - ago, by) for ago, by in changes))
    verdict, limited = pace(memory, want, current, 1, 40, rules, NOW)
    assert (verdict.replicas, verdict.reason) == (replicas, reason)
    assert limited == (reason != "DesiredWithinRange")


@given(
    st.integers(0, 60),
    st.integers(1, 40),
    st.lists(st.tuples(st.floats(0, 30), st.integers(-5, 5)), max_size=5),
    st.sampled_from(["Max", "Min", "Disabled"]),
)
def test_the_pace_stays_between_here_and_there(want: int, current: int, changes: Any, select: str) -> None:
    rules = Behavior(Rules(UP.policies, select), Rules(DOWN.policies, select))
    memory = Memory(changes=tuple((NOW - ago, by) for ago, by in changes))
    verdict, _ = pace(memory, want, current, 1, 40, rules, NOW)
    low, high = sorted((current, want))
    assert min(low, current) <= verdict.replicas <= high or verdict.replicas in (1, 40)
    assert 1 <= verdict.replicas <= 40


def test_memory_forgets_what_no_rule_asks_for() -> None:
    memory = Memory(((NOW - 301, 9), (NOW - 299, 5)), ((NOW - 16, 1), (NOW - 14, 2)))
    assert memory.recommend(3, NOW, Behavior()).recommended == ((NOW - 299, 5), (NOW, 3))
    assert memory.change(-1, NOW, Behavior()).changes == ((NOW - 14, 2), (NOW, -1))
