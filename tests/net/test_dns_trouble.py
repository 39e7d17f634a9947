"""Cluster DNS when the API is away, resolvers are silent or lie, and clients are hostile."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path

import pytest
from dnslib import QTYPE, DNSRecord

from minik8s.net import dns as dns_module
from minik8s.net import dns_forward, dns_memory, dns_server
from minik8s.net import dns_wire as wire
from minik8s.net.dns_forward import Forwarder

from .dns_harness import Dns, upstream_at
from .dns_harness import dns_server as serving
from .objects import Feed, make_ingress, make_service

SVC = "svc.cluster.local"


def query(name: str, kind: str = "A") -> bytes:
    return bytes(DNSRecord.question(name, kind).pack())


async def test_names_outlive_the_agent_while_the_api_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_module, "REMEMBER_SECONDS", 0)
    memory = tmp_path / "net" / "names"
    async with serving(memory=memory) as dns:
        dns.feed.put(make_service(), make_service("gone", "10.96.0.8"), make_ingress("shop.example.com"))
        while b"shop" not in (memory.read_bytes() if memory.exists() else b""):
            await asyncio.sleep(0.005)
    feed = Feed(synced=False)
    async with serving(feed, memory=memory) as dns:
        while not dns.cluster.zone.owners.keys() - {""}:
            await asyncio.sleep(0)
        assert await dns.values(f"web.default.{SVC}") == ["10.96.0.7"]
        assert await dns.values("shop.example.com") == ["192.0.2.80"]
        assert (await dns.ask(f"unknown.default.{SVC}")).header.rcode == 2  # it may well exist: not denied
        assert (await dns.values("www.example.com"))[-1] == "198.51.100.7"
        feed.put(make_service(ip="10.96.0.9"))
        feed.listed()  # the API is back; one service has moved, one is gone, and so is the Ingress
        while not dns.cluster.server.complete:
            await asyncio.sleep(0)
        assert await dns.values(f"web.default.{SVC}") == ["10.96.0.9"]
        assert (await dns.ask(f"gone.default.{SVC}")).header.rcode == 3
        assert (await dns.ask(f"unknown.default.{SVC}")).header.rcode == 3
        assert (await dns.values("shop.example.com"))[-1] == "198.51.100.7"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a":{"b":{"1":["?"]}}}'])
def test_a_broken_memory_counts_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "names"
    path.write_bytes(content)
    assert dns_memory.read(path) == {}


async def test_a_silent_resolver_is_asked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_forward, "ATTEMPT_SECONDS", 0.1)
    async with upstream_at() as (good, place):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            async with serving(upstreams=[silent.getsockname(), place]) as dns:
                for number in range(5):
                    assert (await dns.values(f"w{number}.example.com"))[-1] == "198.51.100.7"
            silent.setblocking(False)
            asked = []
            while True:
                try:
                    asked.append(str(DNSRecord.parse(silent.recv(512)).q.qname))
                except BlockingIOError:
                    break
    assert [name for name in asked if "example" in name] == ["w0.example.com."]
    assert len([name for name in good.asked if "example" in name]) == 5


async def test_a_refusal_is_passed_on_only_if_nobody_else_knows() -> None:
    async with upstream_at() as (unwilling, first), upstream_at() as (_, second):
        unwilling.rcode = 5
        async with serving(upstreams=[first, second]) as dns:
            assert (await dns.values("www.example.com"))[-1] == "198.51.100.7"
        async with serving(upstreams=[first]) as dns:
            assert (await dns.ask("www.example.com")).header.rcode == 5


async def test_without_any_resolver_the_cluster_still_resolves() -> None:
    async with serving(upstreams=[]) as dns:
        dns.feed.put(make_service())
        assert (await dns.ask("www.example.com")).header.rcode == 2
        assert await dns.values(f"web.default.{SVC}") == ["10.96.0.7"]


async def test_changes_of_the_hosts_resolvers_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_forward, "REREAD_SECONDS", 0)
    texts = ["nameserver 192.0.2.1\n"]
    forwarder = Forwarder(source=lambda: texts[-1], own=["10.96.0.10"])
    assert forwarder._in_order() == [("192.0.2.1", 53)]
    texts.append("nameserver 10.96.0.10\nnameserver 192.0.2.2\n")
    assert forwarder._refresh()
    assert forwarder._in_order() == [("192.0.2.2", 53)]
    assert not forwarder._refresh()


async def test_forged_answers_are_waited_past() -> None:
    """Whoever can send from the resolver's very address still has to guess the number and the question."""
    loop = asyncio.get_running_loop()
    ports = set()

    class Forger(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            ports.add(addr[1])
            asked = DNSRecord.parse(data)
            forged = asked.reply()
            forged.add_answer(*_records(f"{asked.q.qname} 60 A 203.0.113.66"))
            for other in (asked.header.id ^ 1, asked.header.id ^ 0x8000):
                self.transport.sendto(other.to_bytes(2, "big") + bytes(forged.pack())[2:], addr)  # type: ignore[attr-defined]
            elsewhere = DNSRecord.question("other.example.com").reply()
            elsewhere.header.id = asked.header.id
            self.transport.sendto(bytes(elsewhere.pack()), addr)  # type: ignore[attr-defined]
            self.transport.sendto(bytes(10), addr)  # type: ignore[attr-defined]
            true = asked.reply()
            true.add_answer(*_records(f"{asked.q.qname} 60 A 198.51.100.7"))
            self.transport.sendto(bytes(true.pack()), addr)  # type: ignore[attr-defined]

    transport, _ = await loop.create_datagram_endpoint(Forger, local_addr=("127.0.0.1", 0))
    try:
        async with serving(upstreams=[transport.get_extra_info("sockname")]) as dns:
            for number in range(20):
                assert await dns.values(f"w{number}.example.com") == ["198.51.100.7"]
    finally:
        transport.close()
    assert len(ports) > 15  # a port of its own for each question


def _records(text: str) -> list[object]:
    from dnslib import RR

    return list(RR.fromZone(text))


@pytest.fixture
async def dns():  # type: ignore[no-untyped-def]
    async with serving() as served:
        served.feed.put(make_service())
        yield served


async def test_several_queries_on_one_connection(dns: Dns) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", dns.cluster.server.port)
    names = [f"web.default.{SVC}", "www.example.com", f"nope.default.{SVC}"] * 3
    for name in names:  # all before the first answer is read
        data = query(name)
        writer.write(len(data).to_bytes(2, "big") + data)
    codes = []
    for name in names:
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        codes.append(DNSRecord.parse(answer).header.rcode)
        assert str(DNSRecord.parse(answer).q.qname) == f"{name}."
    assert codes == [0, 0, 3] * 3
    writer.close()


async def test_slow_and_greedy_clients_are_cut_off_and_others_served(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "TCP_IDLE_SECONDS", 0.2)
    port = dns.cluster.server.port
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(dns_server.MAX_CONNECTIONS_OF_CLIENT)]
    for _, writer in slow:
        writer.write(b"\xff\xff" + bytes(100))  # 64 KiB announced, and then nothing
    refused, _ = await asyncio.open_connection("127.0.0.1", port)
    with pytest.raises((EOFError, ConnectionResetError)):
        await refused.readexactly(2)
    assert await dns.values(f"web.default.{SVC}") == ["10.96.0.7"]  # by UDP nobody notices
    for reader, _ in slow:
        assert await reader.read() == b""
    while dns.cluster.server._connections:  # each is forgotten
        await asyncio.sleep(0)
    assert (await dns.ask(f"web.default.{SVC}", tcp=True)).header.rcode == 0


