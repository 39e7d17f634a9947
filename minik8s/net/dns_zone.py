"""The cluster's names: from Services and EndpointSlices to DNS records, by Kubernetes' DNS specification 1.1.0. Pure.

web.default.svc.cluster.local                     A of the ClusterIP; of every ready endpoint of a headless service
web-0.web.default.svc.cluster.local               A of the endpoint with that hostname (else 10-244-0-5.web…)
_http._tcp.web.default.svc.cluster.local          SRV
10-244-0-5.default.pod.cluster.local              A, computed
5.0.244.10.in-addr.arpa                           PTR
db.default.svc.cluster.local of an ExternalName   CNAME
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from minik8s.api.kinds.endpointslice import Endpoint, EndpointSlice
from minik8s.api.kinds.service import Service
from minik8s.net import dns_wire as wire
from minik8s.net.services import is_ready, service_key

TTL = 5  # seconds, CoreDNS' default for cluster names: what is old is soon gone from clients
_POD = re.compile(r"(\d+)-(\d+)-(\d+)-(\d+)\.[a-z0-9-]+\.pod\.")
_REVERSE = re.compile(r"(\d+)\.(\d+)\.(\d+)\.(\d+)\.in-addr\.arpa")

Records = Mapping[str, Mapping[int, tuple[bytes, ...]]]  # name -> type -> data of each record


class Zone:
    """All names of the cluster, replaced one owner (Service) at a time. `ranges` are those of pods and services."""

    def __init__(self, domain: str, dns_ip: str, ranges: Iterable[str] = ()) -> None:
        self.domain = domain.lower().strip(".")
        self.serial = 1
        self._ranges = [ipaddress.ip_network(cidr) for cidr in ranges]
        self._owned: dict[str, Records] = {}
        self._names: dict[str, dict[str, Mapping[int, tuple[bytes, ...]]]] = {}  # name -> owner -> its records
        self._parents: Counter[str] = Counter()  # names that exist only because longer ones do
        self.replace("", self._apex(dns_ip))

    def _apex(self, dns_ip: str) -> Records:
        server = f"ns.dns.{self.domain}"
        return {
            self.domain: {wire.NS: (wire.encode_name(server),)},
            server: {wire.A: (wire.address(dns_ip),)},
            f"dns-version.{self.domain}": {wire.TXT: (b"\x051.1.0",)},
            f"svc.{self.domain}": {},
            f"pod.{self.domain}": {},
        }

    def holds(self, name: str) -> bool:
        """Whether we are the authority: names of the domain, and addresses of the cluster."""
        if name == self.domain or name.endswith(f".{self.domain}"):
            return True
        if match := _REVERSE.fullmatch(name):
            ip = _ip(reversed(match.groups()))
            return ip is not None and any(ip in network for network in self._ranges)
        return False

    def find(self, name: str) -> Mapping[int, Sequence[bytes]] | None:
        """Records by type; empty for a name that exists without records, None for one that does not exist."""
        owners = self._names.get(name)
        if owners is not None:
            if len(owners) == 1:
                return next(iter(owners.values()))
            merged: dict[int, list[bytes]] = {}
            for records in owners.values():
                for kind, data in records.items():
                    merged.setdefault(kind, []).extend(data)
            return merged
        if match := _POD.match(name):
            ip = _ip(match.groups()) if name[match.end() :] == self.domain else None
            return {wire.A: (ip.packed,)} if ip else None
        is_namespace = name.endswith(f".pod.{self.domain}") and name.count(".") == self.domain.count(".") + 2
        return {} if name in self._parents or is_namespace else None

    def soa(self) -> bytes:
        data = wire.soa(f"ns.dns.{self.domain}", f"hostmaster.{self.domain}", self.serial, TTL)
        return wire.record(wire.encode_name(self.domain), wire.SOA, TTL, data)

    def replace(self, owner: str, records: Records) -> bool:
        """Give an owner other records; False when they are the same as before."""
        before = self._owned.get(owner, {})
        if before == records:
            return False
        for name in before:
            del self._names[name][owner]
            if not self._names[name]:
                del self._names[name]
            self._parents.subtract(_above(name))
        self._parents = +self._parents  # without those that count zero
        for name, found in records.items():
            self._names.setdefault(name, {})[owner] = found
            self._parents.update(_above(name))
        if records:
            self._owned[owner] = records
        else:
            self._owned.pop(owner, None)
        self.serial += 1
        return True


def zone(
    services: Iterable[Service], slices: Iterable[EndpointSlice], domain: str, dns_ip: str, ranges: Iterable[str] = ()
) -> Zone:
    """The zone of all that is there."""
    by_service: dict[str, list[EndpointSlice]] = {}
    for piece in slices:
        by_service.setdefault(service_key(piece), []).append(piece)
    made = Zone(domain, dns_ip, ranges)
    for service in services:
        made.replace(service.key, service_records(service, by_service.get(service.key, ()), made.domain))
    return made


def service_records(service: Service, slices: Iterable[EndpointSlice], domain: str) -> Records:
    """The records one Service brings."""
    name = f"{service.metadata.name}.{service.metadata.namespace}.svc.{domain}"
    found: dict[str, dict[int, list[bytes]]] = {name: {}}
    if service.spec.type == "ExternalName":
        found[name][wire.CNAME] = [wire.encode_name(service.spec.externalName.lower().rstrip("."))]
    elif service.spec.clusterIP == "None":
        _headless(found, name, list(slices))
    else:
        for ip in service.spec.clusterIPs or (service.spec.clusterIP,):
            if ip:
                _add(found, name, _kind(ip), wire.address(ip))
                _add(found, ipaddress.ip_address(ip).reverse_pointer, wire.PTR, wire.encode_name(name))
        for port in service.spec.ports:
            if port.name:
                data = wire.srv(name, port.port, 100)
                _add(found, f"_{port.name}._{port.protocol.lower()}.{name}".lower(), wire.SRV, data)
    return {n: {kind: tuple(data) for kind, data in kinds.items()} for n, kinds in found.items()}


def _headless(found: dict[str, dict[int, list[bytes]]], name: str, slices: Sequence[EndpointSlice]) -> None:
    total = sum(1 for piece in slices for _ in _ready(piece))
    for piece in slices:
        for endpoint in _ready(piece):
            own = f"{endpoint.hostname or re.sub('[.:]', '-', endpoint.addresses[0])}.{name}".lower()
            for ip in endpoint.addresses:
                _add(found, name, _kind(ip), wire.address(ip))
                _add(found, own, _kind(ip), wire.address(ip))
                _add(found, ipaddress.ip_address(ip).reverse_pointer, wire.PTR, wire.encode_name(own))
            for port in piece.ports:
                if port.name and port.port:
                    data = wire.srv(own, port.port, max(1, 100 // total))
                    _add(found, f"_{port.name}._{port.protocol.lower()}.{name}".lower(), wire.SRV, data)


def _ready(piece: EndpointSlice) -> Iterator[Endpoint]:
    """Of headless services too; `publishNotReadyAddresses` has made all ready in the slice already."""
    return (e for e in piece.endpoints if e.addresses and is_ready(e) and piece.addressType in ("IPv4", "IPv6"))


def _add(found: dict[str, dict[int, list[bytes]]], name: str, kind: int, data: bytes) -> None:
    records = found.setdefault(name, {}).setdefault(kind, [])
    if data not in records:
        records.append(data)


def _kind(ip: str) -> int:
    return wire.AAAA if ":" in ip else wire.A


def _above(name: str) -> Iterator[str]:
    while "." in name:
        name = name.split(".", 1)[1]
        yield name


def _ip(octets: Iterable[str]) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(".".join(octets))
    except ValueError:
        return None
