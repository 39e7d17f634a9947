"""Names that are not the cluster's: asked of the host's own resolvers, kept for as long as they allow.

Each question goes out from a fresh socket with a fresh number (guessing an answer means guessing both); equal
questions at the same time are asked once. If our own questions come back to us, the host's resolver leads to this
server and nothing is forwarded any more.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minik8s.log import get_logger
from minik8s.net import dns_wire as wire
from minik8s.net.metrics import dns_metrics

RESOLV_CONF = Path("/etc/resolv.conf")
ATTEMPT_SECONDS, ATTEMPTS = 1.5, 3
MAX_ENTRIES, MAX_ENTRY_BYTES = 4096, 4096  # 16 MiB at the very most; commonly 1
MAX_TTL, MAX_NEGATIVE_TTL = 300, 30
REREAD_SECONDS = 5.0

log = get_logger("dns")


class Unanswered(Exception):
    """No resolver gave a usable answer; the client gets SERVFAIL."""


class _Entry(NamedTuple):
    answer: bytes
    stored: float
    expires: float
    ttl_offsets: tuple[int, ...]


def nameservers(text: str, *, own: Sequence[str]) -> list[str]:
    """The resolvers of a resolv.conf, without this server itself."""
    words = (line.split() for line in text.splitlines())
    found = [w[1].split("%")[0] for w in words if len(w) > 1 and w[0] == "nameserver"]
    return [address for address in dict.fromkeys(found) if address not in own]


class Forwarder:
    """`own` are our addresses; `upstreams` fixed resolvers for tests, as (address, port)."""

    def __init__(
        self,
        *,
        own: Sequence[str] = (),
        upstreams: Sequence[tuple[str, int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._fixed = upstreams
        self._clock = clock
        self._cache: OrderedDict[tuple[bytes, bool], _Entry] = OrderedDict()
        self._asking: dict[tuple[bytes, bool], asyncio.Future[bytes]] = {}
        self._upstreams: list[tuple[str, int]] = list(upstreams or ())
        self._read_at = -1e9
        self.probe_name = f"{secrets.token_hex(8)}.minik8s.loop"
        self.looped = False

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
        """Ask for a name nobody else knows: whoever asks us for it is ourselves, by way of the host's resolver."""
        question = wire.encode_name(self.probe_name) + struct.pack("!HH", wire.A, wire.IN)
        try:
            await self.ask(
                wire.Query(0, wire.RECURSION_DESIRED, self.probe_name, wire.A, wire.IN, question, False, 512)
            )
        except Unanswered:
            return  # no resolver, or none that answers: there is no loop either

    def note_loop(self) -> None:
        if not self.looped:
            log.error(
                "the host's resolver leads back to the cluster's DNS; names outside the cluster cannot be resolved: "
                "name another resolver in /etc/resolv.conf",
                upstreams=[address for address, _ in self._upstreams],
            )
        self.looped = True

    def _refresh(self) -> None:
        """Follow changes of the file (DHCP, VPN); read at most every few seconds."""
        if self._fixed is not None or self._clock() - self._read_at < REREAD_SECONDS:
            return
        self._read_at = self._clock()
        try:
            found = [(address, 53) for address in nameservers(RESOLV_CONF.read_text(), own=self._own)]
        except OSError:
            found = []
        if found != self._upstreams:
            self._upstreams, self.looped = found, False
            self._cache.clear()

    async def _ask_upstreams(self, query: wire.Query, key: tuple[bytes, bool]) -> bytes:
        self._refresh()
        if self.looped or not self._upstreams:
            raise Unanswered("no resolver to forward to")
        for attempt in range(max(ATTEMPTS, len(self._upstreams))):
            upstream = self._upstreams[attempt % len(self._upstreams)]
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    answer, parsed = await _exchange(upstream, query)
            except (TimeoutError, OSError, wire.Malformed, EOFError):
                continue
            if parsed.rcode == wire.SERVFAIL and attempt + 1 < len(self._upstreams):
                continue
            dns_metrics().forwarded.labels("answered").inc()
            self._keep(key, answer, parsed)
            return answer
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


async def _exchange(upstream: tuple[str, int], query: wire.Query) -> tuple[bytes, wire.Parsed]:
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


async def _by_udp(upstream: tuple[str, int], message: bytes, question: bytes) -> bytes:
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


async def _by_tcp(upstream: tuple[str, int], message: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*upstream)
    try:
        writer.write(len(message).to_bytes(2, "big") + message)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    if answer[:2] != message[:2]:
        raise wire.Malformed("an answer with another number")
    return answer
