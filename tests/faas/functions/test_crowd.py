"""Crowds of pods: what gateways tell, what a restart does, how load moves to another shape, who shares."""

from __future__ import annotations

import pytest

from minik8s.api.kinds.function import Function, FunctionSpec, FunctionStatus, Scale, Share
from minik8s.api.kinds.functionrevision import FunctionRevision, FunctionRevisionSpec, FunctionRevisionStatus
from minik8s.api.meta import Condition, ObjectMeta
from minik8s.faas.functions.crowd import FORGOTTEN, Demand, Group, Want, group_of, key_of, unit, wants
from minik8s.faas.functions.scale import Bounds

NOW = 1000.0


def function(name: str = "f", *, traffic: dict[str, int] | None = None, **spec: object) -> Function:
    return Function(
        metadata=ObjectMeta(name=name, namespace="default", uid=name),
        spec=FunctionSpec(**spec),  # type: ignore[arg-type]
        status=FunctionStatus(traffic=tuple(Share(rev, percent) for rev, percent in (traffic or {}).items())),
    )


def rev(name: str, shape: str, *, ready: bool = True) -> FunctionRevision:
    loaded = (Condition(type="Ready", status="True"),) if ready else ()
    return FunctionRevision(
        metadata=ObjectMeta(name=name),
        spec=FunctionRevisionSpec(shape=shape),
        status=FunctionRevisionStatus(conditions=loaded),
    )


def tell(
    group: Group, calls: float, *, waiting: int = 0, now: float = NOW, gateway: str = "n1", name: str = "f"
) -> None:
    group.tell(gateway, Demand(f"default/{name}", "s", calls, waiting, 1 if calls else 0), 7.0, now)


WANT = Want(rev("f-00001", "s"), Bounds(0, 10, 60.0, 7.0), called=True)


def test_gateways_and_functions_are_added_up() -> None:
    group = Group()
    tell(group, 7.0)
    tell(group, 14.0, gateway="n2", now=NOW + 0.5)
    tell(group, 7.0, name="g", now=NOW + 1)
    assert group.samples[-1].load == pytest.approx(4.0)
    assert group.busy == NOW + 1


def test_a_gateway_that_falls_silent_does_not_count() -> None:
    group = Group()
    tell(group, 70.0, gateway="lost")
    tell(group, 7.0, now=NOW + 3)
    assert group.samples[-1].load == pytest.approx(1.0)


def test_calls_that_wait_count_as_long_as_they_are_told_of() -> None:
    group = Group()
    tell(group, 0.0, waiting=1)
    assert group.near == {"n1"}
    first = group.decide(WANT, 0, NOW)
    assert first is not None
    assert first.desired == 1
    tell(group, 0.5, now=NOW + 1)
    assert group.near == set()


def test_reports_close_to_each_other_are_one_sample() -> None:
    group = Group()
    for step in range(100):
        tell(group, 7.0, now=NOW + step * 0.02)
    assert len(group.samples) < 25
    assert group.samples[-1].load == pytest.approx(1.0)


def test_a_restart_keeps_pods_until_it_is_known_that_they_are_idle() -> None:
    groups: dict[str, Group] = {}
    group = group_of(groups, "s", 5, NOW, called=True)
    now = group.decide(WANT, 5, NOW)
    assert now is not None
    assert now.desired == 5
    later = group.decide(WANT, 5, NOW + 61)
    assert later is not None
    assert later.desired == 0


def test_what_was_never_called_wants_nothing() -> None:
    decision = group_of({}, "s", 0, NOW, called=True).decide(WANT, 0, NOW)
    assert decision is not None
    assert decision.desired == 0


def test_calls_that_move_to_another_shape_find_as_many_pods() -> None:
    groups: dict[str, Group] = {}
    old = group_of(groups, "old", 0, NOW, called=True)
    for second in range(30):
        tell(old, 28.0, now=NOW + second)
        old.decide(WANT, 4, NOW + second)
    assert group_of(groups, "new", 1, NOW + 30, called=False).desired == 1  # its trial
    groups["new"].samples.clear()
    moved = group_of(groups, "new", 1, NOW + 31, called=True).decide(WANT, 1, NOW + 31)
    assert moved is not None
    assert moved.desired >= 4


def test_a_shape_without_traffic_goes_when_its_calls_have_ended() -> None:
    group = Group(desired=3)
    tell(group, 7.0)
    still = group.decide(None, 3, NOW + 1)
    assert still is not None
    assert still.desired == 3
    assert group.decide(None, 3, NOW + FORGOTTEN + 1) is None


def test_shapes_that_calls_go_to_and_that_of_the_newest_are_wanted() -> None:
    it = function(traffic={"f-00001": 30, "f-00002": 70}, scale=Scale(minReplicas=3, maxReplicas=9))
    history = [rev("f-00001", "a"), rev("f-00002", "b"), rev("f-00003", "c"), rev("f-00004", "d", ready=False)]
    found = wants([it], {"f": history})
    assert {shape: (want.bounds.least, want.called, want.loading) for shape, want in found.items()} == {
        "a": (1, True, ""),
        "b": (3, True, ""),
        "d": (0, False, "f-00004"),
    }


def test_revisions_of_one_shape_are_one_want() -> None:
    it = function(traffic={"f-00001": 50, "f-00002": 50}, scale=Scale(minReplicas=2))
    found = wants([it], {"f": [rev("f-00001", "a"), rev("f-00002", "a")]})
    assert found["a"].bounds.least == 2


def test_functions_that_share_get_what_the_most_demanding_needs() -> None:
    one = function("f", traffic={"f-00001": 100}, isolation="Process", scale=Scale(minReplicas=1, maxReplicas=3))
    two = function("g", traffic={"g-00001": 100}, isolation="Process", scale=Scale(maxReplicas=8, idleSeconds=300))
    found = wants([one, two], {"f": [rev("f-00001", "a")], "g": [rev("g-00001", "a")]})
    assert found["a"].bounds == Bounds(1, 8, 300, 0.0)
    assert key_of(one) == key_of(two) == "default/Shared"
    assert key_of(function()) == "default/f"


def test_a_unit_is_what_one_pod_is_meant_to_have() -> None:
    assert unit(function()) == pytest.approx(7.0)
    assert unit(function(concurrency=1, scale=Scale(targetUtilization=100))) == pytest.approx(1.0)
