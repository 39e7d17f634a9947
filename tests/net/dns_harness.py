"""A resolver outside, the cluster's DNS before it, and a client, all over real sockets on loopback.

What they say is written and read by dnslib, which shares no code with minik8s.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dnslib import EDNS0, QTYPE, RR, DNSHeader, DNSQuestion, DNSRecord

from minik8s.aio import background
from minik8s.net.dns import ClusterDns
from minik8s.net.dns_forward import Forwarder

from .objects import Feed


class Upstream(asyncio.DatagramProtocol):
    """A resolver outside: knows example.com; `big.example.com` only by TCP; `never.example.com` is not answered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ttl = 60
        self.rcode = 0  # other than 0: all that it says

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
        if self.rcode:
            reply.header.rcode = self.rcode
        elif name.startswith("nx."):
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


@asynccontextmanager
async def upstream_at(address: str = "127.0.0.1") -> AsyncIterator[tuple[Upstream, tuple[str, int]]]:
    """A resolver outside, and where it listens."""
    upstream = Upstream()

    async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        answer = upstream.answer(data, udp=False)
        writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(tcp, address, 0)
    port = listener.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: upstream, local_addr=(address, port))
    try:
        yield upstream, (address, port)
    finally:
        transport.close()
        listener.close()


def cluster_dns(feed: Feed, forwarder: Forwarder, *, memory: Path | None = None) -> ClusterDns:
    return ClusterDns(
        feed.services,
        feed.slices,
        "cluster.local",
        ("127.0.0.1", 0),
        ingresses=feed.ingresses,
        ranges=["10.96.0.0/12", "10.244.0.0/16"],
        forwarder=forwarder,
        memory=memory,
    )


@asynccontextmanager
async def dns_server(
    feed: Feed | None = None, *, upstreams: list[tuple[str, int]] | None = None, memory: Path | None = None
) -> AsyncIterator[Dns]:
    """The cluster's DNS, serving; `upstreams` as given, else one of its own."""
    feed = feed or Feed()
    async with upstream_at() as (upstream, place):
        forwarder = Forwarder(upstreams=[place] if upstreams is None else upstreams)
        cluster = cluster_dns(feed, forwarder, memory=memory)
        async with background(cluster.run()):
            while not cluster.server.port or (feed.services.has_synced and not cluster.server.complete):
                await asyncio.sleep(0)
            while upstreams is None and not upstream.asked:  # the probe
                await asyncio.sleep(0)
            upstream.asked.clear()
            yield Dns(feed, cluster, upstream)
