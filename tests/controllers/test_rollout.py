"""Laws and tables of a Deployment's arithmetic."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.kinds.replicaset import ReplicaSet
from minik8s.controllers.rollout import bounds, needs_scaling, new_size, roll, scale, superfluous, total

from .objects import deployment, replica_set


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (4, 0, 0, (0, 1)),
        (3, 0, "10%", (0, 1)),
        (10, 2, 3, (2, 3)),
        (2, 0, 5, (0, 2)),
        (0, "25%", "25%", (0, 1)),
    ],
)
def test_percentages_round_in_favour_of_safety(replicas, surge, unavailable, expected):
    assert bounds(deployment(replicas, surge=surge, unavailable=unavailable)) == expected


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (replica_set("new", 0), [replica_set("old", 10)], {"new": 3, "old": 8}),
        (replica_set("new", 3, available=0), [replica_set("old", 8)], {"new": 5}),
        (replica_set("new", 5, available=3), [replica_set("old", 8)], {"old": 5}),
        (replica_set("new", 10), [replica_set("old", 3)], {"old": 0}),
        # Unhealthy old pods go first and cost no availability.
        (replica_set("new", 3, available=0), [replica_set("old", 10, available=4)], {"old": 8}),
        (replica_set("new", 12), [], {"new": 10}),
    ],
)
def test_each_step_goes_as_far_as_the_bounds_allow(new, old, expected):
    assert roll(deployment(10), new, old) == expected


def test_the_oldest_set_shrinks_first():
    old = [replica_set("older", 5, age=2), replica_set("newer", 5, age=1)]
    assert roll(deployment(10), replica_set("new", 3, available=0), old) == {"older": 3}


def with_sizes(sets: list[ReplicaSet], sizes: dict[str, int]) -> list[ReplicaSet]:
    """The sets after a scaling: pods beyond the new size are gone from the counts, the least available ones first."""
    result = []
    for each in sets:
        size = sizes.get(each.metadata.name, each.spec.replicas)
        status = each.status
        status = msgspec.structs.replace(status, replicas=size, availableReplicas=min(status.availableReplicas, size))
        spec = msgspec.structs.replace(each.spec, replicas=size)
        result.append(msgspec.structs.replace(each, spec=spec, status=status))
    return result


amounts = st.one_of(st.integers(0, 5), st.integers(0, 100).map(lambda n: f"{n}%"))


@given(
    replicas=st.integers(0, 20),
    surge=amounts,
    unavailable=amounts,
    steps=st.lists(st.integers(0, 20), max_size=30),
    olds=st.integers(1, 3),
)
def test_rolling_laws(replicas, surge, unavailable, steps, olds):
    """Whenever pods become available: never above the surge, never below what must be available, and it ends."""
    target = deployment(replicas, surge=surge, unavailable=unavailable)
    limits = bounds(target)
    share, rest = divmod(replicas, olds)
    sets = [replica_set("new", 0)]
    sets += [replica_set(f"old{i}", share + (rest if i == 0 else 0), age=i + 1) for i in range(olds)]
    for made_ready in [*steps, *[100] * 200]:
        new, *old = sets
        sizes = roll(target, new, old)
        sets = with_sizes(sets, sizes)
        assert total(sets) <= replicas + limits.surge
        assert sum(each.status.availableReplicas for each in sets) >= replicas - limits.unavailable
        new = sets[0]
        available = min(new.spec.replicas, new.status.availableReplicas + made_ready)
        done = not sizes and available == new.status.availableReplicas
        status = msgspec.structs.replace(new.status, availableReplicas=available)
        sets[0] = msgspec.structs.replace(new, status=status)
        if done and made_ready:
            break
    assert [each.spec.replicas for each in sets] == [replicas] + [0] * olds
    assert roll(target, sets[0], sets[1:]) == {}


@given(replicas=st.integers(0, 30), before=st.integers(1, 30), new=st.integers(1, 20), old=st.integers(1, 20))
def test_scaling_in_the_middle_of_a_rollout_gives_everybody_a_share(replicas, before, new, old):
    target = deployment(replicas)
    marks = {"desired_replicas": str(before), "max_replicas": str(before + bounds(deployment(before)).surge)}
    sets = [replica_set("new", new, available=0, **marks), replica_set("old", old, age=1, **marks)]
    after = with_sizes(sets, scale(target, sets[0], sets[1:]))
    assert total(after) == (replicas + bounds(target).surge if replicas else 0)
    assert all(each.spec.replicas >= 0 for each in after)


def test_proportional_scaling_as_documented():
    """10 replicas, maxSurge 3, maxUnavailable 2, 8 old and 5 new pods; scaled to 15: 5 more, 3 to the larger set."""
    marks = {"desired_replicas": "10", "max_replicas": "13"}
    sets = [replica_set("new", 5, available=0, **marks), replica_set("old", 8, age=1, **marks)]
    target = deployment(15, surge=3, unavailable=2)
    assert needs_scaling(target, sets)
    assert scale(target, sets[0], sets[1:]) == {"old": 11, "new": 7}


def test_the_only_active_set_takes_a_new_size():
    assert scale(deployment(5), replica_set("new", 2), [replica_set("old", 0)]) == {"new": 5}
    assert scale(deployment(5), None, [replica_set("older", 0, age=2), replica_set("old", 0, age=1)]) == {"old": 5}


def test_recreate_makes_all_at_once():
    recreate = msgspec.structs.replace(
        deployment(4), spec=msgspec.convert({"replicas": 4, "strategy": {"type": "Recreate"}}, type(deployment(4).spec))
    )
    assert new_size(recreate, 0, 0) == 4


def test_history_keeps_the_newest_revisions():
    old = [replica_set(f"r{n}", 0, revision=str(n)) for n in (3, 1, 2, 4)]
    target = deployment(1, revisionHistoryLimit=2)
    assert [each.metadata.name for each in superfluous(target, old)] == ["r1", "r2"]
    busy = [*old, replica_set("r0", 0, status=1, revision="0")]
    assert [each.metadata.name for each in superfluous(target, busy)] == ["r1", "r2"]
