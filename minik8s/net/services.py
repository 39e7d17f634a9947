"""From a Service and its EndpointSlices to what the kernel is told of it: pure.

The rules are kube-proxy's: only ready endpoints are used; when there is none, those that terminate but still serve;
policy Local narrows them to this node; a port with no endpoint at all is refused at once, one with endpoints on
other nodes only is dropped where the policy is Local. Slices are the truth, also for `publishNotReadyAddresses`,
whose controller writes every endpoint as ready.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from minik8s.api.kinds.endpointslice import SERVICE_NAME_LABEL, Endpoint, EndpointSlice
from minik8s.api.kinds.service import Service, ServicePort
from minik8s.net.health_check import HealthCheck
from minik8s.net.nft import EMPTY, LOCAL_SLOTS, Ruleset, guard

# A Service with one of these is somebody else's work (well-known labels of Kubernetes).
PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"


class Backend(NamedTuple):
    """One endpoint of one port."""

    ip: str
    port: int
    local: bool  # on this node, or nobody knows where


class Backends(NamedTuple):
    """The endpoints of one port that traffic may go to, for each policy."""

    cluster: tuple[Backend, ...]
    local: tuple[Backend, ...]


class Flow(NamedTuple):
    """Connections of one `protocol` to `address` ("" = any: a port of the node) and `port`, answered by `endpoint`.

    `endpoint` "" means all that nobody translated: the client spoke before there was an endpoint. `unanswered`: only
    those to which nothing has come back.
    """

    protocol: str
    address: str
    port: int
    endpoint: str
    unanswered: bool = False


def service_key(piece: EndpointSlice) -> str:
    """`namespace/name` of the Service a slice belongs to; "" if none."""
    name = piece.metadata.labels.get(SERVICE_NAME_LABEL, "")
    return f"{piece.metadata.namespace}/{name}" if name else ""


def is_proxied(service: Service) -> bool:
    labels = service.metadata.labels
    if PROXY_NAME_LABEL in labels or HEADLESS_LABEL in labels or service.spec.type == "ExternalName":
        return False
    return any(map(_is_v4, _cluster_ips(service)))


def render(service: Service, slices: Sequence[EndpointSlice], node: str, *, own: frozenset[str]) -> Ruleset:
    """What one Service asks of the node's table. `own` are addresses the node answers itself (cluster DNS)."""
    if not is_proxied(service):
        return EMPTY
    found = _Contents()
    for port in service.spec.ports:
        if port.protocol not in ("TCP", "UDP"):
            continue  # SCTP: Docker's networks and our maps do not carry it
        _render_port(found, service, port, backends(port, slices, node), own)
    return Ruleset(frozenset(found.chains), found.elements, found.sources)


def backends(port: ServicePort, slices: Iterable[EndpointSlice], node: str) -> Backends:
    """The usable endpoints of a Service's port, in a stable order."""
    ready: set[Backend] = set()
    serving: set[Backend] = set()
    for piece in slices:
        if piece.addressType != "IPv4":
            continue
        numbers = [p.port for p in piece.ports if p.name == port.name and p.protocol == port.protocol and p.port]
        for endpoint in piece.endpoints if numbers else ():
            if not endpoint.addresses:
                continue
            local = endpoint.nodeName in ("", node)
            each = {Backend(endpoint.addresses[0], number, local) for number in numbers}
            if is_ready(endpoint):
                ready |= each
            elif endpoint.conditions.serving is not False and endpoint.conditions.terminating:
                serving |= each
    return Backends(
        tuple(sorted(ready or serving)),
        tuple(sorted({b for b in ready if b.local} or {b for b in serving if b.local})),
    )


def health_check(service: Service, slices: Sequence[EndpointSlice], node: str) -> HealthCheck | None:
    """What balancers outside are told of a Service on this node; None if it asks for nothing."""
    if not (service.spec.healthCheckNodePort and is_proxied(service)):
        return None
    ready = {
        each.addresses[0]
        for piece in slices
        for each in piece.endpoints
        if each.addresses and each.nodeName == node and is_ready(each)
    }
    return HealthCheck(service.metadata.namespace, service.metadata.name, len(ready))


def is_ready(endpoint: Endpoint) -> bool:
    """Unknown counts as ready, as the API says."""
    return endpoint.conditions.ready is not False


def endpoints_of(contents: Ruleset, protocol: str) -> dict[tuple[str, int], frozenset[str]]:
    """(address, or "" for a node port; port) -> endpoint addresses."""
    doors: dict[tuple[str, int], set[str]] = {}
    for name, parts in ((f"endpoints_{protocol}", 3), (f"nodeport_endpoints_{protocol}", 2)):
        for key, value in contents.elements.get(name, {}).items():
            *address, port, _slot = key.split(" . ")
            door = (address[0] if parts == 3 else "", int(port))
            doors.setdefault(door, set()).add(value.split(" . ")[0])
    return {door: frozenset(addresses) for door, addresses in doors.items()}


