from __future__ import annotations

import pytest

from minik8s.scheduler.queue import CONCERNS, FIRST_BACKOFF, FLUSH_AFTER, LAST_BACKOFF, Happening, SchedulingQueue

RESOURCES = frozenset(("NodeResourcesFit",))
TAINTS = frozenset(("TaintToleration",))


def test_priority_then_order_of_arrival() -> None:
    queue = SchedulingQueue()
    for key, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        queue.add(key, priority)
    queue.add("a", 0)
    assert [queue.pop(0) for _ in range(5)] == ["b", "d", "c", "a", None]


def test_a_removed_pod_is_never_given_out() -> None:
    queue = SchedulingQueue()
    queue.add("a", 0)
    queue.remove("a")
    assert queue.pop(0) is None
    assert "a" not in queue
    queue.add("a", 0)
    assert (queue.pop(0), queue.pop(0)) == ("a", None)
    queue.remove("a")
    queue.failed("a", RESOURCES, 0)  # gone while it was being tried
    assert queue.next_due() is None


def test_set_aside_until_something_that_concerns_it_happens() -> None:
    queue = SchedulingQueue()
    queue.add("a", 0)
    assert queue.pop(0) == "a"
    queue.failed("a", TAINTS, 0)
    assert not queue.happened(Happening.POD_GONE, 10)
    assert queue.pop(10) is None
    assert queue.happened(Happening.NODE, 10)
    assert queue.pop(10) == "a"


@pytest.mark.parametrize("plugin", sorted(CONCERNS))
def test_every_rule_can_be_cured_by_a_node(plugin: str) -> None:
    assert Happening.NODE in CONCERNS[plugin]


def test_back_off_doubles_up_to_a_limit_and_starts_when_the_attempt_failed() -> None:
    queue, now, waits = SchedulingQueue(), 100.0, []
    queue.add("a", 0)
    for _ in range(10):
        assert queue.pop(now) == "a"
        queue.retry("a", now)
        due = queue.next_due()
        assert due is not None
        waits.append(due - now)
        assert queue.pop(due - 0.001) is None
        now = due
    assert waits[0] == pytest.approx(FIRST_BACKOFF)
    assert waits[1] == pytest.approx(2 * FIRST_BACKOFF)
    assert waits[-1] == pytest.approx(LAST_BACKOFF)
    assert queue.pop(now) == "a"
    queue.failed("a", RESOURCES, now)
    queue.happened(Happening.NODE, now + 1)
    assert queue.next_due() == pytest.approx(now + LAST_BACKOFF)


def test_what_happens_during_the_attempt_is_not_missed() -> None:
    queue = SchedulingQueue()
    queue.add("a", 0)
    assert queue.pop(0) == "a"
    queue.happened(Happening.POD_GONE, 0)
    queue.failed("a", RESOURCES, 0)
    assert queue.counts()["backoff"] == 1
    assert queue.pop(FIRST_BACKOFF) == "a"
    queue.add("a", 0)  # the pod itself has changed meanwhile
    queue.failed("a", TAINTS, 1)
    assert queue.counts()["backoff"] == 1


def test_flushed_after_five_minutes_whatever_happens() -> None:
    queue = SchedulingQueue()
    queue.add("a", 0)
    queue.pop(0)
    queue.failed("a", TAINTS, 7)
    assert queue.next_due() == 7 + FLUSH_AFTER
    assert queue.pop(7 + FLUSH_AFTER - 1) is None
    assert queue.pop(7 + FLUSH_AFTER) == "a"
    queue.failed("a", frozenset(), 400)
    assert queue.next_due() == 400 + FLUSH_AFTER


def test_gates_hold_a_pod_until_they_are_gone() -> None:
    queue = SchedulingQueue()
    queue.gate("a")
    assert "a" in queue
    assert not queue.happened(Happening.NODE, 0)
    assert queue.pop(1000) is None
    assert queue.counts() == {"active": 0, "backoff": 0, "unschedulable": 0, "gated": 1}
    queue.add("a", 0)
    assert queue.pop(1000) == "a"


def test_a_changed_pod_that_was_set_aside_is_tried_at_once() -> None:
    queue = SchedulingQueue()
    queue.add("a", 0)
    queue.pop(0)
    queue.failed("a", RESOURCES, 0)
    queue.add("a", 3)
    assert queue.pop(0) == "a"
    assert queue.counts()["unschedulable"] == 0
