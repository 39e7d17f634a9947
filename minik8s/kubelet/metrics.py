"""What a kubelet tells Prometheus of its own work, under kubelet's names. Simulated nodes in one process add up."""

from __future__ import annotations

from minik8s.metrics import Counter, Histogram

RELIST = Histogram("kubelet_pleg_relist_duration_seconds", "Time to list all containers.")
OPERATIONS = Histogram(
    "kubelet_runtime_operations_duration_seconds",
    "Time that the engine's work takes, by what is done.",
    ("operation_type",),
    bounds=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)
ERRORS = Counter("kubelet_runtime_operations_errors_total", "What failed and is tried again.", ("operation_type",))
POD_START = Histogram(
    "kubelet_pod_start_duration_seconds",
    "Time from when the kubelet sees a pod until it runs.",
    bounds=(0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0),
)
