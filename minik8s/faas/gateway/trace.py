"""W3C trace context: which trace a request belongs to, and what is passed on. Pure: random bits come from outside."""

from __future__ import annotations

import re
from typing import NamedTuple

# Version ff is forbidden, and all zeros are no identifier (W3C Trace Context, section 3.2.2).
_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Trace(NamedTuple):
    """`call` names this call everywhere else than in the trace; `sampled` are the flags as two digits."""

    id: str
    span: str
    sampled: str
    known: bool  # whether it came with the request
    call: str  # the span, unless the client had a name for it

    @property
    def parent(self) -> bytes:
        """The header `traceparent` for whom is called."""
        return f"00-{self.id}-{self.span}-{self.sampled}".encode()


def begun(header: bytes, bits: int) -> Trace:
    """The trace of a request with this `traceparent`, or a new one; `bits` are 192 random ones."""
    match = _PARENT.fullmatch(header) if header else None
    span = f"{(bits & 0xFFFFFFFFFFFFFFFF) or 1:016x}"
    if match is None or (header[:2] == b"00" and match[4]):
        return Trace(f"{(bits >> 64) or 1:032x}", span, "01", False, span)
    return Trace(match[1].decode(), span, match[3].decode(), True, span)


def hop(trace: Trace, bits: int) -> Trace:
    """The next call in the same trace; `bits` are 64 random ones."""
    span = f"{bits or 1:016x}"
    return trace._replace(span=span, call=span)
