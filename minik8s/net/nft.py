"""What the kernel's nftables are told, as text: pure.

A table of ours has a fixed part (chains, empty maps), rendered once, and contents (elements of maps and sets, and one
small chain per *number* of endpoints). Only contents change while the cluster lives, and a change is the difference of
two contents in one transaction: 0.2 ms for a service, however many there are. Packets find a service by one hash
look-up for its chain and one for its endpoint:

    services:       address . tcp . 80   : goto sc10
    endpoints_tcp:  address . 80 . slot  : pod . port        chain sc10 draws slot = random mod 10

Chains are named by what they do: s = by address or p = by node port; c = ClusterIP (source kept for pods), x =
external (always masqueraded, the answer must come back this way) or l = local endpoints only (source kept);
the number of endpoints; and `_seconds` where a client sticks to its endpoint. Local endpoints have slots of their own
from 32768 on, so that both policies of one port live in one map. `from_…` chains let the sources of one list pass.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

SERVICES = "minik8s"  # the table of the service proxy
PODS = "minik8s_pods"  # the table of the pod network
LOCAL_SLOTS = 32768
PODS_LINKS, OWN_LINKS = "mk8s*", "mk8s-*"  # links to pods here; links between nodes
MASQUERADE = 0x200000  # a mark between DNAT and postrouting of a connection's first packet; removed there

# In this order elements are added: endpoints before the services that lead to them.
MAPS = (
    "endpoints_tcp", "endpoints_udp", "nodeport_endpoints_tcp", "nodeport_endpoints_udp", "hairpin",
    "sticky_tcp", "sticky_udp", "sticky_nodeports_tcp", "sticky_nodeports_udp", "refused", "refused_nodeports",
    "guarded", "services_local", "services", "nodeports_local", "nodeports", "host_ports", "host_ports_any",
)  # fmt: skip
AFFINITY = ("affinity_tcp", "affinity_udp")  # the kernel fills these: who sticks to what
_CHAIN = re.compile(r"([sp])([cxl])(\d+)(?:_(\d+))?")


class Ruleset(NamedTuple):
    """Contents of one table: chain names, and map or set -> key -> value ("" in sets), each as nft prints it.

    `sources` are the ranges that chains made by `guard` let pass: of contents that are wanted, not of those read back.
    """

    chains: frozenset[str]
    elements: Mapping[str, Mapping[str, str]]
    sources: Mapping[str, tuple[str, ...]] = {}


EMPTY = Ruleset(frozenset(), {})


def diff(table: str, old: Ruleset, new: Ruleset, cluster_cidr: str) -> str:
    """The commands that turn `old` into `new`; empty when there is nothing to do. To be run as one transaction.

    Chains that nothing leads to any more stay: they are few, and the next service may need them.
    """
    return "".join(f"{line}\n" for line in _commands(table, old, new, cluster_cidr))


def _commands(table: str, old: Ruleset, new: Ruleset, cluster_cidr: str) -> Iterator[str]:
    for chain in sorted(new.chains - old.chains):
        yield f"add chain inet {table} {chain}"
        yield f"flush chain inet {table} {chain}"
        if chain in new.sources:
            yield f"add rule inet {table} {chain} ip saddr {{ {', '.join(new.sources[chain])} }} return"
            yield f"add rule inet {table} {chain} drop"
        elif match := _CHAIN.fullmatch(chain):
            by, policy, count, seconds = match.groups()
            for rule in _chain_rules(by, policy, count, seconds, cluster_cidr):
                yield f"add rule inet {table} {chain} {rule}"
        else:
            seconds = int(chain.removeprefix("stick"))
            for protocol in ("tcp", "udp"):
                yield f"add rule inet {table} {chain} {_stick_rule(protocol, seconds)}"
    for name in _in_order(old.elements, new.elements):
        before, after = old.elements.get(name, {}), new.elements.get(name, {})
        gone = [key for key, value in before.items() if after.get(key) != value]
        come = [f"{key} : {value}" if value else key for key, value in after.items() if before.get(key) != value]
        if gone:
            yield f"delete element inet {table} {name} {{ {', '.join(gone)} }}"
        if come:
            yield f"add element inet {table} {name} {{ {', '.join(come)} }}"


def _in_order(*elements: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [name for name in MAPS if any(name in each for each in elements)]


def _chain_rules(by: str, policy: str, count: str, seconds: str | None, cluster_cidr: str) -> Iterator[str]:
    if policy == "x":
        yield f"meta mark set meta mark | {MASQUERADE:#x}"
    elif policy == "c":
        yield f"ip saddr != {cluster_cidr} meta mark set meta mark | {MASQUERADE:#x}"
    slot = f"numgen random mod {count}" + (f" offset {LOCAL_SLOTS}" if policy == "l" else "")
    address, name = ("ip daddr . ", "endpoints") if by == "s" else ("", "nodeport_endpoints")
    for protocol in ("tcp", "udp"):
        dnat = f"meta l4proto {protocol} dnat ip to"
        if seconds:
            yield f"{dnat} ip saddr . ip daddr . {protocol} dport map @affinity_{protocol}"
        yield f"{dnat} {address}{protocol} dport . {slot} map @{name}_{protocol}"


def _stick_rule(protocol: str, seconds: int) -> str:
    key = "ct original ip saddr . ct original ip daddr . ct original proto-dst"
    return (
        f"meta l4proto {protocol} update @affinity_{protocol} "
        f"{{ {key} timeout {seconds}s : ip daddr . {protocol} dport }}"
    )


def replace(table: str, fixed: str, contents: Ruleset, cluster_cidr: str) -> str:
    """The whole table anew, whatever was there: one transaction; connections that are established go on."""
    return f"add table inet {table}\ndelete table inet {table}\n{fixed}{diff(table, EMPTY, contents, cluster_cidr)}"


def guard(sources: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """The name of the chain that lets only these ranges pass, and the ranges without overlaps; ("", ()) if all may."""
    networks = (ipaddress.IPv4Network(each.strip(), strict=False) for each in sources)
    ranges = tuple(map(str, ipaddress.collapse_addresses(networks)))
    if not ranges or "0.0.0.0/0" in ranges:
        return "", ()
    return f"from_{hashlib.sha256(' '.join(ranges).encode()).hexdigest()[:16]}", ranges


def elements(table: str, verb: str, contents: Mapping[str, Mapping[str, str]]) -> str:
    """Commands that `add` or `delete` elements as they stand."""
    return "".join(
        f"{verb} element inet {table} {name} {{ {', '.join(f'{k} : {v}' if v else k for k, v in pairs.items())} }}\n"
        for name, pairs in contents.items()
        if pairs
    )


def remove(table: str) -> str:
    return f"add table inet {table}\ndelete table inet {table}\n"


class Merged:
    """The union of several owners' contents, changed one owner at a time.

    Two services may claim one address and port, or share a pod (`hairpin`); then the owner first in order holds it,
    and when that one goes the next one gets it.
    """

    def __init__(self) -> None:
        self._parts: dict[str, Ruleset] = {}
        self._owners: dict[tuple[str, str], set[str]] = {}
        self._elements: dict[str, dict[str, str]] = {}  # the union

    def replace(self, owner: str, contents: Ruleset) -> tuple[Ruleset, Ruleset]:
        """Give an owner new contents; answers what changes by it: (before, after), ready for `diff`."""
        before = self._parts.get(owner, EMPTY)
        keys = {(name, key) for part in (before, contents) for name, pairs in part.elements.items() for key in pairs}
        changed = {(n, k) for n, k in keys if _value(before, n, k) != _value(contents, n, k)}
        old = self._view(changed)
        if contents == EMPTY:
            self._parts.pop(owner, None)
        else:
            self._parts[owner] = contents
        for name, key in changed:
            owners = self._owners.setdefault((name, key), set())
            if _value(contents, name, key) is None:
                owners.discard(owner)
                if not owners:
                    del self._owners[name, key]
            else:
                owners.add(owner)
        new = self._view(changed)
        for name, key in changed:
            if (value := new.get(name, {}).get(key)) is None:
                self._elements.get(name, {}).pop(key, None)
            else:
                self._elements.setdefault(name, {})[key] = value
        return Ruleset(frozenset(), old), Ruleset(contents.chains, new, contents.sources)

    def contents(self) -> Ruleset:
        """All of it, as it is until the next change."""
        chains = frozenset(chain for part in self._parts.values() for chain in part.chains)
        sources = {chain: ranges for part in self._parts.values() for chain, ranges in part.sources.items()}
        return Ruleset(chains, self._elements, sources)

    def __len__(self) -> int:
        return len(self._parts)

    def part(self, owner: str) -> Ruleset:
        """What one owner asked for."""
        return self._parts.get(owner, EMPTY)

    def _view(self, keys: Iterable[tuple[str, str]]) -> dict[str, dict[str, str]]:
        view: dict[str, dict[str, str]] = {}
        for name, key in sorted(keys):
            if owners := self._owners.get((name, key)):
                view.setdefault(name, {})[key] = self._parts[min(owners)].elements[name][key]
        return view


def _value(part: Ruleset, name: str, key: str) -> str | None:
    return part.elements.get(name, {}).get(key)


# -- the fixed parts


def services_table(cluster_cidr: str, service_cidr: str) -> str:
    """The service proxy's table without contents. `cluster_cidr` holds all pods, `service_cidr` all ClusterIPs."""
    maps = "".join(f"  map {name} {{ {_MAP_TYPES[name]}; }}\n" for name in _SERVICE_MAPS)
    affinity = "".join(f"  map {name} {{ {_AFFINITY_TYPE}; }}\n" for name in AFFINITY)
    return f"""table inet {SERVICES} {{
{maps}{affinity}  set hairpin {{ type ipv4_addr . ipv4_addr; }}

  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump dispatch
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump dispatch
  }}
  chain dispatch {{
    ip daddr . meta l4proto . th dport vmap @guarded
    ip saddr != {cluster_cidr} fib saddr type != local jump from_outside
    ip daddr . meta l4proto . th dport vmap @services
    ip daddr != {service_cidr} fib daddr type local meta l4proto . th dport vmap @nodeports
  }}
  chain from_outside {{
    ip daddr . meta l4proto . th dport vmap @services_local
    ip daddr != {service_cidr} fib daddr type local meta l4proto . th dport vmap @nodeports_local
  }}

  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & {MASQUERADE:#x} != 0 meta mark set meta mark & {~MASQUERADE & 0xFFFFFFFF:#x} masquerade fully-random
    ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random
    oifname "{PODS_LINKS}" oifname != "{OWN_LINKS}" accept
    ct status dnat fib saddr type local fib saddr . oif type != local masquerade fully-random
  }}

  chain stick {{
    type filter hook postrouting priority srcnat - 10; policy accept;
    ct state new ct status dnat jump remember
  }}
  chain stick_input {{
    type filter hook input priority filter - 10; policy accept;
    ct state new ct status dnat jump remember
  }}
  chain remember {{
    meta l4proto tcp ct original ip daddr . ct original proto-dst vmap @sticky_tcp
    meta l4proto udp ct original ip daddr . ct original proto-dst vmap @sticky_udp
    meta l4proto tcp ct original proto-dst vmap @sticky_nodeports_tcp
    meta l4proto udp ct original proto-dst vmap @sticky_nodeports_udp
  }}

  chain forward {{
    type filter hook forward priority filter - 5; policy accept;
    ct state new jump refuse_services
  }}
  chain local {{
    type filter hook output priority filter - 5; policy accept;
    ct state new fib daddr type != local jump refuse_services
  }}
  chain input {{
    type filter hook input priority filter - 5; policy accept;
    ct status dnat return
    ct state new ip daddr . meta l4proto . th dport vmap @refused
    ct state new ip daddr != {service_cidr} meta l4proto . th dport vmap @refused_nodeports
  }}
  chain refuse_services {{
    ip daddr . meta l4proto . th dport vmap @refused
    ip daddr {service_cidr} goto refuse
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx port-unreachable
  }}
}}
"""