def stale_udp(before: Ruleset, after: Ruleset) -> list[Flow]:
    """Flows the kernel must forget: to endpoints that went, and all of a port that had no endpoint."""
    old, new = endpoints_of(before, "udp"), endpoints_of(after, "udp")
    stale = [Flow("udp", *door, ip) for door, ips in old.items() for ip in sorted(ips - new.get(door, frozenset()))]
    return stale + [Flow("udp", *door, "") for door in new if door not in old]


def unanswered_tcp(before: Ruleset, after: Ruleset) -> list[Flow]:
    """Attempts to connect to endpoints that went: to a lost node, say. Connections that stand are let be."""
    old, new = endpoints_of(before, "tcp"), endpoints_of(after, "tcp")
    gone = ((door, ip) for door, ips in old.items() for ip in sorted(ips - new.get(door, frozenset())))
    return [Flow("tcp", *door, ip, unanswered=True) for door, ip in gone]


def orphaned_tcp(contents: Ruleset, dead: Iterable[str]) -> list[Flow]:
    """Connections through a Service to endpoints of which nothing is left that could end them."""
    doors = {_door(key) for name in _DOORS for key in contents.elements.get(name, {}) if " tcp " in f" {key}"}
    return [Flow("tcp", *door, ip) for door in sorted(doors) for ip in sorted(set(dead))]


_DOORS = ("services", "nodeports", "refused", "refused_nodeports")


def _door(key: str) -> tuple[str, int]:
    *address, _protocol, port = key.split(" . ")
    return (address[0] if address else "", int(port))


def endpoint_ips(slices: Iterable[EndpointSlice]) -> frozenset[str]:
    """All of them, whatever their state."""
    return frozenset(address for piece in slices for each in piece.endpoints for address in each.addresses[:1])


def terminating_ips(piece: EndpointSlice | None) -> frozenset[str]:
    endpoints = piece.endpoints if piece is not None else ()
    return frozenset(each.addresses[0] for each in endpoints if each.addresses and each.conditions.terminating)


def leads_to(piece: EndpointSlice, pod_uid: str) -> bool:
    """Whether a slice still lists a pod as one that nobody has asked to end."""
    return any(
        each.targetRef is not None and each.targetRef.uid == pod_uid and not each.conditions.terminating
        for each in piece.endpoints
    )


