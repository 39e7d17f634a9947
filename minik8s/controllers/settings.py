"""What the controllers can be told; the defaults are kube-controller-manager's unless a comment says why not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    ca: str = ""  # the cluster's certificate authority, PEM; "" publishes none
    pod_cidr: str = "10.244.0.0/16"
    node_cidr_mask: int = 24
    node_monitor_grace: float = 20.0  # seconds; Kubernetes has 50: leases are renewed often enough here for less
    terminated_pod_threshold: int = 12500
    event_ttl: float = 3600.0
    cluster_domain: str = "cluster.local"
    dns_ip: str = "10.96.0.10"
    ingress: bool = True  # whether Ingresses of our class are served
    ingress_image: str = "minik8s/nginx:1"
    ingress_ports: tuple[int, int] = (80, 443)  # HTTP, HTTPS


DEFAULTS = Settings()
