"""What a string or number must look like to be of an OpenAPI format; unknown formats accept everything."""

from __future__ import annotations

import binascii
import ipaddress
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime
from functools import lru_cache
from typing import Any

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
INT32 = range(-(2**31), 2**31)
INT64 = range(-(2**63), 2**63)


def _parses(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


@lru_cache(2048)
def is_date_time(text: str) -> bool:
    """RFC 3339, a real calendar time, e.g. `2024-02-29T12:00:00Z` or with fractions and an offset.

    Cached, since an object's timestamps are the same few in every write of it.
    """
    return RFC3339.fullmatch(text) is not None and _parses(datetime.fromisoformat, text)


def is_base64(text: str) -> bool:
    """Standard base64 with padding; line breaks are allowed, as Go's decoder allows them."""
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one; so is the refusal of text that is not ASCII
        bare = text.replace("\r", "").replace("\n", "")
        return bare != text and is_base64(bare)
    return True


STRINGS: dict[str, tuple[Callable[[str], bool], str]] = {
    "date-time": (is_date_time, "must be a time in RFC 3339 form, e.g. 2024-01-31T09:30:00Z"),
    "byte": (is_base64, "must be base64"),
    "date": (lambda text: len(text) == 10 and _parses(date.fromisoformat, text), "must be a date, e.g. 2024-01-31"),
    "ipv4": (lambda text: _parses(ipaddress.IPv4Address, text), "must be an IPv4 address"),
    "ipv6": (lambda text: _parses(ipaddress.IPv6Address, text), "must be an IPv6 address"),
    "cidr": (lambda text: "/" in text and _parses(_network, text), "must be a network, e.g. 10.0.0.0/16"),
    "uuid": (lambda text: _parses(uuid.UUID, text), "must be a UUID"),
}
"""format -> (does the text have it, what is said when not)."""


def _network(text: str) -> Any:
    return ipaddress.ip_network(text, strict=False)
