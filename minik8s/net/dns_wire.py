"""DNS messages as bytes: just enough of RFC 1035, 2782 and 6891 to read a question and write an answer. Pure.

Everything read here comes from strangers: a message that is not understood raises Malformed and nothing else.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from collections.abc import Sequence
from typing import NamedTuple

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, OPT, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 41, 255
SVCB, HTTPS, IXFR, AXFR = 64, 65, 251, 252
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
QR, AUTHORITATIVE, TRUNCATED, RECURSION_DESIRED, RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
PLAIN_SIZE, EDNS_SIZE = 512, 1232  # bytes of an answer by UDP: without EDNS; ours with it (dnsflagday.net/2020)
MAX_NAME = 255  # bytes, RFC 1035
BADVERS = 1  # the upper eight bits of 16, which stand in the OPT record (RFC 6891)
OWNER = b"\xc0\x0c"  # a pointer to the question's name


class Malformed(ValueError):
    """Not a DNS message that makes sense."""


class Query(NamedTuple):
    id: int
    flags: int
    name: str  # lower case, no final dot
    type: int
    klass: int
    question: bytes  # as sent: clients check that their mixture of cases comes back (0x20)
    edns: bool
    size: int  # bytes the client takes by UDP
    edns_version: int = 0


class Parsed(NamedTuple):
    """What a cache needs to know of an answer."""

    rcode: int
    truncated: bool
    ttl: int | None  # seconds it may be kept; None = not at all
    ttl_offsets: tuple[int, ...]


def parse_query(data: bytes) -> Query:
    if len(data) < 12:
        raise Malformed("shorter than a header")
    number, flags, questions, answers, authorities, additional = struct.unpack_from("!6H", data)
    if flags & QR or questions != 1 or answers or authorities:
        raise Malformed("not a query with one question")
    name, end = _read_name(data, 12)
    if end + 4 > len(data):
        raise Malformed("the question is cut off")
    qtype, klass = struct.unpack_from("!HH", data, end)
    edns, size, version = False, PLAIN_SIZE, 0
    if additional and data[end + 4 : end + 5] == b"\0" and len(data) >= end + 15:
        kind, offered, _, given = struct.unpack_from("!HHBB", data, end + 5)
        if kind == OPT:
            edns, size, version = True, max(PLAIN_SIZE, min(offered, EDNS_SIZE)), given
    return Query(number, flags, name, qtype, klass, data[12 : end + 4], edns, size, version)


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    """A name without pointers, as questions have them. A dot inside a label is escaped: it parts nothing."""
    labels: list[str] = []
    start = at
    while True:
        if at >= len(data):
            raise Malformed("a name is cut off")
        length = data[at]
        if length == 0:
            break
        if length > 63 or at + 1 + length > len(data) or at + 2 + length - start > MAX_NAME:
            raise Malformed("a label is too long")
        label = data[at + 1 : at + 1 + length]
        labels.append((label if b"." not in label else label.replace(b".", b"\\.")).lower().decode("latin-1"))
        at += 1 + length
    return ".".join(labels), at + 1


def reply(
    query: Query,
    rcode: int,
    answers: Sequence[bytes] = (),
    authority: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
    *,
    flags: int = AUTHORITATIVE,
    extended: int = 0,
) -> bytes:
    """An answer of whole records (`record`). `extended`: the code's upper bits, for clients with EDNS."""
    opt = b"\0" + struct.pack("!HHBBHH", OPT, EDNS_SIZE, extended, 0, 0, 0)
    more = [*additional, opt] if query.edns else additional
    head = struct.pack(
        "!6H",
        query.id,
        QR | RECURSION_AVAILABLE | (query.flags & (RECURSION_DESIRED | 0x7800)) | flags | rcode,
        1,
        len(answers),
        len(authority),
        len(more),
    )
    return b"".join((head, query.question, *answers, *authority, *more))


def refusal(data: bytes, rcode: int) -> bytes:
    """An answer to something that could not even be read; empty when it must not be answered at all."""
    if len(data) < 12 or data[2] & 0x80:  # answering answers would make a loop
        return b""
    return data[:2] + struct.pack("!5H", QR | rcode, 0, 0, 0, 0)


def truncate(answer: bytes, query: Query) -> bytes:
    """The answer, or where it is too long for UDP an empty one that tells the client to come by TCP."""
    if len(answer) <= query.size:
        return answer
    flags = struct.unpack_from("!H", answer, 2)[0] & ~0xF
    return reply(query, answer[3] & 0xF, flags=(flags & AUTHORITATIVE) | TRUNCATED)


def record(owner: bytes, type: int, ttl: int, data: bytes) -> bytes:
    return owner + struct.pack("!HHIH", type, IN, ttl, len(data)) + data


@functools.lru_cache(maxsize=4096)
def encode_name(name: str) -> bytes:
    """Of a name of ours, or `Malformed`: whatever a component names, no broken message is sent."""
    labels = [label.encode("latin-1", "replace") for label in name.split(".") if label]
    if any(len(label) > 63 for label in labels) or sum(len(label) + 1 for label in labels) >= MAX_NAME:
        raise Malformed(f"{name!r} is no name")
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def parse_name(encoded: bytes) -> str:
    """The inverse of `encode_name`."""
    return _read_name(encoded, 0)[0]


def address(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


def srv(target: str, port: int, weight: int) -> bytes:
    return struct.pack("!HHH", 0, weight, port) + encode_name(target)


def soa(primary: str, mailbox: str, serial: int, minimum: int) -> bytes:
    """Refresh, retry and expire matter to secondary servers only; there are none."""
    return encode_name(primary) + encode_name(mailbox) + struct.pack("!5I", serial, 7200, 1800, 86400, minimum)


def parse_answer(data: bytes, question: bytes) -> Parsed:
    """Walk the records of an answer to `question`. `ttl` is the least of all, for a negative answer that of its SOA."""
    if len(data) < 12 + len(question) or data[12 : 12 + len(question)].lower() != question.lower():
        raise Malformed("an answer to another question")
    flags, _, answers, authorities, additional = struct.unpack_from("!5H", data, 2)
    at, offsets, ttls, negative = 12 + len(question), [], [], None
    for number in range(answers + authorities + additional):
        at = _skip_name(data, at)
        if at + 10 > len(data):
            raise Malformed("a record is cut off")
        kind, _, ttl, length = struct.unpack_from("!HHIH", data, at)
        if kind != OPT:
            offsets.append(at + 4)
            ttls.append(ttl)
        if kind == SOA and number >= answers and length >= 4 and at + 10 + length <= len(data):
            negative = min(ttl, struct.unpack_from("!I", data, at + 6 + length)[0])
        at += 10 + length
    if at > len(data):
        raise Malformed("a record is cut off")
    rcode = flags & 0xF
    keep = min(ttls, default=None) if answers and rcode == NOERROR else negative
    return Parsed(rcode, bool(flags & TRUNCATED), keep if rcode in (NOERROR, NXDOMAIN) else None, tuple(offsets))


def _skip_name(data: bytes, at: int) -> int:
    while at < len(data):
        length = data[at]
        if length >= 0xC0:
            return at + 2
        at += 1 + length
        if length == 0:
            return at
    raise Malformed("a name is cut off")
