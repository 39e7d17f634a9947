"""A container's log as a client wants it: options, limits, and many lines in one write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import NamedTuple

from minik8s.aio import background
from minik8s.api.errors import Cause, Invalid, invalid
from minik8s.clock import parse_time
from minik8s.runtime.base import LogLine

BATCH = 64 * 1024  # bytes that are gathered while a write is under way

_TRUE = ("1", "true", "True", "TRUE", "t", "T")


class LogOptions(NamedTuple):
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None  # lines
    since: float = 0.0  # Unix seconds
    limit: int | None = None  # bytes


def parse_log_options(query: Mapping[str, str], pod: str, now: float) -> LogOptions:
    """PodLogOptions as they stand in a query. Invalid names the field that is wrong."""
    causes: list[Cause] = []
    tail = _number(query, "tailLines", 0, causes)
    limit = _number(query, "limitBytes", 1, causes)
    seconds = _number(query, "sinceSeconds", 1, causes)
    since = now - seconds if seconds is not None else 0.0
    if query.get("sinceTime"):
        if seconds is not None:
            message = "at most one of `sinceTime` or `sinceSeconds` may be specified"
            causes.append(Cause("sinceSeconds", "FieldValueForbidden", f"Forbidden: {message}"))
        try:
            since = parse_time(query["sinceTime"])
        except ValueError:
            causes.append(invalid("sinceTime", query["sinceTime"], "must be a time as in RFC 3339"))
    if causes:
        raise Invalid("PodLogOptions", pod, causes)
    on = {name: query.get(name) in _TRUE for name in ("follow", "previous", "timestamps")}
    return LogOptions(**on, tail=tail, since=since, limit=limit)


def _number(query: Mapping[str, str], name: str, least: int, causes: list[Cause]) -> int | None:
    text = query.get(name)
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        causes.append(invalid(name, text, "must be an integer"))
        return None
    if number < least:
        causes.append(invalid(name, number, f"must be greater than or equal to {least}"))
    return number


async def limited(lines: AsyncIterator[LogLine], limit: int | None) -> AsyncGenerator[bytes, None]:
    """The bytes of lines, at most `limit` altogether."""
    left = limit
    async for line in lines:
        data = line.data if left is None else line.data[:left]
        if data:
            yield data
        if left is not None:
            left -= len(data)
            if not left:
                return


async def send_batched(pieces: AsyncIterator[bytes], write: Callable[[bytes], Awaitable[None]]) -> None:
    """Write what has gathered while the last write was under way: a line at once, a flood in large blocks."""
    gathered = bytearray()
    some, room, ended = asyncio.Event(), asyncio.Event(), False

    async def gather() -> None:
        nonlocal ended
        try:
            async for piece in pieces:
                gathered.extend(piece)
                some.set()
                if len(gathered) >= BATCH:
                    room.clear()
                    await room.wait()
        finally:
            ended = True
            some.set()

    async with background(gather()):
        while gathered or not ended:
            await some.wait()
            some.clear()
            data = bytes(gathered)
            gathered.clear()
            room.set()
            if data:
                await write(data)
