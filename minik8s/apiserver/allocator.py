"""Addresses and node ports of Services: given out once, kept while the Service lives, free again when it is gone.

What is in use is read from the head at start and kept here; nothing is awaited between looking and taking.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Sequence

import msgspec

from minik8s.api.errors import Cause, InternalError, Invalid, invalid
from minik8s.api.resource import Json
from minik8s.apiserver.admission import End, Operation
from minik8s.store.watch_cache import WatchCache

NODE_PORTS = range(30000, 32768)
HEADLESS = "None"
_WITH_NODE_PORTS = ("NodePort", "LoadBalancer")
_TRIES = 32  # random probes before all are looked through


class Pool:
    """A range of numbers, each owned by at most one key. The first part is left to those who ask for a number."""

    def __init__(self, numbers: range, rng: random.Random) -> None:
        self._numbers = numbers
        self._rng = rng
        self._owners: dict[int, str] = {}
        self._dynamic = numbers[min(max(16, len(numbers) // 32), 256) :] if len(numbers) > 32 else numbers

    def owner(self, number: int) -> str | None:
        return self._owners.get(number)

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def take(self, number: int, key: str) -> bool:
        """Take this very number; False if somebody else has it."""
        return self._owners.setdefault(number, key) == key

    def take_any(self, key: str) -> int | None:
        """Take a free number; None if there is none."""
        for _ in range(_TRIES):
            number: int = self._rng.choice(self._dynamic)
            if number not in self._owners:
                self._owners[number] = key
                return number
        for number in (*self._dynamic, *self._numbers):
            if number not in self._owners:
                self._owners[number] = key
                return number
        return None

    def release(self, number: int, key: str) -> None:
        if self._owners.get(number) == key:
            del self._owners[number]


class ServiceAllocator:
    """An admission step. `cidr` are the addresses of services; its first and last are not given out."""

    resources = frozenset(("services",))

    def __init__(self, cache: WatchCache, cidr: str, *, rng: random.Random | None = None) -> None:
        self._network = ipaddress.ip_network(cidr)
        first = int(self._network.network_address)
        rng = rng or random.Random()
        self._addresses = Pool(range(first + 1, first + self._network.num_addresses - 1), rng)
        self._ports = Pool(NODE_PORTS, rng)
        for record in cache.list("/services/")[0]:
            service = msgspec.json.decode(record.value)
            for address in _addresses(service):
                self._addresses.take(address, record.key)
            for port in _node_ports(service):
                self._ports.take(port, record.key)

    def admit(self, op: Operation) -> None:
        key = op.resource.key(op.namespace, op.name)
        if op.verb == "delete":
            op.on_end(lambda how: self._free(op.obj, key) if how == "removed" else None)
            return
        if op.subresource:
            if op.subresource == "status" and op.old is not None:  # the last finalizer may go with any update
                op.on_end(lambda how: self._free(op.obj, key) if how == "removed" else None)
            return
        if op.old is not None:
            carry_over(op.obj, op.old)
        taken: list[tuple[Pool, int]] = []
        op.on_end(lambda how: self._ended(how, op, key, taken))
        spec = op.obj["spec"]
        causes = [*self._take_address(spec, key, taken), *self._take_ports(spec, key, taken)]
        if causes:
            raise Invalid("Service", op.name, causes)

    def _take_address(self, spec: Json, key: str, taken: list[tuple[Pool, int]]) -> Iterable[Cause]:
        if spec.get("type") == "ExternalName":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(field, None)
            return
        wanted = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
        if not wanted:
            number = self._addresses.take_any(key)
            if number is None:
                raise InternalError(f"no address is left in {self._network}")
            taken.append((self._addresses, number))
            wanted = str(ipaddress.ip_address(number))
        elif wanted != HEADLESS:
            fault = self._take_this(wanted, key, taken)
            if fault:
                yield invalid("spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: {fault}")
        spec["clusterIP"] = wanted
        spec["clusterIPs"] = [wanted]

    def _take_this(self, wanted: str, key: str, taken: list[tuple[Pool, int]]) -> str:
        try:
            number = int(ipaddress.ip_address(wanted))
        except ValueError:
            return "it is not an IP address"
        if number not in self._addresses:
            return f"the provided IP is not in the valid range. The range of valid IPs is {self._network}"
        return self._take_number(self._addresses, number, key, taken, "the provided IP is already allocated")

    @staticmethod
    def _take_number(pool: Pool, number: int, key: str, taken: list[tuple[Pool, int]], refusal: str) -> str:
        new = pool.owner(number) is None
        if not pool.take(number, key):
            return refusal
        if new:
            taken.append((pool, number))
        return ""

    def _take_ports(self, spec: Json, key: str, taken: list[tuple[Pool, int]]) -> Iterable[Cause]:
        if spec.get("type") not in _WITH_NODE_PORTS:
            return
        automatic = spec["type"] == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True)
        for index, port in enumerate(spec.get("ports") or ()):
            field = f"spec.ports[{index}].nodePort"
            wanted = port.get("nodePort")
            if wanted and wanted not in NODE_PORTS:
                valid = f"The range of valid ports is {NODE_PORTS[0]}-{NODE_PORTS[-1]}"
                yield invalid(field, wanted, f"provided port is not in the valid range. {valid}")
            elif wanted:
                fault = self._take_number(self._ports, wanted, key, taken, "provided port is already allocated")
                if fault:
                    yield invalid(field, wanted, fault)
            elif automatic:
                number = self._ports.take_any(key)
                if number is None:
                    raise InternalError("no node port is left")
                taken.append((self._ports, number))
                port["nodePort"] = number

    def _ended(self, how: End, op: Operation, key: str, taken: Sequence[tuple[Pool, int]]) -> None:
        if how == "failed":
            for pool, number in taken:
                pool.release(number, key)
        elif how == "removed":
            self._free(op.obj, key)
        elif op.old is not None:  # what the Service had and no longer has
            for address in set(_addresses(op.old)) - set(_addresses(op.obj)):
                self._addresses.release(address, key)
            for port in set(_node_ports(op.old)) - set(_node_ports(op.obj)):
                self._ports.release(port, key)

    def _free(self, service: Json, key: str) -> None:
        for address in _addresses(service):
            self._addresses.release(address, key)
        for port in _node_ports(service):
            self._ports.release(port, key)


def carry_over(service: Json, old: Json) -> None:
    """On update, keep what was given out where the client does not say, and drop what the new type has no use for."""
    spec, before = service["spec"], old["spec"]
    kind = spec.get("type")
    if kind != "ExternalName" and before.get("type") != "ExternalName" and not spec.get("clusterIP"):
        for field in ("clusterIP", "clusterIPs"):
            if before.get(field):
                spec[field] = before[field]
    had = {(p.get("protocol"), p.get("port")): p.get("nodePort") for p in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        number = had.get((port.get("protocol"), port.get("port")))
        if kind in _WITH_NODE_PORTS and not port.get("nodePort") and number:
            port["nodePort"] = number
        elif kind not in _WITH_NODE_PORTS and before.get("type") in _WITH_NODE_PORTS and port.get("nodePort") == number:
            port.pop("nodePort", None)


def _addresses(service: Json) -> list[int]:
    spec = service.get("spec") or {}
    texts = {spec.get("clusterIP"), *(spec.get("clusterIPs") or ())} - {None, "", HEADLESS}
    return [int(ipaddress.ip_address(text)) for text in texts]


def _node_ports(service: Json) -> list[int]:
    return [port["nodePort"] for port in (service.get("spec") or {}).get("ports") or () if port.get("nodePort")]
