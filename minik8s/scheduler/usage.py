"""Where live utilisation of nodes comes from: a provider, or what the kubelet writes on its Node."""

from __future__ import annotations

from typing import Protocol

from minik8s.api.kinds.node import Node
from minik8s.api.quantity import parse_quantity, to_bytes
from minik8s.clock import parse_time
from minik8s.scheduler.model import Usage

CPU_ANNOTATION = "minik8s.io/usage-cpu"  # a quantity of cores, e.g. 250m
MEMORY_ANNOTATION = "minik8s.io/usage-memory"  # a quantity of bytes, e.g. 512Mi
TIME_ANNOTATION = "minik8s.io/usage-time"  # RFC 3339, when it was measured


class UsageProvider(Protocol):
    def __call__(self, node: Node) -> Usage | None:
        """What `node` used when it was last measured; None if nobody knows. Answers at once, from memory."""
        ...


def annotated_usage(node: Node) -> Usage | None:
    """The provider that reads the node's annotations; what is written wrongly counts as not written."""
    notes = node.metadata.annotations
    try:
        cpu, memory = parse_quantity(notes[CPU_ANNOTATION]), to_bytes(notes[MEMORY_ANNOTATION])
        return Usage(float(cpu), memory, parse_time(notes.get(TIME_ANNOTATION, "")))
    except (KeyError, ValueError):
        return None
