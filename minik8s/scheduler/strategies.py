"""How a node is chosen among those that fit; switched while running by `minik8s cfg sched=NAME`.

Filters always hold. A strategy comes before the scores: they decide only between nodes that are equal to it, and alone
under `least-allocated`. Live utilisation is counted with what was placed since it was measured, so that a burst of pods
does not pile up on the node that was idle a moment ago.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from minik8s.scheduler.model import NodeInfo


@dataclass(frozen=True, slots=True)
class Strategy:
    """`pick`: the best by `value` (more is better) and then by score; any at random; or the next by name.

    `live`: goes by what nodes use now, which has to be measured.
    """

    name: str
    pick: Literal["best", "random", "next"] = "best"
    value: Callable[[NodeInfo], float] | None = None
    live: bool = False


def used_cpu(info: NodeInfo) -> float:
    """Cores: measured plus requested since; all requested if nothing was measured."""
    if info.usage is None:
        return info.cpu / 1000
    return info.usage.cpu + sum(pod.shape.cpu for pod in info.fresh.values()) / 1000


def used_memory(info: NodeInfo) -> float:
    """Bytes, as `used_cpu`."""
    if info.usage is None:
        return info.memory
    return info.usage.memory + sum(pod.shape.memory for pod in info.fresh.values())


DEFAULT: Final = Strategy("least-allocated")
STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {
        strategy.name: strategy
        for strategy in (
            DEFAULT,
            Strategy("random", "random"),
            Strategy("round-robin", "next"),
            Strategy("min-pods", value=lambda info: -len(info.pods)),
            Strategy("max-pods", value=lambda info: len(info.pods)),
            Strategy("min-cpu", value=lambda info: -used_cpu(info), live=True),
            Strategy("min-mem", value=lambda info: -used_memory(info), live=True),
        )
    }
)
