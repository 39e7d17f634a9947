"""Where HTTP tasks may go: not to this machine's own services, nor to those that only trust the local network.

A workflow is written by anybody who may make one, but its requests leave from the master: without this rule they would
reach what listens on its loopback, and the metadata service of a cloud (169.254.169.254). Pods, services and the world
are free. The check is on the address that is connected to, after resolving, and redirects are not followed. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(text: str) -> tuple[Network, ...]:
    """Networks of a list with commas. ValueError for what is none."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


EVERYWHERE = networks("0.0.0.0/0,::/0")


class Egress:
    """`own` are addresses of this machine; `allowed` networks go before every rule."""

    def __init__(self, own: Iterable[str] = (), allowed: Sequence[Network] = ()) -> None:
        self._own = frozenset(map(ipaddress.ip_address, own))
        self._allowed = allowed

    def refusal(self, address: str) -> str:
        """Why an address may not be connected to; "" if it may."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return f"{address} is no address"
        mapped = getattr(ip, "ipv4_mapped", None)
        ip = mapped or ip
        if any(ip in network for network in self._allowed):
            return ""
        if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in self._own:
            return f"{ip} is an address of the master or of its local link; --workflow-http-allow opens it"
        return ""