async def test_sixty_four_kibibytes_of_garbage_by_tcp(dns: Dns) -> None:
    answer = await dns.by_tcp(b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x3f" * 65000)
    assert answer[3] & 0xF == wire.FORMERR


async def test_random_and_looping_packets_harm_nobody(dns: Dns) -> None:
    rng = random.Random(7)
    whole = query(f"web.default.{SVC}")
    pointer = whole[:12] + b"\xc0\x0c" + whole[-4:]  # a name that is a pointer to itself
    chain = whole[:12] + b"".join(b"\xc0" + bytes([12 + 2 * (n + 1)]) for n in range(60)) + whole[-4:]
    long = whole[:12] + b"\x3f" + b"a" * 63 + (b"\x3f" + b"b" * 63) * 3 + b"\0" + whole[-4:]  # 257 bytes
    for data in (pointer, chain, long):
        assert (await dns.by_udp(data))[3] & 0xF == wire.FORMERR
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", dns.cluster.server.port))
        for _ in range(1500):
            broken = bytearray(whole)
            for _ in range(rng.randrange(1, 5)):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            sock.send(bytes(broken[: rng.randrange(len(broken) + 1)]))
            sock.send(rng.randbytes(rng.randrange(0, 600)))
            await asyncio.sleep(0)
    assert await dns.values(f"web.default.{SVC}") == ["10.96.0.7"]


async def test_what_a_server_of_names_does_not_do_it_refuses(dns: Dns) -> None:
    for kind in (251, 252):  # IXFR, AXFR
        data = query(f"web.default.{SVC}")
        assert (await dns.by_udp(data[:-4] + kind.to_bytes(2, "big") + b"\0\1"))[3] & 0xF == wire.REFUSED
    chaos = query("version.bind", "TXT")[:-2] + b"\0\3"
    assert (await dns.by_udp(chaos))[3] & 0xF == wire.REFUSED
    data = bytearray(query(f"web.default.{SVC}") + b"\0\0\x29\x04\xd0\0\1\0\0\0\0")  # EDNS version 1
    data[11] = 1
    reply = DNSRecord.parse(await dns.by_udp(bytes(data)))
    assert [(QTYPE[r.rtype], r.ttl >> 24) for r in reply.ar] == [("OPT", wire.BADVERS)]
    dotted = query("x." + SVC)
    inside = b"\x0bweb.default" + wire.encode_name(SVC)  # one label with a dot in it is no name of ours
    assert (await dns.by_udp(dotted[:12] + inside + dotted[-4:]))[3] & 0xF == wire.NXDOMAIN


async def test_random_spellings_come_back_and_do_not_fill_the_memory(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "MAX_PREPARED", 50)
    rng = random.Random(1)
    for _ in range(300):
        name = "".join(rng.choice((c.lower(), c.upper())) for c in f"web.default.{SVC}")
        data = query(name)
        answer = await dns.by_udp(data)
        assert answer[12 : len(data)] == data[12:]
        assert len(dns.cluster.server._prepared) <= 50
