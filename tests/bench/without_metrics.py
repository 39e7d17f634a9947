"""`python -m tests.bench.without_metrics run …`: an agent that measures and counts nothing, to know what that costs.

The modules of the metrics pipeline are replaced by stand-ins before the agent's are imported.
"""

from __future__ import annotations

import asyncio
import sys
import types
from typing import Any

from minik8s import metrics
from minik8s.__main__ import main


async def for_ever(*args: Any) -> None:
    await asyncio.Event().wait()


class Inert:
    """Takes whatever it is made of, and does nothing."""

    def __init__(self, *args: Any, **more: Any) -> None: ...

    run = staticmethod(for_ever)

    def pages(self) -> dict[str, Any]:
        return {"/stats/summary": None}

    async def summary(self) -> None: ...


class Kubelets(Inert):
    def __init__(self, context: Any) -> None:
        self.context = context
        self.here: dict[str, Any] = {}


def nothing(*args: Any, **more: Any) -> None:
    return None


STAND_INS: dict[str, dict[str, Any]] = {
    "minik8s.kubelet.figures_sampler": {"Sampler": Inert, "Pages": Inert, "steady": Inert},
    "minik8s.kubelet.figures_node": {"read_node": nothing, "simulated": nothing},
    "minik8s.kubelet.accelerators": {"present": nothing},
    "minik8s.apiserver.resource_metrics": {"ResourceMetrics": nothing, "Kubelets": Kubelets},
    "minik8s.web.history": {"History": Inert, "METRICS": "", "collect": for_ever},
}

if __name__ == "__main__":
    for name, content in STAND_INS.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)
    for kind, method in ((metrics.Counter, "inc"), (metrics.Gauge, "set"), (metrics.Histogram, "observe")):
        setattr(kind, method, nothing)
    for child, method in ((metrics.Value, "inc"), (metrics.Distribution, "observe")):
        setattr(child, method, nothing)
    main()
