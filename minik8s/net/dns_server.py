"""A DNS server over a zone, by UDP and TCP: names of the zone come from memory, the rest is forwarded.

Most answers are bytes that were made when the same question came first; see dns_zone.py and dns_forward.py.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from minik8s.net import dns_wire as wire
from minik8s.net.base import NetworkError
from minik8s.net.dns_forward import Forwarder, Unanswered, records_of
from minik8s.net.dns_zone import TTL, Zone
from minik8s.net.metrics import dns_metrics

MAX_PREPARED = 8192  # answers kept as bytes, some 200 bytes each
MAX_FORWARDED, MAX_CONNECTIONS = 1000, 200  # at the same time; beyond it clients are told to try again
MAX_CONNECTIONS_OF_CLIENT = 32  # so that one pod does not keep all others from TCP
TCP_IDLE_SECONDS = 10.0
BURST = 64  # datagrams read before other work of the loop gets its turn
CNAME_STEPS = 8
_RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")


class DnsServer:
    """`run()` is eternal. `listen` is (address, port); port 0 picks one, see `port`."""

    def __init__(self, zone: Zone, forwarder: Forwarder, listen: tuple[str, int]) -> None:
        self.zone = zone
        self.complete = True  # False: names may be missing from the zone, and what is missing is not denied
        self.port = listen[1]
        self._address = listen[0]
        self._forwarder = forwarder
        self._prepared: dict[bytes, bytes] = {}  # a query without its number -> the answer without it
        self._turns = count()
        self._tasks: asyncio.TaskGroup | None = None
        self._forwarding = 0
        self._connections: Counter[str] = Counter()  # by client
        requests = dns_metrics().requests
        self._counted = [requests.labels(_RCODES[code] if code < len(_RCODES) else "OTHER").inc for code in range(16)]

    async def run(self) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as self._tasks:
            udp, tcp = await self._open()
            loop.add_reader(udp, self._readable, udp)
            try:
                await self._forwarder.run()
            finally:
                loop.remove_reader(udp)
                udp.close()
                tcp.close()

    async def _open(self) -> tuple[socket.socket, asyncio.Server]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            tcp = await asyncio.start_server(self._connected, self._address, self.port)
            self.port = tcp.sockets[0].getsockname()[1]
            udp.bind((self._address, self.port))
        except OSError as error:
            udp.close()
            raise NetworkError(
                f"DNS cannot listen on {self._address}:{self.port}: {error.strerror}; "
                "if another resolver listens on every address of this host, bind it to its own"
            ) from error
        return udp, tcp

    def changed(self) -> None:
        """Forget prepared answers; to be called after a change of the zone."""
        self._prepared.clear()

    # -- answering

    def answer_now(self, data: bytes) -> bytes | wire.Query:
        """The answer, or the query when it has to be forwarded; empty bytes = no answer at all."""
        prepared = self._prepared.get(data[2:])
        if prepared is not None:
            self._counted[prepared[1] & 0xF]()
            return data[:2] + prepared
        try:
            query = wire.parse_query(data)
        except wire.Malformed:
            return wire.refusal(data, wire.FORMERR)
        if query.flags & 0x7800:
            return wire.refusal(data, wire.NOTIMP)
        if query.edns_version:
            return self._count(wire.reply(query, 0, flags=0, extended=wire.BADVERS))
        if query.klass != wire.IN or query.type in (wire.AXFR, wire.IXFR):
            return self._count(wire.reply(query, wire.REFUSED, flags=0))
        if self._forwarder.is_probe(query.name):
            return wire.reply(query, wire.SERVFAIL, flags=0)
        authority = self.zone.authority(query.name, query.type)
        if not authority:
            return query
        records = self.zone.find(query.name)
        if records is None and not self.complete:
            return self._count(wire.reply(query, wire.SERVFAIL, flags=0))
        if records and wire.CNAME in records and query.type not in (wire.CNAME, wire.ANY):
            return query
        return self._from_zone(data, query, records, authority)

    def _from_zone(
        self, data: bytes, query: wire.Query, records: Mapping[int, Sequence[bytes]] | None, authority: str
    ) -> bytes:
        if query.name == authority and query.type == wire.SOA:
            return self._count(wire.reply(query, wire.NOERROR, [self.zone.soa(authority)]))
        kinds = records or {}
        wanted = kinds if query.type == wire.ANY else [query.type]
        found = [wire.record(wire.OWNER, kind, TTL, item) for kind in wanted for item in kinds.get(kind, ())]
        if not found:
            rcode = wire.NXDOMAIN if records is None else wire.NOERROR
            answer = wire.reply(query, rcode, authority=[self.zone.soa(authority)])
        else:
            first = next(self._turns) % len(found)  # clients take the first one
            found = found[first:] + found[:first]
            answer = wire.reply(query, wire.NOERROR, found)
            if query.type == wire.SRV:  # what the client has no room for it asks for itself
                fuller = wire.reply(query, wire.NOERROR, found, additional=self._targets(kinds[wire.SRV]))
                answer = fuller if len(fuller) <= query.size else answer
        if len(found) <= 1 and len(data) <= 300 and len(answer) <= query.size:
            if len(self._prepared) >= MAX_PREPARED:
                self._prepared.clear()
            self._prepared[data[2:]] = answer[2:]
        return self._count(answer)

    def _targets(self, services: Sequence[bytes]) -> list[bytes]:
        """Addresses of SRV targets, which save the client a question."""
        records: list[bytes] = []
        for owner in dict.fromkeys(data[6:] for data in services):
            name = wire.parse_name(owner)
            for kind, items in (self.zone.find(name) or {}).items():
                if kind in (wire.A, wire.AAAA):
                    records += [wire.record(owner, kind, TTL, item) for item in items]
        return records

    async def answer_later(self, query: wire.Query) -> bytes:
        """By forwarding, or by following a CNAME of the zone, which may lead out of it."""
        try:
            if self.zone.authority(query.name, query.type):
                return self._count(await self._follow(query))
            return self._count(await self._forwarder.ask(query))
        except Unanswered:
            return self._count(wire.reply(query, wire.SERVFAIL, flags=0))

    async def _follow(self, query: wire.Query) -> bytes:
        chain: list[bytes] = []
        owner, name = wire.OWNER, query.name
        for _ in range(CNAME_STEPS):
            authority = self.zone.authority(name, query.type)
            if not authority:
                question = wire.encode_name(name) + query.question[-4:]
                answer = await self._forwarder.ask(query._replace(name=name, question=question, edns=False))
                rcode, outside = records_of(answer)
                return wire.reply(query, rcode, [*chain, *outside])
            records = self.zone.find(name)
            if records is None or wire.CNAME not in records:
                found = [wire.record(owner, query.type, TTL, item) for item in (records or {}).get(query.type, ())]
                rcode = wire.NXDOMAIN if records is None else wire.NOERROR  # of the last name, RFC 6604
                return wire.reply(query, rcode, [*chain, *found], [] if found else [self.zone.soa(authority)])
            target = records[wire.CNAME][0]
            chain.append(wire.record(owner, wire.CNAME, TTL, target))
            owner, name = target, wire.parse_name(target)
        return wire.reply(query, wire.SERVFAIL, chain)

    def _count(self, answer: bytes) -> bytes:
        self._counted[answer[3] & 0xF]()
        return answer

    # -- UDP and TCP

    def _readable(self, udp: socket.socket) -> None:
        """A burst at a time: twice as many per second of CPU as asyncio's transports, which wake up for each."""
        for _ in range(BURST):
            try:
                data, client = udp.recvfrom(4096)
            except BlockingIOError:
                return
            except OSError:  # a client's port was closed before our answer came: reported here, of no interest
                continue
            answer = self.answer_now(data)
            if isinstance(answer, wire.Query):
                self._forward_udp(answer, functools.partial(_send, udp, client))
            elif len(answer) > wire.PLAIN_SIZE:
                _send(udp, client, wire.truncate(answer, wire.parse_query(data)))
            elif answer:
                _send(udp, client, answer)

    def _forward_udp(self, query: wire.Query, send: Callable[[bytes], None]) -> None:
        """Send the answer when it is here."""
        if self._forwarding >= MAX_FORWARDED:
            send(self._count(wire.reply(query, wire.SERVFAIL, flags=0)))
            return
        self._forwarding += 1
        self._spawn(self._forward(query, send))

    async def _forward(self, query: wire.Query, send: Callable[[bytes], None]) -> None:
        try:
            send(wire.truncate(await self.answer_later(query), query))
        finally:
            self._forwarding -= 1

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = writer.get_extra_info("peername")[0]
        if self._connections.total() >= MAX_CONNECTIONS or self._connections[client] >= MAX_CONNECTIONS_OF_CLIENT:
            writer.transport.abort()
            return
        self._connections[client] += 1
        self._spawn(self._converse(reader, writer, client))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str) -> None:
        """One query after the other; whoever takes too long over a query or over reading its answer is cut off."""
        try:
            with suppress(OSError, EOFError, TimeoutError):
                while True:
                    async with asyncio.timeout(TCP_IDLE_SECONDS):
                        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                        answer = self.answer_now(data)
                        if isinstance(answer, wire.Query):
                            answer = await self.answer_later(answer)
                        if not answer:
                            return
                        writer.write(len(answer).to_bytes(2, "big") + answer)
                        await writer.drain()
        finally:
            self._connections[client] -= 1
            self._connections += Counter()  # without those that count zero
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            else:
                writer.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None
        self._tasks.create_task(work)


def _send(udp: socket.socket, client: Any, answer: bytes) -> None:
    with suppress(OSError):  # the client is gone or its buffer is full: it will ask again
        udp.sendto(answer, client)
