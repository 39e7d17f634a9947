"""What a pod as a whole asks for and may use, from what its containers say; and the quality of service that follows.

Init containers run one after another before the others, so they need the largest of them, not their sum; a sidecar
(an init container that restarts always) stays, so it counts with the containers and with every init container after
it. Amounts are integers: `cpu` in thousandths of a core, all else in whole units (bytes, devices), rounded up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from minik8s.api.kinds.pod import Container, PodSpec
from minik8s.api.quantity import Written, cpu_millis, parse_quantity, to_count

Amounts = dict[str, int]
QOSClass = Literal["Guaranteed", "Burstable", "BestEffort"]
CPU, MEMORY, PODS = "cpu", "memory", "pods"

# What the scheduler's scores (never its filters) assume of a container that requests nothing, so that such pods
# spread too; Kubernetes' schedutil.DefaultMilliCPURequest and DefaultMemoryRequest.
USUAL_CPU: Final = 100  # millicores
USUAL_MEMORY: Final = 200 * 2**20  # bytes


def amounts(quantities: Mapping[str, Written]) -> Amounts:
    """`{"cpu": "500m", "memory": "64Mi"}` -> `{"cpu": 500, "memory": 67108864}`. ValueError for what is no quantity."""
    return {name: cpu_millis(value) if name == CPU else to_count(value) for name, value in quantities.items()}


def is_sidecar(container: Container) -> bool:
    """Whether an init container is one that keeps running beside the others."""
    return container.restartPolicy == "Always"


def effective(spec: PodSpec, of: Callable[[Container], Mapping[str, int]]) -> Amounts:
    """Sum of containers and sidecars, or the largest init container with the sidecars before it if that is more."""
    steady: Amounts = {}
    peak: Amounts = {}
    for container in spec.initContainers:
        asked = of(container)
        if is_sidecar(container):
            _add(steady, asked)
        for name, amount in asked.items():
            beside = 0 if is_sidecar(container) else steady.get(name, 0)
            peak[name] = max(peak.get(name, 0), amount + beside)
    for container in spec.containers:
        _add(steady, of(container))
    return {name: max(steady.get(name, 0), peak.get(name, 0)) for name in (*steady, *(peak.keys() - steady.keys()))}


def pod_requests(spec: PodSpec) -> Amounts:
    """What must be free on a node for this pod, with its overhead; without the pod itself as one of `pods`."""
    total = effective(spec, lambda container: amounts(container.resources.requests))
    _add(total, amounts(spec.overhead))
    return total


def usual_requests(spec: PodSpec) -> tuple[int, int]:
    """(millicores, bytes) that scores count with: requests, or the usual ones where a container says nothing."""

    def assumed(container: Container) -> Amounts:
        return {CPU: USUAL_CPU, MEMORY: USUAL_MEMORY} | {
            name: amount for name, amount in amounts(container.resources.requests).items() if name in (CPU, MEMORY)
        }

    total = effective(spec, assumed)
    _add(total, amounts(spec.overhead))
    return total.get(CPU, 0), total.get(MEMORY, 0)


def qos_class(spec: PodSpec) -> QOSClass:
    """Guaranteed: every container limits CPU and memory and requests just that. BestEffort: none says anything."""
    containers = (*spec.containers, *spec.initContainers)
    said = [value for c in containers for kind in (c.resources.requests, c.resources.limits)
            for name, value in kind.items() if name in (CPU, MEMORY)]  # fmt: skip
    if not any(parse_quantity(value) > 0 for value in said):
        return "BestEffort"
    return "Guaranteed" if all(_fixed(c, name) for c in containers for name in (CPU, MEMORY)) else "Burstable"


def _fixed(container: Container, name: str) -> bool:
    limit = container.resources.limits.get(name)
    if limit is None or parse_quantity(limit) == 0:
        return False
    request = container.resources.requests.get(name, limit)  # defaulting sets it so; a bare spec means the same
    return parse_quantity(request) == parse_quantity(limit)


def _add(total: Amounts, more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount
