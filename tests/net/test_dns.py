"""Cluster DNS over real sockets on loopback, read with dnslib, which shares no code with it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from dnslib import EDNS0, QTYPE, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s.aio import background
from minik8s.net import dns_wire as wire
from minik8s.net.dns import ClusterDns
from minik8s.net.dns_forward import Forwarder, nameservers
from minik8s.net.dns_zone import service_records, zone

from .objects import Feed, endpoint, make_service, make_slice


class Upstream(asyncio.DatagramProtocol):
    """A resolver outside: knows example.com; `big.example.com` only by TCP; `never.example.com` is not answered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ttl = 60

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if answer := self.answer(data, udp=True):
            self.transport.sendto(answer, address)  # type: ignore[attr-defined]

    def answer(self, data: bytes, *, udp: bool) -> bytes:
        query = DNSRecord.parse(data)
        name = str(query.q.qname).rstrip(".").lower()
        self.asked.append(name)
        if name.startswith("never."):
            return b""
        reply = query.reply()
        if name.startswith("nx."):
            reply.header.rcode = 3
            reply.add_auth(*_zone(f"example.com. {self.ttl} SOA ns.example.com. h.example.com. 1 2 3 4 {self.ttl}"))
        elif name.startswith("big."):
            reply.header.tc = int(udp)
            for n in range(0 if udp else 100):
                reply.add_answer(*_zone(f"{name}. 60 A 198.51.100.{n}"))
        elif query.q.qtype == QTYPE.A:
            reply.add_answer(
                *_zone(f"{name}. {self.ttl} CNAME real.{name}."), *_zone(f"real.{name}. 60 A 198.51.100.7")
            )
        return bytes(reply.pack())


def _zone(text: str) -> list[object]:
    from dnslib import RR

    return list(RR.fromZone(text))


class Dns:
    def __init__(self, feed: Feed, cluster: ClusterDns, upstream: Upstream) -> None:
        self.feed, self.cluster, self.upstream = feed, cluster, upstream

    async def ask(self, name: str, kind: str = "A", *, edns: int = 0, tcp: bool = False) -> DNSRecord:
        query = DNSRecord(DNSHeader(id=4711, rd=1), q=DNSQuestion(name, getattr(QTYPE, kind)))
        if edns:
            query.add_ar(EDNS0(udp_len=edns))
        raw = await (self.by_tcp if tcp else self.by_udp)(bytes(query.pack()))
        reply = DNSRecord.parse(raw)
        assert reply.header.id == 4711
        assert str(reply.q.qname) == name if name.endswith(".") else f"{name}."
        return reply

    async def by_udp(self, data: bytes, timeout: float = 3) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(("127.0.0.1", self.cluster.server.port))
            async with asyncio.timeout(timeout):
                await loop.sock_sendall(sock, data)
                return await loop.sock_recv(sock, 65535)

    async def by_tcp(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.cluster.server.port)
        writer.write(len(data).to_bytes(2, "big") + data)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        writer.close()
        await writer.wait_closed()
        return answer

    async def values(self, name: str, kind: str = "A") -> list[str]:
        return [str(answer.rdata) for answer in (await self.ask(name, kind)).rr]


@pytest.fixture
async def dns() -> AsyncIterator[Dns]:
    loop = asyncio.get_running_loop()
    upstream = Upstream()

    async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        answer = upstream.answer(data, udp=False)
        writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(tcp, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(lambda: upstream, local_addr=("127.0.0.1", port))
    feed = Feed()
    forwarder = Forwarder(upstreams=[("127.0.0.1", port)])
    cluster = ClusterDns(
        feed.services,
        feed.slices,
        "cluster.local",
        ("127.0.0.1", 0),
        ranges=["10.96.0.0/12", "10.244.0.0/16"],
        forwarder=forwarder,
    )
    async with background(cluster.run()):
        while cluster.server.port == 0 or forwarder.probe_name not in upstream.asked:
            await asyncio.sleep(0)
        upstream.asked.clear()
        yield Dns(feed, cluster, upstream)
    transport.close()
    listener.close()


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
    forwarder = Forwarder(upstreams=[])
    cluster = ClusterDns(feed.services, feed.slices, "cluster.local", ("127.0.0.1", 0), forwarder=forwarder)
    probe = forwarder.probe
    asked = asyncio.Event()

    async def late() -> None:
        forwarder._upstreams.append(("127.0.0.1", cluster.server.port))
        await probe()
        asked.set()

    forwarder.probe = late  # type: ignore[method-assign]
    async with background(cluster.run()):
        await asked.wait()
        assert forwarder.looped
        dns = Dns(feed, cluster, Upstream())
        feed.put(make_service())
        assert (await dns.ask("www.example.com")).header.rcode == 2
        assert await dns.values(f"web.default.{SVC}") == ["10.96.0.7"]


def test_resolv_conf_without_ourselves() -> None:
    text = "search x\nnameserver 10.96.0.10\nnameserver 1.1.1.1\n# nameserver 2.2.2.2\nnameserver fe80::1%eth0\n"
    assert nameservers(text, own=["10.96.0.10"]) == ["1.1.1.1", "fe80::1"]


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
