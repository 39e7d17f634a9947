"""What the scheduler tells Prometheus, under kube-scheduler's names."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import ref

from minik8s.metrics import Counter, Histogram, Number, Reading, labels
from minik8s.scheduler.queue import SchedulingQueue

PROFILE = "default-scheduler"
_ATTEMPTS = Counter("scheduler_schedule_attempts_total", "Attempts to place a pod, by result.", ("result", "profile"))
_DURATION = Histogram(
    "scheduler_scheduling_attempt_duration_seconds",
    "Time to decide where a pod goes, its binding apart.",
    ("result", "profile"),
    bounds=(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 0.001, 0.002, 0.005, 0.01, 0.1, 1.0),
)


def attempted(result: str, seconds: float) -> None:
    """`result`: scheduled, unschedulable or error (its binding failed)."""
    _ATTEMPTS.labels(result, PROFILE).inc()
    _DURATION.labels(result, PROFILE).observe(seconds)


def show_queue(queue: SchedulingQueue) -> None:
    """Let `scheduler_pending_pods` tell of this queue, as long as it is there."""
    seen = ref(queue)

    def pending() -> Iterator[tuple[str, Number]]:
        known = seen()
        for name, count in known.counts().items() if known is not None else ():
            yield labels(queue=name), count

    Reading("scheduler_pending_pods", "gauge", "Pods that wait for a node, by what for.", pending)
