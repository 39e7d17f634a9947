"""Which pod has which address of the node's range: one value, and pure rules to change it.

Laws (tests/net/test_ipam.py): no address is ever held by two pods; a pod keeps its address until it is released;
an address that was freed is given again as late as possible, so that a client with an old answer of DNS does not
talk to a stranger.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from minik8s.net.base import AddressesExhausted, NetworkError


def next_address(cidr: str, used: Collection[str], freed: Sequence[str]) -> str:
    """The lowest address that is neither used nor freed before; when there is none, the one freed longest ago.

    `freed` begins with the oldest. The range's first (network) and last (broadcast) addresses are never given.
    """
    recent = set(freed)
    for address in map(str, ipaddress.ip_network(cidr).hosts()):
        if address not in used and address not in recent:
            return address
    for address in freed:
        if address not in used:
            return address
    raise AddressesExhausted(
        f"all {len(used)} pod addresses of {cidr} are in use; delete pods, or start the cluster with a larger pod range"
    )


class Leases(NamedTuple):
    """A pod range and who holds what in it; never changed, only replaced."""

    cidr: str
    held: Mapping[str, str]  # pod uid -> address
    freed: tuple[str, ...] = ()  # oldest first

    def take(self, pod_uid: str, wanted: str | None = None) -> Self:
        """With an address for the pod: `wanted` if the range has it, else the one it holds, else the next one."""
        used = {address: uid for uid, address in self.held.items()}
        if wanted is not None and ipaddress.ip_address(wanted) not in ipaddress.ip_network(self.cidr):
            wanted = None
        if wanted is not None and used.get(wanted, pod_uid) != pod_uid:
            raise NetworkError(f"address {wanted} is held by pod {used[wanted]}, pod {pod_uid} cannot have it")
        address = wanted or self.held.get(pod_uid) or next_address(self.cidr, used, self.freed)
        freed = tuple(other for other in self.freed if other != address)
        before = self.held.get(pod_uid)
        return self._replace(
            held={**self.held, pod_uid: address},
            freed=freed if before in (None, address) else (*freed, str(before)),
        )

    def release(self, pod_uid: str) -> Self:
        """Without the pod; its address goes to the end of the queue."""
        if pod_uid not in self.held:
            return self
        held = dict(self.held)
        address = held.pop(pod_uid)
        return self._replace(held=held, freed=(*(other for other in self.freed if other != address), address))

    def seen(self, wired: Mapping[str, str]) -> Self:
        """Corrected by what the kernel shows: an address that is wired belongs to the pod that is wired with it."""
        inside = ipaddress.ip_network(self.cidr)
        facts = {uid: ip for uid, ip in wired.items() if ipaddress.ip_address(ip) in inside}
        taken = set(facts.values())
        held = {uid: ip for uid, ip in self.held.items() if ip not in taken} | facts
        return self._replace(held=held, freed=tuple(ip for ip in self.freed if ip not in held.values()))

    def to_dict(self) -> dict[str, Any]:
        return {"cidr": self.cidr, "held": dict(self.held), "freed": list(self.freed)}


def from_dict(cidr: str, data: Mapping[str, Any]) -> Leases:
    """Leases as written by `to_dict`; what does not fit `cidr` (the range was changed) is dropped."""
    network = ipaddress.ip_network(cidr)

    def fitting(addresses: Iterable[object]) -> set[str]:
        return {str(a) for a in addresses if isinstance(a, str) and ipaddress.ip_address(a) in network}

    held_data, freed_data = data.get("held") or {}, data.get("freed") or []
    inside = fitting(held_data.values())
    held: dict[str, str] = {}
    for uid, address in held_data.items():
        if address in inside and address not in held.values():
            held[str(uid)] = address
    free = fitting(freed_data) - set(held.values())
    return Leases(cidr, held, tuple(dict.fromkeys(address for address in freed_data if address in free)))