def sort_affinity(
    affinity: Mapping[str, Mapping[str, str]], contents: Ruleset
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Who sticks to which endpoint, parted into (live, stale): stale ones lead to an endpoint that is gone."""
    live: dict[str, dict[str, str]] = {}
    stale: dict[str, dict[str, str]] = {}
    for name, entries in affinity.items():
        protocol = name.removeprefix("affinity_")
        by_address, by_port = (
            {(key.rpartition(" . ")[0], value) for key, value in contents.elements.get(kind + protocol, {}).items()}
            for kind in ("endpoints_", "nodeport_endpoints_")
        )
        for entry, endpoint in entries.items():
            key = entry.partition(" timeout ")[0]
            address_port = key.split(" . ", 1)[1]
            port = key.rpartition(" . ")[2]
            if (address_port, endpoint) in by_address or (port, endpoint) in by_port:
                live.setdefault(name, {})[entry] = endpoint
            else:
                stale.setdefault(name, {})[key] = endpoint
    return live, stale


def loses_sticky_endpoint(before: Ruleset, after: Ruleset) -> bool:
    """Whether a change takes an endpoint away that clients may stick to."""
    if not any(name.startswith("sticky_") for name in before.elements):
        return False
    names = [name for name in before.elements if "endpoints_" in name]
    return any(set(before.elements[n].values()) - set(after.elements.get(n, {}).values()) for n in names)


class _Contents:
    def __init__(self) -> None:
        self.chains: set[str] = set()
        self.elements: dict[str, dict[str, str]] = {}
        self.sources: dict[str, tuple[str, ...]] = {}

    def set(self, name: str, key: str, value: str = "") -> None:
        self.elements.setdefault(name, {})[key] = value

    def guard(self, key: str, sources: Iterable[str]) -> None:
        chain, ranges = guard(sources)
        if chain:
            self.chains.add(chain)
            self.sources[chain] = ranges
            self.set("guarded", key, f"jump {chain}")

    def goto(self, name: str, key: str, chain: str) -> None:
        self.chains.add(chain)
        self.set(name, key, f"goto {chain}")


def _render_port(found: _Contents, service: Service, port: ServicePort, to: Backends, own: frozenset[str]) -> None:
    protocol = port.protocol.lower()
    internal_local = service.spec.internalTrafficPolicy == "Local"
    external_local = service.spec.externalTrafficPolicy == "Local"
    for ip in filter(_is_v4, _cluster_ips(service)):
        if ip not in own:
            door = _Door(protocol, port.port, ip, _stickiness(service))
            _open(found, door, to.local if internal_local else to.cluster, "l" if internal_local else "c", to)
    doors = [_Door(protocol, port.port, ip, _stickiness(service)) for ip in external_ips(service) if ip not in own]
    for door in doors:
        if door.ip in _balancer_ips(service):
            found.guard(door.key, filter(_is_v4_range, service.spec.loadBalancerSourceRanges))
    if port.nodePort:
        doors.append(_Door(protocol, port.nodePort, "", _stickiness(service)))
    for door in doors:
        _open(found, door, to.cluster, "x", to)
        if external_local and to.cluster:
            _open_local(found, door, to.local)
    for backend in to.cluster:
        if backend.local:
            found.set("hairpin", f"{backend.ip} . {backend.ip}")


class _Door(NamedTuple):
    """Where clients knock: an address and port, or a port of the node (`ip` is "")."""

    protocol: str
    port: int
    ip: str
    seconds: int  # of session affinity; 0 = none

    @property
    def key(self) -> str:
        return f"{self.ip} . {self.protocol} . {self.port}" if self.ip else f"{self.protocol} . {self.port}"

    def chain(self, policy: str, count: int) -> str:
        return f"{'s' if self.ip else 'p'}{policy}{count}" + (f"_{self.seconds}" if self.seconds else "")


def _open(found: _Contents, door: _Door, to: Sequence[Backend], policy: str, all_of: Backends) -> None:
    """Lead a door to endpoints, or close it so that clients see it at once."""
    if not to:
        name = "refused" if door.ip else "refused_nodeports"
        if all_of.cluster:
            found.set(name, door.key, "drop")  # there are endpoints, but not for those who knock here
        else:
            found.set(name, door.key, "goto refuse")
        return
    found.goto("services" if door.ip else "nodeports", door.key, door.chain(policy, len(to)))
    _fill(found, door, to, LOCAL_SLOTS if policy == "l" else 0)


def _open_local(found: _Contents, door: _Door, to: Sequence[Backend]) -> None:
    """externalTrafficPolicy Local: who comes from outside the cluster reaches this node's endpoints or nothing."""
    name = "services_local" if door.ip else "nodeports_local"
    if not to:
        found.set(name, door.key, "accept")  # not translated here: falls to `refused` below
        found.set("refused" if door.ip else "refused_nodeports", door.key, "drop")
        return
    found.goto(name, door.key, door.chain("l", len(to)))
    _fill(found, door, to, LOCAL_SLOTS)


def _fill(found: _Contents, door: _Door, to: Sequence[Backend], first: int) -> None:
    prefix = f"{door.ip} . {door.port}" if door.ip else str(door.port)
    name = ("endpoints_" if door.ip else "nodeport_endpoints_") + door.protocol
    for slot, backend in enumerate(to[:LOCAL_SLOTS], first):
        found.set(name, f"{prefix} . {slot}", f"{backend.ip} . {backend.port}")
    if door.seconds:
        found.goto(("sticky_" if door.ip else "sticky_nodeports_") + door.protocol, prefix, f"stick{door.seconds}")


def _cluster_ips(service: Service) -> tuple[str, ...]:
    return service.spec.clusterIPs or (service.spec.clusterIP,)


def external_ips(service: Service) -> Iterator[str]:
    """externalIPs and the addresses a load balancer gave, IPv4, each once."""
    return iter(dict.fromkeys(filter(_is_v4, (*service.spec.externalIPs, *_balancer_ips(service)))))


def _balancer_ips(service: Service) -> list[str]:
    """Mode Proxy: the balancer itself answers there, also for those inside."""
    return [entry.ip for entry in service.status.loadBalancer.ingress if entry.ipMode != "Proxy"]


def _stickiness(service: Service) -> int:
    if service.spec.sessionAffinity != "ClientIP":
        return 0
    return service.spec.sessionAffinityConfig.clientIP.timeoutSeconds or 10800


def _is_v4_range(text: str) -> bool:
    try:
        return ipaddress.ip_network(text.strip()).version == 4
    except ValueError:
        return False


def _is_v4(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).version == 4
    except ValueError:  # "", "None"
        return False
