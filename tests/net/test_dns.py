"""Cluster DNS over real sockets on loopback, read with dnslib, which shares no code with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from dnslib import QTYPE
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s.aio import background
from minik8s.net import dns_wire as wire
from minik8s.net.dns_forward import Forwarder, nameservers
from minik8s.net.dns_zone import service_records, zone

from .dns_harness import Dns, Upstream, cluster_dns, dns_server
from .objects import Feed, endpoint, make_ingress, make_service, make_slice


@pytest.fixture
async def dns() -> AsyncIterator[Dns]:
    async with dns_server() as served:
        yield served


SVC = "svc.cluster.local"


async def test_a_service_and_what_does_not_exist(dns: Dns) -> None:
    dns.feed.put(make_service(ports=[{"port": 80, "name": "http"}]))
    assert await dns.values(f"web.default.{SVC}") == ["10.96.0.7"]
    assert await dns.values(f"WeB.Default.{SVC}") == ["10.96.0.7"]
    assert await dns.values(f"_http._tcp.web.default.{SVC}", "SRV") == [f"0 100 80 web.default.{SVC}."]
    assert await dns.values("7.0.96.10.in-addr.arpa", "PTR") == [f"web.default.{SVC}."]
    missing = await dns.ask(f"nope.default.{SVC}")
    assert missing.header.rcode == 3
    assert QTYPE[missing.auth[0].rtype] == "SOA"
    assert missing.header.aa
    for name, kind in ((f"web.default.{SVC}", "AAAA"), (f"default.{SVC}", "A"), (f"_tcp.web.default.{SVC}", "A")):
        no_data = await dns.ask(name, kind)
        assert (no_data.header.rcode, no_data.rr, len(no_data.auth)) == (0, [], 1)
    assert (await dns.ask("9.9.96.10.in-addr.arpa", "PTR")).header.rcode == 3  # ours: not asked of strangers
    assert dns.upstream.asked == []


async def test_answers_follow_the_api_at_once(dns: Dns) -> None:
    name = f"web.default.{SVC}"
    assert (await dns.ask(name)).header.rcode == 3
    dns.feed.put(make_service())
    assert await dns.values(name) == ["10.96.0.7"]
    assert await dns.values(name) == ["10.96.0.7"]  # the prepared one
    dns.feed.put(make_service(ip="10.96.0.8"))
    assert await dns.values(name) == ["10.96.0.8"]
    dns.feed.drop(make_service())
    assert (await dns.ask(name)).header.rcode == 3
    assert (await dns.ask(f"default.{SVC}")).header.rcode == 3  # nothing is left of the namespace


async def test_a_headless_service_answers_with_its_ready_endpoints(dns: Dns) -> None:
    headless = make_service("db", "None", ports=[{"port": 5432, "name": "pg"}])
    ready, named = endpoint("10.244.0.5"), endpoint("10.244.0.6", hostname="db-1")
    unready = endpoint("10.244.0.7", ready=False)
    dns.feed.put(headless, make_slice(ready, named, unready, of="db", ports=[{"port": 5432, "name": "pg"}]))
    assert sorted(await dns.values(f"db.default.{SVC}")) == ["10.244.0.5", "10.244.0.6"]
    assert {(await dns.values(f"db.default.{SVC}"))[0] for _ in range(4)} == {"10.244.0.5", "10.244.0.6"}  # in turn
    assert await dns.values(f"db-1.db.default.{SVC}") == ["10.244.0.6"]
    assert await dns.values(f"10-244-0-5.db.default.{SVC}") == ["10.244.0.5"]
    assert await dns.values("6.0.244.10.in-addr.arpa", "PTR") == [f"db-1.db.default.{SVC}."]
    reply = await dns.ask(f"_pg._tcp.db.default.{SVC}", "SRV")
    assert sorted(str(r.rdata) for r in reply.rr) == [
        f"0 50 5432 10-244-0-5.db.default.{SVC}.",
        f"0 50 5432 db-1.db.default.{SVC}.",
    ]
    assert sorted(str(r.rdata) for r in reply.ar) == ["10.244.0.5", "10.244.0.6"]


async def test_no_data_and_no_name_are_told_apart_with_the_zone_they_are_of(dns: Dns) -> None:
    dns.feed.put(make_service(), make_service("alias", "", type="ExternalName", externalName=f"gone.default.{SVC}"))
    for name, kind, rcode, zone_name in (
        (f"web.default.{SVC}", "AAAA", 0, "cluster.local."),
        (f"web.default.{SVC}", "MX", 0, "cluster.local."),
        (f"gone.default.{SVC}", "AAAA", 3, "cluster.local."),
        (f"alias.default.{SVC}", "A", 3, "cluster.local."),
        ("www.example.com.default.svc.cluster.local", "A", 3, "cluster.local."),  # a search list's attempt
        ("9.0.244.10.in-addr.arpa", "PTR", 3, "244.10.in-addr.arpa."),
        ("244.10.in-addr.arpa", "PTR", 0, "244.10.in-addr.arpa."),
        ("0.96.10.in-addr.arpa", "PTR", 0, "96.10.in-addr.arpa."),  # there are names below
        ("1.1.111.10.in-addr.arpa", "PTR", 3, "111.10.in-addr.arpa."),  # the end of 10.96.0.0/12
    ):
        reply = await dns.ask(name, kind)
        assert (reply.header.rcode, [(str(r.rname), QTYPE[r.rtype]) for r in reply.auth]) == (
            rcode,
            [(zone_name, "SOA")],
        ), name
        assert reply.auth[0].rdata.times[4] == 5  # seconds that "no" may be kept
    assert dns.upstream.asked == []
    await dns.ask("1.1.112.10.in-addr.arpa", "PTR")
    assert dns.upstream.asked == ["1.1.112.10.in-addr.arpa"]  # not ours any more


async def test_hosts_of_ingresses_resolve_to_where_the_ingress_answers(dns: Dns) -> None:
    shop = make_ingress("shop.example.com", "*.apps.example.com", at=("192.0.2.1", "192.0.2.2"))
    dns.feed.put(make_ingress("shop.example.com", at=()))
    await dns.values("shop.example.com")
    assert dns.upstream.asked == ["shop.example.com"]  # it answers nowhere yet
    dns.upstream.asked.clear()
    dns.feed.put(shop, make_ingress("shop.example.com", name="other", at=("192.0.2.2",)))
    assert sorted(await dns.values("Shop.example.com")) == ["192.0.2.1", "192.0.2.2"]
    assert sorted(await dns.values("any.apps.example.com")) == ["192.0.2.1", "192.0.2.2"]
    for kind in ("AAAA", "HTTPS"):
        reply = await dns.ask("shop.example.com", kind)
        assert (reply.header.rcode, reply.rr, str(reply.auth[0].rname)) == (0, [], "shop.example.com.")
    assert dns.upstream.asked == []
    await dns.ask("shop.example.com", "MX")
    await dns.ask("two.labels.apps.example.com")
    await dns.ask("apps.example.com")
    assert dns.upstream.asked == ["shop.example.com", "two.labels.apps.example.com", "apps.example.com"]
    dns.feed.drop(shop)
    assert await dns.values("shop.example.com") == ["192.0.2.2"]


async def test_an_ingress_takes_no_name_of_the_clusters_own(dns: Dns) -> None:
    own = [f"web.default.{SVC}", f"new.default.{SVC}", "cluster.local", "ns.dns.cluster.local", "*.cluster.local"]
    dns.feed.put(make_service(), make_ingress(*own, "x" * 64 + ".example.com", "shop.cluster.local"))
    assert await dns.values(f"web.default.{SVC}") == ["10.96.0.7"]
    assert (await dns.ask(f"new.default.{SVC}")).header.rcode == 3
    assert await dns.values("ns.dns.cluster.local") == ["127.0.0.1"]
    assert (await dns.ask("other.cluster.local")).header.rcode == 3
    assert await dns.values("shop.cluster.local") == ["192.0.2.80"]


async def test_names_of_pods_and_of_the_zone_itself(dns: Dns) -> None:
    assert await dns.values("10-244-0-9.default.pod.cluster.local") == ["10.244.0.9"]
    assert (await dns.ask("10-244-0-999.default.pod.cluster.local")).header.rcode == 3
    assert (await dns.ask("default.pod.cluster.local")).header.rcode == 0
    assert (await dns.ask("10-244-0-9.default.pod.cluster.local.example.com")).rr  # not ours
    assert await dns.values("dns-version.cluster.local", "TXT") == ['"1.1.0"']
    assert await dns.values("cluster.local", "NS") == ["ns.dns.cluster.local."]
    assert len(await dns.values("cluster.local", "SOA")) == 1


async def test_an_external_name_is_followed_inside_and_outside(dns: Dns) -> None:
    dns.feed.put(
        make_service("out", "", type="ExternalName", externalName="www.example.com"),
        make_service("alias", "", type="ExternalName", externalName=f"web.default.{SVC}"),
        make_service("loop", "", type="ExternalName", externalName=f"loop.default.{SVC}"),
        make_service(),
    )
    assert await dns.values(f"out.default.{SVC}", "CNAME") == ["www.example.com."]
    reply = await dns.ask(f"out.default.{SVC}")
    assert [(str(r.rname), str(r.rdata)) for r in reply.rr] == [
        (f"out.default.{SVC}.", "www.example.com."),
        ("www.example.com.", "real.www.example.com."),
        ("real.www.example.com.", "198.51.100.7"),
    ]
    assert (await dns.values(f"alias.default.{SVC}"))[-1] == "10.96.0.7"
    assert (await dns.ask(f"loop.default.{SVC}")).header.rcode == 2


async def test_other_names_are_forwarded_and_kept(dns: Dns) -> None:
    assert await dns.values("Www.eXample.com") == ["real.www.example.com.", "198.51.100.7"]
    assert await dns.values("www.example.com") == ["real.www.example.com.", "198.51.100.7"]
    assert (await dns.ask("nx.example.com")).header.rcode == 3
    assert (await dns.ask("nx.example.com")).header.rcode == 3
    assert dns.upstream.asked == ["www.example.com", "nx.example.com"]


async def test_equal_questions_at_once_are_asked_once(dns: Dns) -> None:
    answers = await asyncio.gather(*(dns.values("www.example.com") for _ in range(20)))
    assert all(answer[-1] == "198.51.100.7" for answer in answers)
    assert dns.upstream.asked == ["www.example.com"]


async def test_times_to_live_run_down_in_the_cache(dns: Dns) -> None:
    now = 1000.0
    dns.cluster.server._forwarder._clock = lambda: now
    assert [r.ttl for r in (await dns.ask("www.example.com")).rr] == [60, 60]
    now += 25
    assert [r.ttl for r in (await dns.ask("www.example.com")).rr] == [35, 35]
    now += 36
    assert [r.ttl for r in (await dns.ask("www.example.com")).rr] == [60, 60]


async def test_long_answers_are_truncated_by_udp_and_whole_by_tcp(dns: Dns) -> None:
    headless = make_service("many", "None")
    dns.feed.put(headless, make_slice(*(endpoint(f"10.244.1.{n}") for n in range(1, 101)), of="many"))
    for name, size in ((f"many.default.{SVC}", 100), ("big.example.com", 100)):
        plain = await dns.ask(name)
        assert plain.header.tc == 1
        assert len(plain.pack()) <= 512
        assert len((await dns.ask(name, tcp=True)).rr) == size
    dns.feed.put(make_slice(*(endpoint(f"10.244.1.{n}") for n in range(1, 61)), of="many"))
    assert len((await dns.ask(f"many.default.{SVC}", edns=4096)).rr) == 60
    assert (await dns.ask(f"many.default.{SVC}")).header.tc == 1


async def test_edns_is_answered_in_kind(dns: Dns) -> None:
    dns.feed.put(make_service())
    for name in (f"web.default.{SVC}", f"nope.default.{SVC}", "www.example.com"):
        assert any(r.rtype == QTYPE.OPT for r in (await dns.ask(name, edns=1400)).ar) or "example" in name
        assert not any(r.rtype == QTYPE.OPT for r in (await dns.ask(name)).ar)


async def test_a_silent_resolver_means_servfail(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minik8s.net.dns_forward.ATTEMPT_SECONDS", 0.05)
    assert (await dns.ask("never.example.com")).header.rcode == 2


async def test_a_resolver_that_leads_back_to_us_is_noticed() -> None:
    feed = Feed()
    upstreams: list[tuple[str, int]] = []
    forwarder = Forwarder(upstreams=upstreams)
    cluster = cluster_dns(feed, forwarder)
    async with background(cluster.run()):
        while not cluster.server.port:
            await asyncio.sleep(0)
        upstreams.append(("127.0.0.1", cluster.server.port))  # as when somebody edits the host's resolv.conf
        assert forwarder._refresh()
        await forwarder.probe()
        assert forwarder.looped == set(upstreams)
        dns = Dns(feed, cluster, Upstream())
        feed.put(make_service())
        assert (await dns.ask("www.example.com")).header.rcode == 2
        assert await dns.values(f"web.default.{SVC}") == ["10.96.0.7"]


def test_resolv_conf_without_ourselves() -> None:
    text = "search x\nnameserver 10.96.0.10\nnameserver 1.1.1.1\n# nameserver 2.2.2.2\nnameserver fe80::1%eth0\n"
    assert nameservers(text, own=["10.96.0.10"]) == ["1.1.1.1", "fe80::1%eth0"]


async def test_garbage_is_refused_or_ignored_and_harms_nobody(dns: Dns) -> None:
    dns.feed.put(make_service())
    assert (await dns.by_udp(b"\x12\x34" + bytes(10)))[3] & 0xF == wire.FORMERR
    assert (await dns.by_udp(b"\x12\x34\x28\x00\x00\x01" + bytes(6) + b"\0\0\1\0\1"))[3] & 0xF == wire.NOTIMP
    with pytest.raises(TimeoutError):  # an answer is never answered
        await dns.by_udp(b"\x12\x34\x80" + bytes(20), timeout=0.1)
    assert await dns.values(f"web.default.{SVC}") == ["10.96.0.7"]


@given(st.binary(max_size=600))
@settings(max_examples=300, deadline=None)
def test_reading_strangers_bytes_never_fails_otherwise(data: bytes) -> None:
    for read in (wire.parse_query, lambda d: wire.parse_answer(d, d[12:20])):
        with contextlib.suppress(wire.Malformed):
            read(data)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=20))
@settings(max_examples=100, deadline=None)
def test_a_zone_changed_step_by_step_is_the_zone_made_at_once(steps: list[tuple[str, int]]) -> None:
    services = {}
    made = zone([], [], "cluster.local", "10.96.0.10")

    for name, version in steps:
        key = f"default/{name}"
        if version:
            services[key] = make_service(name, f"10.96.1.{version}")  # shared addresses: PTR has several owners
            made.replace(key, service_records(services[key], (), "cluster.local"))
        else:
            services.pop(key, None)
            made.replace(key, {})
    fresh = zone(services.values(), [], "cluster.local", "10.96.0.10")
    assert made._parents == fresh._parents
    assert made._names.keys() == fresh._names.keys()
    for name in fresh._names:
        old, new = made.find(name), fresh.find(name)
        assert old is not None
        assert new is not None
        assert {k: set(v) for k, v in old.items()} == {k: set(v) for k, v in new.items()}
