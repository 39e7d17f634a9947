"""What was called lately, who called whom, and how often: a bounded memory, and what Prometheus reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from minik8s import metrics
from minik8s.clock import rfc3339_milli

KEPT: Final = 200  # records of each function
FUNCTIONS: Final = 2000  # that are remembered: the one that was called least lately goes first
EDGES: Final = 2000
BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds

Json = dict[str, Any]
_LABELS = ("namespace", "function")
REQUESTS = metrics.Counter("faas_requests_total", "Calls of functions by status.", (*_LABELS, "code"))
DURATION = metrics.Histogram(
    "faas_request_duration_seconds", "Time of calls, waiting included.", _LABELS, bounds=BOUNDS
)
COLD = metrics.Counter(
    "faas_cold_starts_total", "Calls that waited for a pod, or for their code to be loaded.", _LABELS
)


class Record(NamedTuple):
    """A call that has ended. `time` in Unix seconds, when it came; `parent` is the function that handed over to it.
    Of its `seconds` it was `waited` for a place at a pod, and for the code to be `loaded` there."""

    id: str
    time: float
    function: str
    revision: str
    status: int
    seconds: float
    cold: bool
    trace: str
    parent: str
    error: str
    waited: float = 0.0
    loaded: float = 0.0

    def shown(self) -> Json:
        return {
            "id": self.id, "time": rfc3339_milli(self.time), "function": self.function, "revision": self.revision,
            "status": self.status, "seconds": round(self.seconds, 6), "cold": self.cold, "traceId": self.trace,
            "parent": self.parent, "error": self.error,
            "waitSeconds": round(self.waited, 6), "loadSeconds": round(self.loaded, 6),
        }  # fmt: skip


class Records:
    """Of one gateway. Functions are named by (namespace, name)."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], deque[Record]] = {}
        self._counted: dict[tuple[str, str, int], tuple[metrics.Value, metrics.Distribution]] = {}
        self._edges: dict[tuple[str, str, str], int] = {}  # namespace, caller, callee

    def add(self, namespace: str, record: Record) -> None:
        key = (namespace, record.function)
        calls = self._calls.get(key)
        if calls is None:
            if len(self._calls) >= FUNCTIONS:
                del self._calls[next(iter(self._calls))]
            calls = self._calls[key] = deque(maxlen=KEPT)
        calls.append(record)
        place = (namespace, record.function, record.status)
        counted = self._counted.get(place)
        if counted is None:
            requests = REQUESTS.labels(namespace, record.function, str(record.status))
            counted = self._counted[place] = requests, DURATION.labels(namespace, record.function)
        counted[0].inc()
        counted[1].observe(record.seconds)
        if record.cold:
            COLD.labels(namespace, record.function).inc()

    def handed_over(self, namespace: str, caller: str, callee: str) -> None:
        """An edge of the graph of calls."""
        key = (namespace, caller, callee)
        if key not in self._edges and len(self._edges) >= EDGES:
            del self._edges[next(iter(self._edges))]
        self._edges[key] = self._edges.get(key, 0) + 1

    def shown(self, namespace: str, name: str = "") -> Json:
        """Calls of a function, or of all of a namespace; with the edges that it is an end of."""
        keys: Iterable[tuple[str, str]] = [(namespace, name)] if name else [k for k in self._calls if k[0] == namespace]
        items = [record.shown() for key in keys for record in self._calls.get(key, ())]
        edges = [
            {"from": caller, "to": callee, "count": count}
            for (space, caller, callee), count in self._edges.items()
            if space == namespace and (not name or name in (caller, callee))
        ]
        return {"items": items, "edges": edges}


def merged(pages: Iterable[Json], limit: int = KEPT) -> Json:
    """What several gateways say of the same, the newest calls first."""
    items: list[Json] = []
    counts: dict[tuple[str, str], int] = {}
    for page in pages:
        items += page.get("items", ())
        for edge in page.get("edges", ()):
            key = (edge["from"], edge["to"])
            counts[key] = counts.get(key, 0) + edge["count"]
    items.sort(key=lambda item: str(item["time"]), reverse=True)
    edges = [{"from": caller, "to": callee, "count": count} for (caller, callee), count in sorted(counts.items())]
    return {"items": items[:limit], "edges": edges}
