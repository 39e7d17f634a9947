"""Names that are not the cluster's: asked of the host's own resolvers, kept for as long as they allow.

Each question goes out from a fresh socket with a fresh number (guessing an answer means guessing both); equal
questions at the same time are asked once. A resolver that did not answer is asked last for a while. One that brings our
own questions back to us leads to this server, and is not asked any more.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from minik8s.log import get_logger
from minik8s.net import dns_wire as wire
from minik8s.net.host_resolver import read_resolv_conf
from minik8s.net.metrics import dns_metrics

ATTEMPT_SECONDS, ATTEMPTS = 1.5, 3
MAX_ENTRIES, MAX_ENTRY_BYTES = 4096, 4096  # 16 MiB at the very most; commonly 1
MAX_TTL, MAX_NEGATIVE_TTL = 300, 30
REREAD_SECONDS = 5.0
DEMOTED_SECONDS = 30.0  # that a silent resolver is asked last
LOOP_DOMAIN = "minik8s.loop"

Upstream = tuple[str, int]  # address, port

log = get_logger("dns")


class Unanswered(Exception):
    """No resolver gave a usable answer; the client gets SERVFAIL."""


class _Entry(NamedTuple):
    answer: bytes
    stored: float
    expires: float
    ttl_offsets: tuple[int, ...]


def nameservers(text: str, *, own: Sequence[str]) -> list[str]:
    """The resolvers of a resolv.conf, without this server itself. A link-local one keeps its link: `fe80::1%eth0`."""
    words = (line.split() for line in text.splitlines())
    found = [w[1] for w in words if len(w) > 1 and w[0] == "nameserver"]
    return [address for address in dict.fromkeys(found) if address not in own]


class Forwarder:
    """`own` are our addresses; `source` gives the text of the resolv.conf to follow; `upstreams` are fixed instead."""

    def __init__(
        self,
        *,
        own: Sequence[str] = (),
        source: Callable[[], str] = read_resolv_conf,
        upstreams: Sequence[Upstream] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._source = source
        self._fixed = upstreams
        self._clock = clock
        self._cache: OrderedDict[tuple[bytes, bool], _Entry] = OrderedDict()
        self._asking: dict[tuple[bytes, bool], asyncio.Future[bytes]] = {}
        self._upstreams: list[Upstream] | None = None  # None: not read yet
        self._failed: dict[Upstream, float] = {}  # when it last did not answer
        self._probe_domain = f".{secrets.token_hex(8)}.{LOOP_DOMAIN}"
        self.looped: set[Upstream] = set()

    async def run(self) -> None:
        """Follow changes of the host's resolvers (DHCP, VPN), and find those that lead back to us; eternal."""
        while True:
            if self._refresh():
                await self.probe()
            await asyncio.sleep(REREAD_SECONDS)

    def _refresh(self) -> bool:
        """Read the resolvers; whether they are others than before."""
        found: list[Upstream] = []
        if self._fixed is not None:
            found = list(self._fixed)
        else:
            found = [(address, 53) for address in nameservers(self._source(), own=self._own)]
        if found == self._upstreams:
            return False
        self._upstreams, self.looped, self._failed = found, set(), {}
        self._cache.clear()
        return True

    async def ask(self, query: wire.Query) -> bytes:
        """The answer for this query, its number and spelling included; raises Unanswered."""
        key = (query.question.lower(), query.edns)
        entry = self._cache.get(key)
        now = self._clock()
        if entry and entry.expires > now:
            self._cache.move_to_end(key)
            return _personal(entry, query, int(now - entry.stored))
        future = self._asking.get(key)
        if future is None:
            future = self._asking[key] = asyncio.get_running_loop().create_future()
            try:
                future.set_result(await self._ask_upstreams(query, key))
            except Unanswered as error:
                future.set_exception(error)
            finally:
                del self._asking[key]
                if not future.done():  # who asked first was cancelled
                    future.cancel()
        try:
            answer = await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.cancelled():
                raise Unanswered("given up") from None
            raise
        return _personal(_Entry(answer, now, now, ()), query, 0)

    async def probe(self) -> None:
        """Ask each resolver for a name nobody else knows: whoever asks us for it is ourselves, by way of that one."""
        async with asyncio.TaskGroup() as tasks:
            for number, upstream in enumerate(self._upstreams or ()):
                tasks.create_task(self._probe(f"{number}{self._probe_domain}", upstream))

    async def _probe(self, name: str, upstream: Upstream) -> None:
        question = wire.encode_name(name) + struct.pack("!HH", wire.A, wire.IN)
        query = wire.Query(0, wire.RECURSION_DESIRED, name, wire.A, wire.IN, question, False, wire.PLAIN_SIZE)
        with suppress(TimeoutError, OSError, ValueError, EOFError):  # silence is no loop
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await _exchange(upstream, query)

    def is_probe(self, name: str) -> bool:
        """Whether this is a question of our own that has come back; notes who brought it."""
        number, found, rest = name.partition(self._probe_domain)
        if not found or rest or not number.isdigit() or int(number) >= len(self._upstreams or ()):
            return False
        assert self._upstreams is not None
        looped = self._upstreams[int(number)]
        if looped not in self.looped:
            log.error(
                "a resolver of this host leads back to the cluster's DNS and is not asked any more",
                resolver=looped[0],
                remedy="name another one in /etc/resolv.conf",
            )
            self.looped.add(looped)
        return True

    def _in_order(self) -> list[Upstream]:
        """Whom to ask, the likeliest first."""
        if not self._upstreams:  # not read yet, or there has been none: perhaps there is one by now
            self._refresh()
        bound = self._clock() - DEMOTED_SECONDS
        usable = [upstream for upstream in self._upstreams or () if upstream not in self.looped]
        return sorted(usable, key=lambda upstream: self._failed.get(upstream, bound) > bound)

    async def _ask_upstreams(self, query: wire.Query, key: tuple[bytes, bool]) -> bytes:
        upstreams = self._in_order()
        if not upstreams:
            raise Unanswered("no resolver to forward to")
        refused: bytes | None = None
        for attempt in range(max(ATTEMPTS, len(upstreams))):
            upstream = upstreams[attempt % len(upstreams)]
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    answer, parsed = await _exchange(upstream, query)
            except (TimeoutError, OSError, ValueError, EOFError):  # ValueError: an answer, or an address, that is none
                self._failed[upstream] = self._clock()
                continue
            if parsed.rcode in (wire.SERVFAIL, wire.NOTIMP, wire.REFUSED) and attempt + 1 < len(upstreams):
                refused = answer
                continue  # another may know
            self._failed.pop(upstream, None)
            dns_metrics().forwarded.labels("answered").inc()
            self._keep(key, answer, parsed)
            return answer
        if refused is not None:
            return refused
        dns_metrics().forwarded.labels("unanswered").inc()
        raise Unanswered("no resolver answers")

    def _keep(self, key: tuple[bytes, bool], answer: bytes, parsed: wire.Parsed) -> None:
        has_answers = answer[6:8] != b"\0\0"
        ttl = min(parsed.ttl or 0, MAX_TTL if has_answers and parsed.rcode == wire.NOERROR else MAX_NEGATIVE_TTL)
        if ttl <= 0 or len(answer) > MAX_ENTRY_BYTES:
            return
        now = self._clock()
        self._cache[key] = _Entry(answer, now, now + ttl, parsed.ttl_offsets)
        if len(self._cache) > MAX_ENTRIES:
            self._cache.popitem(last=False)


