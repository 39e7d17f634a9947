"""The cluster's names: from Services and EndpointSlices to DNS records, by Kubernetes' DNS specification 1.1.0. Pure.

Besides them hosts of Ingresses, which are names of the world outside that lead to this cluster.

web.default.svc.cluster.local                     A of the ClusterIP; of every ready endpoint of a headless service
web-0.web.default.svc.cluster.local               A of the endpoint with that hostname (else 10-244-0-5.web…)
_http._tcp.web.default.svc.cluster.local          SRV
10-244-0-5.default.pod.cluster.local              A, computed
5.0.244.10.in-addr.arpa                           PTR
db.default.svc.cluster.local of an ExternalName   CNAME
shop.example.com, *.example.com of an Ingress     A of where the Ingress answers
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from minik8s.api.kinds.endpointslice import Endpoint, EndpointSlice
from minik8s.api.kinds.ingress import Ingress
from minik8s.api.kinds.service import Service
from minik8s.net import dns_wire as wire
from minik8s.net.services import is_ready, service_key

TTL = 5  # seconds, CoreDNS' default for cluster names: what is old is soon gone from clients
_POD = re.compile(r"(\d+)-(\d+)-(\d+)-(\d+)\.[a-z0-9-]+\.pod\.")
_REVERSE = ".in-addr.arpa"
_HOST = re.compile(r"(\*\.)?[a-z0-9_]([-a-z0-9_]*[a-z0-9])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9])?)*")
_OF_ADDRESSES = (wire.A, wire.AAAA, wire.SVCB, wire.HTTPS, wire.ANY)  # what one asks for in order to connect

_LONGEST_HOST = 253

Records = Mapping[str, Mapping[int, tuple[bytes, ...]]]  # name -> type -> data of each record


class Zone:
    """All names of the cluster, replaced one owner (Service, Ingress) at a time. `ranges`: of pods and services."""

    def __init__(self, domain: str, dns_ip: str, ranges: Iterable[str] = ()) -> None:
        self.domain = domain.lower().strip(".")
        self.serial = 1
        self.apex = _apex(self.domain, dns_ip)
        self._inside = f".{self.domain}"
        self._reverse = frozenset(name for cidr in ranges for name in reverse_zones(cidr))
        self._reverse_labels = {name.count(".") + 1 for name in self._reverse}
        self._owned: dict[str, Records] = {}
        self._names: dict[str, dict[str, Mapping[int, tuple[bytes, ...]]]] = {}  # name -> owner -> its records
        self._parents: dict[str, int] = {}  # names that exist because longer ones do: how many
        self.replace("", self.apex)

    @property
    def owners(self) -> Mapping[str, Records]:
        return self._owned

    def authority(self, name: str, kind: int) -> str:
        """The zone of ours that the question belongs to, or "": names of the domain, addresses of the cluster, hosts.

        Of a host that is not in the domain we know the addresses only; the rest is asked of the world.
        """
        if name.endswith(self._inside) or name == self.domain:
            return self.domain
        if name.endswith(_REVERSE):
            labels = name.split(".")
            for count in self._reverse_labels:
                if (end := ".".join(labels[-count:])) in self._reverse:
                    return end
        if kind in _OF_ADDRESSES and (name in self._names or self._wildcard(name) in self._names):
            return name
        return ""

    def find(self, name: str) -> Mapping[int, Sequence[bytes]] | None:
        """Records by type; empty for a name that exists without records, None for one that does not exist."""
        owners = self._names.get(name)
        if owners is None:
            if match := _POD.match(name):
                ip = _ip(match.groups()) if name[match.end() :] == self.domain else None
                return {wire.A: (ip.packed,)} if ip else None
            owners = self._names.get(self._wildcard(name))
        if owners is None:
            is_namespace = name.endswith(f".pod.{self.domain}") and name.count(".") == self.domain.count(".") + 2
            return {} if is_namespace or name in self._parents or name in self._reverse else None
        if len(owners) == 1:
            return next(iter(owners.values()))
        merged: dict[int, dict[bytes, None]] = {}  # a record that several bring is one record
        for records in owners.values():
            for kind, data in records.items():
                merged.setdefault(kind, {}).update(dict.fromkeys(data))
        return {kind: tuple(data) for kind, data in merged.items()}

    def _wildcard(self, name: str) -> str:
        """`*.x` stands for one more label, as in an Ingress, not for any number of them."""
        return "*." + name.partition(".")[2]

    def soa(self, zone: str = "") -> bytes:
        data = wire.soa(f"ns.dns.{self.domain}", f"hostmaster.{self.domain}", self.serial, TTL)
        return wire.record(wire.encode_name(zone or self.domain), wire.SOA, TTL, data)

    def replace(self, owner: str, records: Records) -> bool:
        """Give an owner other records; False when they are the same as before."""
        before = self._owned.get(owner, {})
        if before == records:
            return False
        for name in before:
            del self._names[name][owner]
            if not self._names[name]:
                del self._names[name]
            for above in _above(name):
                self._parents[above] -= 1
                if not self._parents[above]:
                    del self._parents[above]
        for name, found in records.items():
            self._names.setdefault(name, {})[owner] = found
            for above in _above(name):
                self._parents[above] = self._parents.get(above, 0) + 1
        if records:
            self._owned[owner] = records
        else:
            self._owned.pop(owner, None)
        self.serial += 1
        return True


def _apex(domain: str, dns_ip: str) -> Records:
    server = f"ns.dns.{domain}"
    return {
        domain: {wire.NS: (wire.encode_name(server),)},
        server: {wire.A: (wire.address(dns_ip),)},
        f"dns-version.{domain}": {wire.TXT: (b"\x051.1.0",)},
        f"svc.{domain}": {},
        f"pod.{domain}": {},
    }


def reverse_zones(cidr: str) -> list[str]:
    """The reverse zones of an IPv4 range, cut at whole octets: 16 of them (`96.10.in-addr.arpa` …) for 10.96.0.0/12."""
    network = ipaddress.IPv4Network(cidr)
    octets = max(1, -(-network.prefixlen // 8))
    pieces = network.subnets(new_prefix=octets * 8) if network.prefixlen < octets * 8 else [network]
    return [".".join(reversed(str(piece.network_address).split(".")[:octets])) + _REVERSE for piece in pieces]


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


def host_records(hosts: Mapping[str, Iterable[str]], domain: str) -> Records:
    """The records of host names that lead to this cluster: name, or `*.name`, to addresses.

    Left out is what is no host name, and what would take a name of the cluster's own from its owner.
    """
    found: dict[str, dict[int, list[bytes]]] = {}
    for given, addresses in hosts.items():
        name = given.lower().rstrip(".")
        reserved = name == domain or name.endswith(tuple(f"{part}.{domain}" for part in (".svc", ".pod", ".dns")))
        reserved = reserved or name in {f"{part}.{domain}" for part in ("*", "svc", "pod", "dns", "dns-version")}
        if reserved or name.endswith(".arpa") or len(name) > _LONGEST_HOST or not _HOST.fullmatch(name):
            continue
        for ip in addresses:
            _add(found, name, _kind(ip), wire.address(ip))
    return {n: {kind: tuple(data) for kind, data in kinds.items()} for n, kinds in found.items()}


def ingress_hosts(ingress: Ingress) -> dict[str, tuple[str, ...]]:
    """Each host of an Ingress's rules with the addresses at which its status says that it answers."""
    found = msgspec.to_builtins(ingress)
    entries = (found.get("status", {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = tuple(entry["ip"] for entry in entries if _is_address(entry.get("ip", "")))
    hosts = [rule.get("host") for rule in found.get("spec", {}).get("rules") or ()]
    return {host: addresses for host in hosts if host} if addresses else {}


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


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
