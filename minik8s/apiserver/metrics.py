"""Counts and times of requests, cheap enough to be kept for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from minik8s.apiserver.routes import RequestInfo
from minik8s.metrics import REGISTRY, Counter, Distribution, Histogram, Number, Reading, Registry, Value, page

BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds
_LABELS = ("verb", "group", "version", "resource", "subresource", "scope")
# As Kubernetes' API server calls them here, and dashboards made for it ask.
_VERBS = {"create": "POST", "update": "PUT"}
_CONNECTS = frozenset(("exec", "attach", "portforward", "proxy"))


class RequestMetrics:
    """Of one API server; what it shows besides is the process's."""

    def __init__(self) -> None:
        self._registry = Registry()
        self._totals = Counter(
            "apiserver_request_total",
            "Requests by verb, resource and HTTP code.",
            (*_LABELS, "code"),
            registry=self._registry,
        )
        self._durations = Histogram(
            "apiserver_request_duration_seconds",
            "Time to answer by verb and resource, in seconds.",
            _LABELS,
            bounds=BUCKETS,
            registry=self._registry,
        )

        self._found: dict[tuple[Any, ...], tuple[Value, Distribution]] = {}

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that somebody else keeps."""
        self.gauges(name, text, lambda: [("", read())])

    def gauges(self, name: str, text: str, read: Callable[[], Iterable[tuple[str, Number]]]) -> None:
        """Show values that somebody else keeps, each with its labels as text."""
        Reading(name, "gauge", text, read, registry=self._registry)

    def observe(self, info: RequestInfo, code: int, seconds: float) -> None:
        """Count one request that has been answered; a watch counts when it begins."""
        named, within = bool(info.name), bool(info.namespace)
        key = (info.verb, info.group, info.version, info.resource, info.subresource, code, named, within)
        found = self._found.get(key)
        if found is None:
            names = (_verb(info), info.group, info.version, info.resource, info.subresource, _scope(info))
            found = self._found[key] = (self._totals.labels(*names, str(code)), self._durations.labels(*names))
        found[0].value += 1
        found[1].observe(seconds)

    def text(self) -> str:
        return page([*self._registry.lines(), *REGISTRY.lines()]).decode()


def _verb(info: RequestInfo) -> str:
    return "CONNECT" if info.subresource in _CONNECTS else _VERBS.get(info.verb, info.verb.upper())


def _scope(info: RequestInfo) -> str:
    if info.name or info.verb == "create":
        return "resource"
    return "namespace" if info.namespace else "cluster" if info.resource else ""