def _personal(entry: _Entry, query: wire.Query, age: int) -> bytes:
    """A kept answer with this client's number and spelling, and what is left of the times to live."""
    answer = bytearray(entry.answer)
    answer[0:2] = query.id.to_bytes(2, "big")
    answer[12 : 12 + len(query.question)] = query.question
    for offset in entry.ttl_offsets if age else ():
        ttl = struct.unpack_from("!I", answer, offset)[0]
        struct.pack_into("!I", answer, offset, max(0, ttl - age))
    return bytes(answer)


def records_of(answer: bytes) -> tuple[int, list[bytes]]:
    """(code, records) of an answer, each record complete in itself: without pointers into that answer."""
    from dnslib import CNAME, DNSError, DNSRecord  # only for ExternalName services
    from dnslib.label import DNSBuffer

    reader: Any = DNSRecord
    new_buffer: Any = DNSBuffer
    try:
        parsed = reader.parse(answer)
    except DNSError as error:
        raise Unanswered(str(error)) from None
    records: list[bytes] = []
    for found in parsed.rr:
        if isinstance(found.rdata, CNAME):
            data = wire.encode_name(str(found.rdata.label))
        else:
            buffer = new_buffer()
            found.rdata.pack(buffer)
            data = bytes(buffer.data)
        records.append(wire.record(wire.encode_name(str(found.rname)), found.rtype, found.ttl, data))
    return parsed.header.rcode, records


async def _exchange(upstream: Upstream, query: wire.Query) -> tuple[bytes, wire.Parsed]:
    """One question by UDP, and by TCP when the answer does not fit."""
    number = secrets.randbits(16)
    extra = b"\0" + struct.pack("!HHIH", wire.OPT, wire.EDNS_SIZE, 0, 0) if query.edns else b""
    head = struct.pack("!6H", number, wire.RECURSION_DESIRED, 1, 0, 0, 1 if extra else 0)
    message = head + query.question + extra
    answer = await _by_udp(upstream, message, query.question)
    parsed = wire.parse_answer(answer, query.question)
    if parsed.truncated:
        answer = await _by_tcp(upstream, message)
        parsed = wire.parse_answer(answer, query.question)
    return answer, parsed


async def _by_udp(upstream: Upstream, message: bytes, question: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    got: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Waiter(got, message, question), remote_addr=upstream)
    try:
        return await got
    finally:
        transport.close()


class _Waiter(asyncio.DatagramProtocol):
    def __init__(self, got: asyncio.Future[bytes], message: bytes, question: bytes) -> None:
        self._got, self._message, self._question = got, message, question.lower()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.sendto(self._message)  # type: ignore[attr-defined]

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Whatever is not the answer to our question may be a forgery: wait on."""
        ours = data[:2] == self._message[:2] and data[12 : 12 + len(self._question)].lower() == self._question
        if ours and len(data) > 2 and data[2] & 0x80 and not self._got.done():
            self._got.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._got.done():
            self._got.set_exception(exc)


async def _by_tcp(upstream: Upstream, message: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*upstream)
    try:
        writer.write(len(message).to_bytes(2, "big") + message)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    if answer[:2] != message[:2]:
        raise wire.Malformed("an answer with another number")
    return answer
