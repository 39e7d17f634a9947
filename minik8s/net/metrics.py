"""What the node's network tells Prometheus."""

from __future__ import annotations

import functools
from typing import NamedTuple

from minik8s.metrics import Counter, Gauge, Histogram


class ProxyMetrics(NamedTuple):
    sync_seconds: Histogram
    drift: Counter
    failures: Counter
    services: Gauge


class PeerMetrics(NamedTuple):
    drift: Counter
    peers: Gauge


class DnsMetrics(NamedTuple):
    requests: Counter
    forwarded: Counter


@functools.cache
def proxy_metrics() -> ProxyMetrics:
    """One set per process, in its registry; names of kube-proxy where it has them."""
    return ProxyMetrics(
        Histogram(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "Time to bring a change of services or endpoints into the kernel.",
            bounds=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
        ),
        Counter(
            "minik8s_proxy_drift_total", "Elements of the kernel's tables that were not as this agent had left them."
        ),
        Counter("minik8s_proxy_failures_total", "Changes that the kernel refused."),
        Gauge("minik8s_proxy_services", "Services that this node leads to endpoints or refuses."),
    )


@functools.cache
def peer_metrics() -> PeerMetrics:
    return PeerMetrics(
        Counter("minik8s_peer_drift_total", "How often routes to other nodes were not as this agent had left them."),
        Gauge("minik8s_peers", "Other nodes whose pods this node has a way to."),
    )


@functools.cache
def dns_metrics() -> DnsMetrics:
    return DnsMetrics(
        Counter("minik8s_dns_requests_total", "Queries that were answered, by response code.", ["rcode"]),
        Counter("minik8s_dns_forwarded_total", "Queries that were forwarded upstream, by outcome.", ["outcome"]),
    )
