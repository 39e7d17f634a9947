"""Which pods go first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minik8s.controllers.pod_control import batches
from minik8s.controllers.replicas import first_to_go, next_available

from .objects import NOW, pod

ORDER = [
    pod("unassigned", node="", phase="Pending"),
    pod("pending", phase="Pending"),
    pod("unknown", phase="Unknown"),
    pod("not-ready", ready=False),
    pod("cheap", ready=True, annotations={"controller.kubernetes.io/pod-deletion-cost": "-5"}),
    pod("just-ready", ready=True, since=NOW - 3),
    pod("restarted", ready=True, restarts=4),
    pod("young", ready=True, created=NOW - 65),
    pod("old", ready=True, created=NOW - 9000),
    pod("dear", ready=True, annotations={"controller.kubernetes.io/pod-deletion-cost": "7"}),
]


@given(st.permutations(ORDER), st.integers(0, len(ORDER)))
def test_kubernetes_order(pods, count):
    assert [p.metadata.name for p in first_to_go(pods, count, NOW)] == [p.metadata.name for p in ORDER[:count]]


def test_doubled_up_pods_go_before_lonely_ones():
    lonely, first, second = (
        pod("a", ready=True, node="n1"),
        pod("b", ready=True, node="n2"),
        pod("c", ready=True, node="n2"),
    )
    gone = first_to_go([lonely, first, second], 1, NOW, related=[lonely, first, second])
    assert gone[0].spec.nodeName == "n2"


def test_next_available_tells_when_to_look_again():
    pods = [pod("a", ready=True, since=NOW - 4), pod("b", ready=True, since=NOW - 60), pod("c", ready=False)]
    assert next_available(pods, 10, NOW) == 6.0
    assert next_available(pods, 3, NOW) is None


@given(st.lists(st.integers(), max_size=200))
def test_batches_double_and_lose_nothing(items):
    parts = list(batches(items))
    assert [x for part in parts for x in part] == items
    assert [len(part) for part in parts[:-1]] == [2**n for n in range(len(parts[:-1]))]