_VERDICT_BY_ADDRESS = "type ipv4_addr . inet_proto . inet_service : verdict"
_VERDICT_BY_PORT = "type inet_proto . inet_service : verdict"
_AFFINITY_TYPE = (
    "type ipv4_addr . ipv4_addr . inet_service : ipv4_addr . inet_service; flags dynamic, timeout; size 262144"
)
_MAP_TYPES = {
    # `typeof` since a random number has no type name; hence a map for each protocol: the kernel hands such a map back
    # in a form that nft then takes for one protocol only.
    "endpoints_tcp": "typeof ip daddr . tcp dport . numgen random mod 65536 : ip daddr . tcp dport",
    "endpoints_udp": "typeof ip daddr . udp dport . numgen random mod 65536 : ip daddr . udp dport",
    "nodeport_endpoints_tcp": "typeof tcp dport . numgen random mod 65536 : ip daddr . tcp dport",
    "nodeport_endpoints_udp": "typeof udp dport . numgen random mod 65536 : ip daddr . udp dport",
    "services": _VERDICT_BY_ADDRESS,
    "services_local": _VERDICT_BY_ADDRESS,
    "nodeports": _VERDICT_BY_PORT,
    "nodeports_local": _VERDICT_BY_PORT,
    "refused": _VERDICT_BY_ADDRESS,
    "refused_nodeports": _VERDICT_BY_PORT,
    "guarded": _VERDICT_BY_ADDRESS,
    "sticky_tcp": "type ipv4_addr . inet_service : verdict",
    "sticky_udp": "type ipv4_addr . inet_service : verdict",
    "sticky_nodeports_tcp": "type inet_service : verdict",
    "sticky_nodeports_udp": "type inet_service : verdict",
}
_SERVICE_MAPS = tuple(_MAP_TYPES)


