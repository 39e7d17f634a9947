"""A node has so much CPU, memory, pods and devices; requests must fit, and the emptier node is liked better."""

from __future__ import annotations

from minik8s.api.resources import PODS
from minik8s.scheduler.model import NodeInfo, PodInfo, Reason, amount_text, free

NAME = "NodeResourcesFit"


def reject(pod: PodInfo, info: NodeInfo) -> tuple[Reason, ...]:
    if pod.shape.fault:
        return (Reason(NAME, "node(s) cannot tell what the pod requests", pod.shape.fault, permanent=True),)
    allocatable, requested = info.allocatable, info.requested
    for name, amount in pod.shape.requests:
        if amount > allocatable.get(name, 0) - requested.get(name, 0):
            return _lacks(pod, info)
    return ()


def _lacks(pod: PodInfo, info: NodeInfo) -> tuple[Reason, ...]:
    """All that is short, in words; permanent where even the empty node has too little."""
    lacking = [(name, amount) for name, amount in pod.shape.requests if amount > free(info, name)]
    permanent = any(amount > info.allocatable.get(name, 0) for name, amount in lacking)
    return tuple(
        Reason(
            NAME,
            "Too many pods" if name == PODS else f"Insufficient {name}",
            f"requested {amount_text(name, amount)}, free {amount_text(name, max(0, free(info, name)))}",
            permanent,
        )
        for name, amount in lacking
    )


def _shares(pod: PodInfo, info: NodeInfo) -> tuple[float, float]:
    """The part of CPU and of memory that would be requested with `pod` there, 0 to 1."""
    cpu, memory = info.allocatable.get("cpu", 0), info.allocatable.get("memory", 0)
    return (
        min(1.0, (info.cpu + pod.shape.cpu) / cpu) if cpu else 1.0,
        min(1.0, (info.memory + pod.shape.memory) / memory) if memory else 1.0,
    )


def least_allocated(pod: PodInfo, info: NodeInfo) -> float:
    """100 for an empty node, 0 for a full one: the mean over CPU and memory."""
    cpu, memory = _shares(pod, info)
    return 100.0 - 50.0 * (cpu + memory)


def balanced(pod: PodInfo, info: NodeInfo) -> float:
    """100 where CPU and memory would be used alike, 50 where one is full and the other empty."""
    cpu, memory = _shares(pod, info)
    return 100.0 - 50.0 * abs(cpu - memory)
