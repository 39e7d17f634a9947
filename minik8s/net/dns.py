"""The cluster's DNS, on every node for itself: it answers at the service address of DNS, which the node holds.

So no query of a pod is translated, crosses hosts, or waits for another node. Names of the cluster come from memory,
most of them as bytes that were made when the same question came first; the rest is forwarded (dns_forward.py).
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.service import Service
from minik8s.client.informer import Informer
from minik8s.log import get_logger
from minik8s.net import dns_wire as wire
from minik8s.net.base import NetworkError
from minik8s.net.dns_forward import Forwarder, Unanswered, records_of
from minik8s.net.dns_zone import TTL, Zone, service_records
from minik8s.net.metrics import dns_metrics
from minik8s.net.services import service_key

MAX_PREPARED = 8192  # answers kept as bytes, some 200 bytes each
MAX_FORWARDED, MAX_CONNECTIONS = 1000, 200  # at the same time; beyond it clients are told to try again
TCP_IDLE_SECONDS = 10.0
BURST = 64  # datagrams read before other work of the loop gets its turn
CNAME_STEPS = 8
_RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")

log = get_logger("dns")


class DnsServer:
    """`await start()`, then `run()` eternally. `listen` is (address, port); port 0 picks one, see `port`."""

    def __init__(self, zone: Zone, forwarder: Forwarder, listen: tuple[str, int]) -> None:
        self.zone = zone
        self.port = listen[1]
        self._address = listen[0]
        self._forwarder = forwarder
        self._prepared: dict[bytes, bytes] = {}  # a query without its number -> the answer without it
        self._turns = count()
        self._tasks: asyncio.TaskGroup | None = None
        self._forwarding = 0
        self._connections = 0
        requests = dns_metrics().requests
        self._counted = [requests.labels(_RCODES[code] if code < len(_RCODES) else "OTHER").inc for code in range(16)]

    async def run(self) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as self._tasks:
            udp, tcp = await self._open()
            loop.add_reader(udp, self._readable, udp)
            try:
                self._spawn(self._forwarder.probe())
                await asyncio.Event().wait()
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
        if query.klass != wire.IN:
            return wire.reply(query, wire.REFUSED, flags=0)
        if query.name == self._forwarder.probe_name:
            self._forwarder.note_loop()
            return wire.reply(query, wire.SERVFAIL, flags=0)
        if not self.zone.holds(query.name):
            return query
        records = self.zone.find(query.name)
        if records and wire.CNAME in records and query.type != wire.CNAME:
            return query
        return self._from_zone(data, query, records)

    def _from_zone(self, data: bytes, query: wire.Query, records: Mapping[int, Sequence[bytes]] | None) -> bytes:
        if query.name == self.zone.domain and query.type == wire.SOA:
            return self._count(wire.reply(query, wire.NOERROR, [self.zone.soa()]))
        kinds = records or {}
        wanted = kinds if query.type == wire.ANY else [query.type]
        found = [wire.record(wire.OWNER, kind, TTL, item) for kind in wanted for item in kinds.get(kind, ())]
        if not found:
            rcode = wire.NXDOMAIN if records is None else wire.NOERROR
            answer = wire.reply(query, rcode, authority=[self.zone.soa()])
        else:
            first = next(self._turns) % len(found)  # clients take the first one
            additional = self._targets(kinds.get(wire.SRV, ())) if query.type == wire.SRV else []
            answer = wire.reply(query, wire.NOERROR, found[first:] + found[:first], additional=additional)
        if len(found) <= 1 and len(self._prepared) < MAX_PREPARED and len(data) <= 300 and len(answer) <= query.size:
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
            if self.zone.holds(query.name):
                return self._count(await self._follow(query))
            return self._count(await self._forwarder.ask(query))
        except Unanswered:
            return self._count(wire.reply(query, wire.SERVFAIL, flags=0))

    async def _follow(self, query: wire.Query) -> bytes:
        chain: list[bytes] = []
        owner, name = wire.OWNER, query.name
        for _ in range(CNAME_STEPS):
            records = self.zone.find(name) if self.zone.holds(name) else {wire.CNAME: ()}
            target = (records or {}).get(wire.CNAME)
            if target is None:
                found = (records or {}).get(query.type, ())
                return wire.reply(query, 0, [*chain, *(wire.record(owner, query.type, TTL, item) for item in found)])
            if not target:  # outside
                question = wire.encode_name(name) + query.question[-4:]
                answer = await self._forwarder.ask(query._replace(name=name, question=question, edns=False))
                rcode, outside = records_of(answer)
                return wire.reply(query, rcode, [*chain, *outside])
            chain.append(wire.record(owner, wire.CNAME, TTL, target[0]))
            owner, name = target[0], wire.parse_name(target[0])
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
        if self._connections >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        self._spawn(self._converse(reader, writer))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, EOFError, TimeoutError):
                while True:
                    async with asyncio.timeout(TCP_IDLE_SECONDS):
                        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                        answer = self.answer_now(data)
                        if isinstance(answer, wire.Query):
                            answer = await self.answer_later(answer)
                        writer.write(len(answer).to_bytes(2, "big") + answer)
                        await writer.drain()
        finally:
            self._connections -= 1
            writer.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None
        self._tasks.create_task(work)


def _send(udp: socket.socket, client: Any, answer: bytes) -> None:
    with suppress(OSError):  # the client is gone or its buffer is full: it will ask again
        udp.sendto(answer, client)


class ClusterDns:
    """A DnsServer whose zone follows the API. The caller has put `listen` on a link (`Netlink.hold_address`)."""

    def __init__(
        self,
        services: Informer[Service],
        slices: Informer[EndpointSlice],
        domain: str,
        listen: tuple[str, int],
        *,
        ranges: Sequence[str] = (),
        forwarder: Forwarder | None = None,
    ) -> None:
        self._services = services
        self._slices = slices
        zone = Zone(domain, listen[0], ranges)
        self.server = DnsServer(zone, forwarder or Forwarder(own=[listen[0]]), listen)

    async def run(self) -> None:
        """Eternal. Serves when the first lists are here: a name that is merely not known yet must not be denied."""
        self._slices.add_index("service", lambda piece: filter(None, [service_key(piece)]))
        self._services.on_change(lambda old, new: self._update({found.key for found in (old, new) if found}))
        self._slices.on_change(lambda old, new: self._update({service_key(piece) for piece in (old, new) if piece}))
        await self._services.synced()
        await self._slices.synced()
        await self.server.run()

    def _update(self, keys: set[str]) -> None:
        for key in keys:
            service = self._services.by_key(key)
            slices = self._slices.by_index("service", key)
            records = service_records(service, slices, self.server.zone.domain) if service else {}
            if key and self.server.zone.replace(key, records):
                self.server.changed()
