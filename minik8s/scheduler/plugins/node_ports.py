"""Two pods cannot listen on the same port of one node."""

from __future__ import annotations

from minik8s.scheduler.model import ANY_IP, NodeInfo, PodInfo, Port, Reason

NAME = "NodePorts"
TEXT = "node(s) didn't have free ports for the requested pod ports"


def reject(pod: PodInfo, info: NodeInfo) -> tuple[Reason, ...]:
    ports = pod.shape.ports
    if not ports or not info.ports:
        return ()
    taken = next((port for port in ports if any(_clash(port, used) for used in info.ports)), None)
    return () if taken is None else (Reason(NAME, TEXT, f"port {taken[2]}/{taken[1]} is taken"),)


def _clash(a: Port, b: Port) -> bool:
    """Same protocol and port, and the same address or one of them all addresses."""
    return a[1:] == b[1:] and (a[0] == b[0] or ANY_IP in (a[0], b[0]))
