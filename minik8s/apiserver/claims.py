"""Claims: what one object has for itself in the whole cluster, however many masters write to its store.

A claim is a record beside the objects, `/claims/<kind of thing>/<which>`, that names its holder's key. It is made by
compare-and-swap before the holder is written and taken back after the holder has changed: of two masters that want the
same one, the store lets one through, and the other sees in its head why. Whoever claims what is the holder's already
writes it anew, and whoever takes back does so at the revision that was seen before: so none takes back what somebody
relies on. Who is killed half-way leaves a claim that nobody uses; `allocator.py` looks for those from time to time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

import msgspec

from minik8s.api.errors import ServiceUnavailable, Timeout
from minik8s.apiserver import strategy
from minik8s.store.base import CasFailed, Record
from minik8s.store.watch_cache import WatchCache

FOLDER = "/claims/"


class ClaimLost(CasFailed):
    """Another object has it; the head shows which."""


def holder(record: Record | None) -> str:
    """The key of the object that a claim is for; "" if nobody has it."""
    return str(msgspec.json.decode(record.value)["holder"]) if record is not None else ""


async def take(cache: WatchCache, claims: Iterable[str], key: str) -> dict[str, int]:
    """Claim all for the object `key`, or none: ClaimLost if another one has one. Returns those that nobody had, with
    their revisions, to be taken back if the object cannot be written."""
    fresh: dict[str, int] = {}
    for claim in sorted(claims):
        record = cache.get(claim)
        template = strategy.encode({"metadata": {"name": claim.rpartition("/")[2]}, "holder": key})
        try:
            if holder(record) not in ("", key):
                raise CasFailed(claim, record)
            change = await cache.write(claim, template, expect=record.rev if record else 0)
        except CasFailed as failed:
            await drop(cache, fresh)
            raise ClaimLost(claim, failed.current) from None
        if record is None:
            fresh[claim] = change.rev
    return fresh


def held(cache: WatchCache, claims: Iterable[str], key: str) -> dict[str, int]:
    """Those of `claims` that are the object's, with their revisions."""
    found = {claim: cache.get(claim) for claim in claims}
    return {claim: record.rev for claim, record in found.items() if record is not None and holder(record) == key}


async def drop(cache: WatchCache, claims: Mapping[str, int]) -> None:
    """Take back claims that are still at the given revisions. What cannot be taken back now is found later."""
    for claim, rev in claims.items():
        with suppress(CasFailed, ServiceUnavailable, Timeout):
            await cache.write(claim, None, expect=rev)
