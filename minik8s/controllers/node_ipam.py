"""Each node gets its own part of the pod network, once, and keeps it as long as the Node object exists."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from functools import lru_cache

from minik8s.api.kinds.node import RANGE_ANNOTATION, Node
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder


def next_free(network: str, prefix: int, used: Collection[str], last: str = "") -> str | None:
    """The first subnet of /`prefix` in `network` that overlaps none of `used`, searched from behind `last` round about.

    A freed one is so given away as late as possible: other hosts may still have routes to it. None if all are taken.
    """
    whole = ipaddress.ip_network(network)
    count, size = 2 ** (prefix - whole.prefixlen), 2 ** (whole.max_prefixlen - prefix)
    base = int(whole.network_address)
    taken = [_network(each) for each in used]
    exact = {int(each.network_address) for each in taken if each.prefixlen == prefix}
    odd = [each for each in taken if each.prefixlen != prefix]
    first = (int(ipaddress.ip_network(last).network_address) - base) // size + 1 if last else 0
    for step in range(count):
        address = base + (first + step) % count * size
        candidate = ipaddress.ip_network((address, prefix))
        if address not in exact and not any(candidate.overlaps(each) for each in odd):
            return str(candidate)
    return None


def asked_for(wish: str, network: str, prefix: int, used: Collection[str]) -> str | None:
    """The range that a node had before it was deleted, and in which its pods still are, if nobody else has it."""
    try:
        wanted, whole = ipaddress.ip_network(wish), ipaddress.ip_network(network)
    except ValueError:
        return None
    if wanted.version != whole.version or wanted.prefixlen != prefix or not wanted.subnet_of(whole):  # type: ignore[arg-type]
        return None
    return None if any(wanted.overlaps(_network(each)) for each in used) else str(wanted)


@lru_cache(maxsize=4096)
def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Read once: there may be a thousand nodes, and each new one is compared with all others."""
    return ipaddress.ip_network(cidr, strict=False)


class NodeIpamController(Controller):
    name = "node-ipam-controller"
    workers = 1  # one decision at a time, each seen in the copy before the next: never the same subnet twice

    def __init__(self, client: Client, informers: Informers, recorder: Recorder, pod_cidr: str, prefix: int) -> None:
        """`pod_cidr`: the network of all pods; `prefix`: the length of a node's part (--node-cidr-mask-size)."""
        super().__init__(client, informers)
        self._recorder = recorder
        self._pod_cidr = pod_cidr
        self._prefix = prefix
        self._last = ""
        self._nodes = informers.of(Node)
        self._nodes.on_change(self._node_changed)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        fresh = old is None or new is None or old.metadata.uid != new.metadata.uid
        if new is not None and fresh and not new.spec.podCIDR:  # not at every heartbeat of one that had to go without
            self.queue.add(new.metadata.name)
        elif new is None:
            for waiting in self._nodes.list():
                if not waiting.spec.podCIDR:
                    self.queue.add(waiting.metadata.name)

    async def reconcile(self, key: str) -> float | None:
        node = self._nodes.by_key(key)
        if node is None or node.spec.podCIDR or node.deleting:
            return None
        used = {cidr for each in self._nodes.list() for cidr in (each.spec.podCIDR, *each.spec.podCIDRs) if cidr}
        family = ipaddress.ip_network(self._pod_cidr).version
        taken = {cidr for cidr in used if _network(cidr).version == family}
        before = asked_for(node.metadata.annotations.get(RANGE_ANNOTATION, ""), self._pod_cidr, self._prefix, taken)
        free = before or next_free(self._pod_cidr, self._prefix, taken, self._last)
        if free is None:
            text = f"Node {key} status is now: CIDRNotAvailable"
            self._recorder.event(node, "Normal", "CIDRNotAvailable", text)
            return None  # looked at again when a node is deleted
        # With the uid and no revision: a kubelet's heartbeat meanwhile is no reason to fail.
        patch = {"metadata": {"uid": node.metadata.uid}, "spec": {"podCIDR": free, "podCIDRs": [free]}}
        written = await self.client.patch(Node, key, None, patch)
        self._last = self._last if before else free
        await self._nodes.caught_up(written.metadata.resourceVersion)
        return None
