"""A controller survives whatever one key does to it, and comes back to it at the right time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from minik8s.aio import background
from minik8s.api.errors import Conflict, ServiceUnavailable
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from tests.client.wire import wired


class Scripted(Controller):
    """Plays what a test says, look by look, and notes when each look began."""

    name: ClassVar[str] = "scripted"

    def play(self, *acts: Callable[[], float | None]) -> None:
        self.acts, self.times = list(acts), list[float]()
        self.over = asyncio.Event()

    async def reconcile(self, key: str) -> float | None:
        self.times.append(asyncio.get_running_loop().time())
        act = self.acts.pop(0)
        if not self.acts:
            self.over.set()
        return act()


def fails(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@asynccontextmanager
async def controller(*acts: Callable[[], float | None]) -> AsyncIterator[Scripted]:
    async with wired() as it:
        informers = Informers(it.client)
        made = Scripted(it.client, informers)
        made.play(*acts)
        async with background(informers.run(), made.run()):
            yield made


@pytest.mark.looptime
@pytest.mark.parametrize("error", [Conflict("faster"), ServiceUnavailable("away"), KeyError("a bug")], ids=repr)
async def test_a_failing_key_is_tried_again_with_back_off(error: Exception) -> None:
    async with controller(*[fails(error)] * 8, lambda: None) as it:
        it.queue.add("a")
        await it.over.wait()
        await asyncio.sleep(0)
        gaps = [b - a for a, b in zip(it.times, it.times[1:], strict=False)]
        assert gaps[-1] > 10 * gaps[0]
        assert it.queue.failures("a") == 0
        await asyncio.sleep(100)
        assert it.queue.idle
        assert len(it.times) == 9


@pytest.mark.looptime
async def test_a_key_may_ask_to_be_looked_at_later() -> None:
    async with controller(lambda: 30.0, lambda: None) as it:
        it.queue.add("a")
        await it.over.wait()
        assert it.times[1] - it.times[0] == pytest.approx(30)


async def test_one_bad_key_does_not_keep_the_others_waiting() -> None:
    async with controller(fails(ValueError("bad")), lambda: None) as it:
        it.queue.add("bad")
        it.queue.add("good")
        async with asyncio.timeout(5):
            await it.over.wait()
