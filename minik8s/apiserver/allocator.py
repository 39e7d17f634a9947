"""Addresses and node ports of Services: given out once, kept while the Service lives, free again when it is gone.

What is in use is written in the store, as claims, so that several masters never give the same number to two Services.
This step only reads the head and chooses; who chose too late finds the claim taken, and chooses again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from itertools import chain

import msgspec

from minik8s.api.errors import Cause, InternalError, Invalid, ServiceUnavailable, Timeout, already_exists, invalid
from minik8s.api.kinds.service import is_health_checked
from minik8s.api.resource import Json
from minik8s.apiserver import claims
from minik8s.apiserver.admission import End, Operation
from minik8s.apiserver.claims import ClaimLost
from minik8s.log import get_logger
from minik8s.store.watch_cache import WatchCache

NODE_PORTS = range(30000, 32768)
HEADLESS = "None"
REPAIR_SECONDS = 60.0  # between looks; far more than any write takes
_WITH_NODE_PORTS = ("NodePort", "LoadBalancer")
_TRIES = 32  # random probes before all are looked through

log = get_logger("allocator")


class Pool:
    """A range of numbers, each claimed by at most one Service. The first part is left to those who ask for a number."""

    def __init__(self, cache: WatchCache, numbers: range, claim: Callable[[int], str], rng: random.Random) -> None:
        self._cache = cache
        self._numbers = numbers
        self.claim = claim
        self._rng = rng
        self._dynamic = numbers[min(max(16, len(numbers) // 32), 256) :] if len(numbers) > 32 else numbers

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def is_free(self, number: int, key: str = "") -> bool:
        """Whether nobody has it, but for the Service `key`."""
        return claims.holder(self._cache.get(self.claim(number))) in ("", key)

    def any(self, but: Container[int] = ()) -> int | None:
        """A free number; None if there is none."""
        for _ in range(_TRIES):
            number: int = self._rng.choice(self._dynamic)
            if number not in but and self.is_free(number):
                return number
        every = chain(self._dynamic, self._numbers)
        return next((number for number in every if number not in but and self.is_free(number)), None)


class ServiceAllocator:
    """An admission step. `cidr` are the addresses of services; its first and last are not given out."""

    resources = frozenset(("services",))

    def __init__(self, cache: WatchCache, cidr: str, *, rng: random.Random | None = None) -> None:
        self._cache = cache
        self._network = ipaddress.ip_network(cidr)
        first = int(self._network.network_address)
        rng = rng or random.Random()
        numbers = range(first + 1, first + self._network.num_addresses - 1)
        self._addresses = Pool(cache, numbers, _address_claim, rng)
        self._ports = Pool(cache, NODE_PORTS, _port_claim, rng)
        self._forgotten: dict[str, int] = {}  # claims that the last look found without a holder, and their revision

    def admit(self, op: Operation) -> None:
        if op.old is not None:
            op.has = op.wants = frozenset(_claims(op.old))
        if op.verb == "delete" or op.subresource:
            return
        key = op.resource.key(op.namespace, op.name)
        if op.old is not None:
            carry_over(op.obj, op.old)
        elif self._cache.get(key) is not None:
            raise already_exists(op.resource.plural, op.name)  # before its own address is told to be taken
        asked = op.obj["spec"]
        spec = op.obj["spec"] = dict(asked)
        if asked.get("ports"):
            spec["ports"] = [dict(port) for port in asked["ports"]]
        op.on_end(lambda how: _put_back(how, op, asked))
        causes = [*self._address(spec, key, op.has), *self._node_ports(spec, key, op.has)]
        if causes:
            raise Invalid("Service", op.name, causes)
        op.wants = frozenset(_claims(op.obj))

    def _address(self, spec: Json, key: str, has: frozenset[str]) -> Iterator[Cause]:
        if spec.get("type") == "ExternalName":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(field, None)
            return
        wanted = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
        if not wanted:
            number = self._addresses.any()
            if number is None:
                raise InternalError(f"no address is left in {self._network}")
            wanted = str(ipaddress.ip_address(number))
        elif wanted != HEADLESS and (fault := self._fault(wanted, key, has)):
            yield invalid("spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: {fault}")
        spec["clusterIP"] = wanted
        spec["clusterIPs"] = [wanted]

    def _fault(self, wanted: str, key: str, has: frozenset[str]) -> str:
        try:
            number = int(ipaddress.ip_address(wanted))
        except ValueError:
            return "it is not an IP address"
        if number not in self._addresses:
            return f"the provided IP is not in the valid range. The range of valid IPs is {self._network}"
        free = self._addresses.claim(number) in has or self._addresses.is_free(number, key)
        return "" if free else "the provided IP is already allocated"

    def _node_ports(self, spec: Json, key: str, has: frozenset[str]) -> Iterator[Cause]:
        if spec.get("type") not in _WITH_NODE_PORTS:
            return
        automatic = spec["type"] == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True)
        ports = spec.get("ports") or ()
        chosen = {port["nodePort"] for port in ports if port.get("nodePort")}
        for index, port in enumerate(ports):
            field = f"spec.ports[{index}].nodePort"
            wanted = port.get("nodePort")
            if wanted and wanted not in NODE_PORTS:
                valid = f"The range of valid ports is {NODE_PORTS[0]}-{NODE_PORTS[-1]}"
                yield invalid(field, wanted, f"provided port is not in the valid range. {valid}")
            elif wanted and not (self._ports.claim(wanted) in has or self._ports.is_free(wanted, key)):
                yield invalid(field, wanted, "provided port is already allocated")
            elif not wanted and automatic:
                number = self._ports.any(but=chosen)
                if number is None:
                    raise InternalError("no node port is left")
                chosen.add(number)
                port["nodePort"] = number
        yield from self._health_check_port(spec, key, has, chosen)

    def _health_check_port(self, spec: Json, key: str, has: frozenset[str], chosen: Container[int]) -> Iterator[Cause]:
        """Another node port, of Services that keep to their own nodes' endpoints, for balancers to ask at."""
        if not is_health_checked(spec):
            return
        wanted = spec.get("healthCheckNodePort")
        if not wanted:
            spec["healthCheckNodePort"] = self._ports.any(but=chosen)
            if not spec["healthCheckNodePort"]:
                raise InternalError("no node port is left")
        elif not (self._ports.claim(wanted) in has or self._ports.is_free(wanted, key)):
            yield invalid("spec.healthCheckNodePort", wanted, "provided port is already allocated")
        elif wanted not in NODE_PORTS:
            valid = f"The range of valid ports is {NODE_PORTS[0]}-{NODE_PORTS[-1]}"
            yield invalid("spec.healthCheckNodePort", wanted, f"provided port is not in the valid range. {valid}")

    # -- what crashes and older data leave behind

    async def run(self) -> None:
        while True:
            await asyncio.sleep(REPAIR_SECONDS)
            try:
                await self.repair()
            except (ServiceUnavailable, Timeout) as error:
                log.warning(
                    "claims could not be looked through",
                    error=str(error),
                    remedy="see that the store answers; it is tried again",
                )

    async def repair(self) -> None:
        """Claim what Services have and nobody claimed; take back what two looks in a row found without a Service."""
        wanted: dict[str, list[str]] = {}
        for record in self._cache.list("/services/")[0]:
            service = msgspec.json.decode(record.value)
            for claim in _claims(service):
                wanted.setdefault(claim, []).append(record.key)
            await asyncio.sleep(0)
        for claim, services in wanted.items():
            if len(services) > 1:
                log.error(
                    "given to several Services: make all but one anew",
                    claim=claim,
                    services=services,
                    remedy="delete and create all but one of these Services",
                )
            if self._cache.get(claim) is None:
                with suppress(ClaimLost):  # another master does the same
                    await claims.take(self._cache, (claim,), services[0])
        forgotten: dict[str, int] = {}
        for record in self._cache.list(claims.FOLDER)[0]:
            if claims.holder(record) not in wanted.get(record.key, ()):
                forgotten[record.key] = record.rev
        again = {claim: rev for claim, rev in forgotten.items() if self._forgotten.get(claim) == rev}
        await claims.drop(self._cache, again)
        self._forgotten = forgotten


