"""A controller makes what is like what should be, one key at a time, and may be cut at any await.

Events only put keys into the queue; `reconcile(key)` reads the informers' copies, decides, writes, and may ask to be
called again. Here is the one place that catches everything: a failing key is told and tried again with back-off.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from minik8s.api.errors import Conflict, NotFound, StatusError
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.client.workqueue import WorkQueue
from minik8s.log import REPORT, get_logger


class Controller:
    """Subclasses register handlers in `__init__` (each calls `self.queue.add(key)`) and write `reconcile`."""

    name: ClassVar[str]
    workers: ClassVar[int] = 4

    def __init__(self, client: Client, informers: Informers) -> None:
        self.client = client
        self.informers = informers
        self.queue = WorkQueue(self.name)
        self.log = get_logger(self.name)

    async def reconcile(self, key: str) -> float | None:
        """Make `key` right. Returns seconds after which to look again, or None. Raise to be tried again later."""
        raise NotImplementedError

    async def run(self) -> None:
        """Work for ever, once all copies have arrived."""
        await self.informers.synced()
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.workers):
                tasks.create_task(self._work(), name=f"{self.name}-{number}")

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                again = await self.reconcile(key)
            except (Conflict, NotFound) as error:
                # Somebody was faster: what we saw is old. Ordinary, so told only to those who ask.
                self.log.debug("look again", key=key, error=str(error))
                self.queue.add_rate_limited(key)
            except StatusError as error:
                delay = self.queue.add_rate_limited(key)
                self.log.warning(
                    "reconcile failed",
                    key=key,
                    error=str(error),
                    retry_seconds=round(delay, 3),
                    remedy="it is tried again; 'minik8s describe' of the object tells its state",
                )
            except Exception:
                delay = self.queue.add_rate_limited(key)
                self.log.exception("reconcile failed", key=key, retry_seconds=round(delay, 3), remedy=REPORT)
            else:
                self.queue.forget(key)
                if again is not None:
                    self.queue.add_after(key, again)
            finally:
                self.queue.done(key)
