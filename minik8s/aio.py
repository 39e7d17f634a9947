"""Tasks have owners: whoever starts background work waits for it, and an eternal task that returns is a fault."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any


class Stopped(Exception):
    """An activity that should run for ever has returned."""


async def supervise(activities: Iterable[tuple[str, Coroutine[Any, Any, Any]]]) -> None:
    """Run named eternal activities until one fails (its error is raised, the others end) or we are cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for name, activity in activities:
            tasks.create_task(_eternal(name, activity), name=name)


async def _eternal(name: str, activity: Coroutine[Any, Any, Any]) -> None:
    await activity
    raise Stopped(f"{name} has ended by itself")


@asynccontextmanager
async def background(*activities: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Activities that run as long as the body does. Their failure cancels the body and is raised from here."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(activity) for activity in activities]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


async def periodic(interval: float, action: Callable[[], Awaitable[object]], *, jitter: float = 0.1) -> None:
    """Call `action` for ever, every `interval` seconds plus up to `jitter` of it, so that many do not fall in step."""
    while True:
        await action()
        await asyncio.sleep(interval * (1 + random.random() * jitter))


def backoff(first: float = 0.1, last: float = 30.0, factor: float = 2.0) -> Iterator[float]:
    """Endless delays in seconds: growing to `last`, each drawn from the upper half of its step (jitter)."""
    delay = first
    while True:
        yield delay * (0.5 + random.random() / 2)
        delay = min(delay * factor, last)


async def wait_any(*events: asyncio.Event, timeout: float | None = None) -> None:
    """Return when one of the events is set, or after `timeout` seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        for wait in waits:
            with suppress(asyncio.CancelledError):
                await wait