def _put_back(how: End, op: Operation, asked: Json) -> None:
    """What was chosen in vain must not look as if it had been asked for, when the write is tried again."""
    if how == "failed":
        op.obj["spec"] = asked


def carry_over(service: Json, old: Json) -> None:
    """On update, keep what was given out where the client does not say, and drop what the new type has no use for."""
    spec, before = service["spec"], old["spec"]
    kind = spec.get("type")
    if kind != "ExternalName" and before.get("type") != "ExternalName" and not spec.get("clusterIP"):
        for field in ("clusterIP", "clusterIPs"):
            if before.get(field):
                spec[field] = before[field]
    if is_health_checked(spec) and not spec.get("healthCheckNodePort") and before.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = before["healthCheckNodePort"]
    elif not is_health_checked(spec) and spec.get("healthCheckNodePort") == before.get("healthCheckNodePort"):
        spec.pop("healthCheckNodePort", None)
    if kind != "LoadBalancer":
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if spec.get(field) == before.get(field):
                spec.pop(field, None)
    had = {(p.get("protocol"), p.get("port")): p.get("nodePort") for p in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        number = had.get((port.get("protocol"), port.get("port")))
        if kind in _WITH_NODE_PORTS and not port.get("nodePort") and number:
            port["nodePort"] = number
        elif kind not in _WITH_NODE_PORTS and before.get("type") in _WITH_NODE_PORTS and port.get("nodePort") == number:
            port.pop("nodePort", None)


def _address_claim(number: int) -> str:
    return f"{claims.FOLDER}clusterips/{ipaddress.ip_address(number)}"


def _port_claim(number: int) -> str:
    return f"{claims.FOLDER}nodeports/{number}"


def _claims(service: Json) -> Iterator[str]:
    """Of all numbers that a Service has."""
    spec = service.get("spec") or {}
    for text in {spec.get("clusterIP"), *(spec.get("clusterIPs") or ())} - {None, "", HEADLESS}:
        yield _address_claim(int(ipaddress.ip_address(text)))
    for port in spec.get("ports") or ():
        if port.get("nodePort"):
            yield _port_claim(port["nodePort"])
    if spec.get("healthCheckNodePort"):
        yield _port_claim(spec["healthCheckNodePort"])