def pods_table(pod_cidr: str, cluster_cidr: str, service_cidr: str, links: str) -> str:
    """The pod network's table without contents: the way out, and ports of the node. `links` as "mk8s*"."""
    return f"""table inet {PODS} {{
  map host_ports {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map host_ports_any {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  set hairpin {{ type ipv4_addr . ipv4_addr; }}

  chain prerouting {{
    type nat hook prerouting priority dstnat - 5; policy accept;
    jump to_pod
  }}
  chain output {{
    type nat hook output priority -105; policy accept;
    jump to_pod
  }}
  chain to_pod {{
    meta l4proto {{ tcp, udp }} dnat ip to ip daddr . meta l4proto . th dport map @host_ports
    ip daddr {service_cidr} return
    fib daddr type local meta l4proto {{ tcp, udp }} dnat ip to meta l4proto . th dport map @host_ports_any
  }}

  chain postrouting {{
    type nat hook postrouting priority srcnat + 5; policy accept;
    ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random
    ct status dnat ip saddr 127.0.0.0/8 oifname "{links}" masquerade fully-random
    ip daddr {{ {cluster_cidr}, 224.0.0.0/4 }} return
    ip saddr {pod_cidr} oifname != "{links}" masquerade fully-random
  }}

  chain martians {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{links}" ip daddr 127.0.0.0/8 drop
  }}
}}
"""
