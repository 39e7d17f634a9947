"""The text that the kernel's tables are made of: golden files, and the law that a difference leads to the new state.

`pytest tests/net --update-goldens` rewrites the goldens; review them as code. The same texts are loaded into a real
kernel in test_services_kernel.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.net import nft
from minik8s.net.nftables import NotThere, parse_table, translate
from minik8s.net.services import Flow, backends, loses_sticky_endpoint, render, sort_affinity, stale_udp

from .objects import endpoint, make_service, make_slice

CLUSTER, RANGE = "10.244.0.0/16", "10.96.0.0/12"
TWO = make_slice(endpoint("10.244.0.5"), endpoint("10.244.1.9", "n2"))
MANY_PORTS: Any = ({"port": 8080, "name": "http"}, {"port": 53, "name": "dns", "protocol": "UDP"})
CASES = {
    "cluster-ip": (make_service(), TWO),
    "no-endpoints": (make_service(ports=[{"port": 80, "nodePort": 30080}]), make_slice()),
    "ports-tcp-and-udp": (
        make_service(ports=[{"port": 80, "name": "http"}, {"port": 53, "name": "dns", "protocol": "UDP"}]),
        make_slice(endpoint("10.244.0.5"), ports=MANY_PORTS),
    ),
    "node-port": (make_service(ports=[{"port": 80, "nodePort": 30080}], type="NodePort"), TWO),
    "external-local": (
        make_service(
            ports=[{"port": 80, "nodePort": 30080}],
            type="LoadBalancer",
            externalTrafficPolicy="Local",
            externalIPs=["203.0.113.5"],
            status={"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"hostname": "x"}]}},
        ),
        TWO,
    ),
    "external-local-without-local-endpoints": (
        make_service(ports=[{"port": 80, "nodePort": 30080}], type="NodePort", externalTrafficPolicy="Local"),
        make_slice(endpoint("10.244.1.9", "n2")),
    ),
    "internal-local": (make_service(internalTrafficPolicy="Local"), TWO),
    "internal-local-without-local-endpoints": (
        make_service(internalTrafficPolicy="Local"),
        make_slice(endpoint("10.244.1.9", "n2")),
    ),
    "session-affinity": (
        make_service(
            ports=[{"port": 80, "nodePort": 30080}],
            type="NodePort",
            sessionAffinity="ClientIP",
            sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
        ),
        TWO,
    ),
    "headless": (make_service(ip="None"), TWO),
    "answered-by-this-node": (make_service(ip="10.96.0.10"), TWO),
    "of-another-proxy": (make_service(labels={"service.kubernetes.io/service-proxy-name": "x"}), TWO),
}


def golden(request: pytest.FixtureRequest, name: str, text: str) -> None:
    path = Path(__file__).parent / "goldens" / f"{name}.nft"
    if request.config.getoption("--update-goldens"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"differs from {path.name}; if it should, run pytest with --update-goldens"


@pytest.mark.parametrize("case", CASES)
def test_a_service_as_commands(case: str, request: pytest.FixtureRequest) -> None:
    service, piece = CASES[case]
    contents = render(service, [piece], "n1", own=frozenset(["10.96.0.10"]))
    golden(request, case, nft.diff(nft.SERVICES, nft.EMPTY, contents, CLUSTER))


def test_the_tables(request: pytest.FixtureRequest) -> None:
    golden(request, "table-services", nft.replace(nft.SERVICES, nft.services_table(CLUSTER, RANGE), nft.EMPTY, CLUSTER))
    golden(request, "table-pods", nft.pods_table("10.244.0.0/24", CLUSTER, RANGE, "mk8s*"))


def test_a_changed_endpoint_touches_its_own_slot_only(request: pytest.FixtureRequest) -> None:
    service, _ = CASES["cluster-ip"]
    old = render(service, [TWO], "n1", own=frozenset())
    new = render(service, [make_slice(endpoint("10.244.0.5"), endpoint("10.244.2.2", "n3"))], "n1", own=frozenset())
    golden(request, "change-one-endpoint", nft.diff(nft.SERVICES, old, new, CLUSTER))


# -- laws

KEYS = st.dictionaries(st.sampled_from(["k1", "k2", "k3", "k4"]), st.sampled_from(["v1", "v2", "goto sc1"]))
CONTENTS = st.builds(
    nft.Ruleset,
    st.frozensets(st.sampled_from(["sc1", "sl2", "px3_60", "stick60"])),
    st.dictionaries(st.sampled_from(nft.MAPS), KEYS),
)


def apply(contents: nft.Ruleset, script: str) -> nft.Ruleset:
    """What the kernel does with a script; as strict as the kernel about elements that are (not) there."""
    chains, elements = set(contents.chains), {name: dict(pairs) for name, pairs in contents.elements.items()}
    for line in script.splitlines():
        verb, kind, _, _, name, *_ = line.split()
        if (verb, kind) == ("add", "chain"):
            chains.add(name)
        elif kind == "element":
            listed = re.search(r"\{ (.*) \}", line)
            assert listed
            for item in listed[1].split(", "):
                key, _, value = item.partition(" : ")
                if verb == "delete":
                    del elements[name][key]
                else:
                    assert key not in elements.setdefault(name, {})
                    elements[name][key] = value
    return nft.Ruleset(frozenset(chains), elements)


def without_empty(contents: nft.Ruleset) -> dict[str, dict[str, str]]:
    return {name: dict(pairs) for name, pairs in contents.elements.items() if pairs}


@given(CONTENTS, CONTENTS)
def test_a_difference_applied_to_the_old_is_the_new(old: nft.Ruleset, new: nft.Ruleset) -> None:
    done = apply(old, nft.diff("t", old, new, CLUSTER))
    assert without_empty(done) == without_empty(new)
    assert done.chains == old.chains | new.chains
    assert nft.diff("t", done, new, CLUSTER) == ""


@given(st.lists(st.tuples(st.sampled_from("abc"), CONTENTS), max_size=12))
def test_owners_changed_one_by_one_end_as_their_union(steps: list[tuple[str, nft.Ruleset]]) -> None:
    merged, kernel, parts = nft.Merged(), nft.EMPTY, {}
    for owner, contents in steps:
        parts[owner] = contents
        old, new = merged.replace(owner, contents)
        kernel = apply(kernel, nft.diff("t", old._replace(chains=kernel.chains), new, CLUSTER))
    expected: dict[str, dict[str, str]] = {}
    for owner in sorted(parts, reverse=True):  # the first in order wins
        for name, pairs in parts[owner].elements.items():
            expected.setdefault(name, {}).update(pairs)
    assert without_empty(kernel) == {name: pairs for name, pairs in expected.items() if pairs}
    assert without_empty(merged.contents()) == without_empty(kernel)
    assert merged.contents().chains <= kernel.chains


# -- rules of endpoints


def ips(*endpoints: dict[str, Any]) -> tuple[list[str], list[str]]:
    found = backends(make_service().spec.ports[0], [make_slice(*endpoints)], "n1")
    return [b.ip for b in found.cluster], [b.ip for b in found.local]


def test_ready_endpoints_else_those_that_still_serve_while_terminating() -> None:
    ready = endpoint("10.0.0.1")
    leaving = endpoint("10.0.0.2", ready=False, serving=True, terminating=True)
    unready = endpoint("10.0.0.3", ready=False, serving=False)
    dead = endpoint("10.0.0.4", ready=False, serving=False, terminating=True)
    assert ips(ready, leaving, unready, dead)[0] == ["10.0.0.1"]
    assert ips(leaving, unready, dead)[0] == ["10.0.0.2"]
    assert ips(unready, dead)[0] == []
    assert ips({"addresses": ["10.0.0.9"]}) == (["10.0.0.9"], ["10.0.0.9"])  # unknown counts as ready, and as local


def test_local_endpoints_have_a_fallback_of_their_own() -> None:
    far = endpoint("10.0.0.1", "n2")
    leaving = endpoint("10.0.0.2", ready=False, serving=True, terminating=True)
    assert ips(far, leaving) == (["10.0.0.1"], ["10.0.0.2"])


def test_slices_of_ipv6_and_ports_of_other_names_are_not_used() -> None:
    service = make_service(ports=[{"port": 80, "name": "http"}])
    other = make_slice(endpoint("10.0.0.1"), ports=[{"port": 80, "name": "metrics"}])
    found = backends(service.spec.ports[0], [other], "n1")
    assert found.cluster == ()


def test_udp_flows_to_forget() -> None:
    udp: Any = [{"port": 53, "protocol": "UDP", "nodePort": 30053}]
    service = make_service(ports=udp, type="NodePort")

    def contents(*addresses: str) -> nft.Ruleset:
        piece = make_slice(*map(endpoint, addresses), ports=[{"port": 53, "protocol": "UDP"}])
        return render(service, [piece], "n1", own=frozenset())

    assert stale_udp(contents("10.0.0.1", "10.0.0.2"), contents("10.0.0.2", "10.0.0.3")) == [
        Flow("udp", "10.96.0.7", 53, "10.0.0.1"),
        Flow("udp", "", 30053, "10.0.0.1"),
    ]
    assert stale_udp(nft.EMPTY, contents("10.0.0.1")) == [Flow("udp", "10.96.0.7", 53, ""), Flow("udp", "", 30053, "")]
    assert stale_udp(contents("10.0.0.1"), contents("10.0.0.1", "10.0.0.2")) == []
    sticky = make_service(sessionAffinity="ClientIP")
    old = render(sticky, [make_slice(endpoint("10.0.0.1"))], "n1", own=frozenset())
    assert loses_sticky_endpoint(old, nft.EMPTY)
    assert not loses_sticky_endpoint(old, old)
    assert not loses_sticky_endpoint(contents("10.0.0.1"), nft.EMPTY)


def test_who_sticks_to_what_is_gone() -> None:
    service, piece = CASES["session-affinity"]
    contents = render(service, [piece], "n1", own=frozenset())
    live, stale = sort_affinity(
        {
            "affinity_tcp": {
                "192.0.2.9 . 10.96.0.7 . 80 timeout 60s expires 7s": "10.244.0.5 . 8080",
                "192.0.2.9 . 192.0.2.2 . 30080 timeout 60s expires 7s": "10.244.1.9 . 8080",
                "192.0.2.8 . 10.96.0.7 . 80 timeout 60s expires 7s": "10.244.0.99 . 8080",
            }
        },
        contents,
    )
    assert len(live["affinity_tcp"]) == 2
    assert stale == {"affinity_tcp": {"192.0.2.8 . 10.96.0.7 . 80": "10.244.0.99 . 8080"}}


# -- nft's own words


def test_errors_name_the_line() -> None:
    script = "add table inet x\nadd element inet x y { 1 }\n"
    error = translate(script, "/dev/stdin:2:20-22: Error: No such file or directory\nadd element\n   ^^^\n")
    assert isinstance(error, NotThere)
    assert str(error) == "nftables refused a change: No such file or directory (in: add element inet x y { 1 })"
    denied = translate("add table inet x\n", "netlink: Error: cache initialization failed: Operation not permitted")
    assert "minik8s needs root" in str(denied)


def test_reading_a_listing() -> None:
    listing = """table inet minik8s {
    map endpoints_tcp {
        typeof x : y
        elements = { 10.96.0.7 . 80 . 0 : 10.0.0.1 . 8080,
                     10.96.0.7 . 80 . 1 : 10.0.0.2 . 8080 }
    }

    set hairpin {
        type a . b
        elements = { 10.0.0.1 . 10.0.0.1 }
    }

    chain sc2 {
        dnat to x
    }
}
"""
    table = parse_table(listing.replace("    ", "\t"))
    assert table.contents.chains == {"sc2"}
    assert table.contents.elements == {
        "endpoints_tcp": {"10.96.0.7 . 80 . 0": "10.0.0.1 . 8080", "10.96.0.7 . 80 . 1": "10.0.0.2 . 8080"},
        "hairpin": {"10.0.0.1 . 10.0.0.1": ""},
    }
