"""Who holds which devices, on disk: a restarted agent must not give a device of a running pod to another.

One file, replaced atomically. Writes that wait are made as one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from minik8s.api.meta import Struct
from minik8s.kubelet.devices.allocator import Holding
from minik8s.log import get_logger

log = get_logger("devices")


class Content(Struct):
    resources: tuple[str, ...] = ()  # all that a plugin has ever registered here
    holdings: tuple[Holding, ...] = ()


class Checkpoint:
    """`content` says what there is now. Call `touch` when it has changed, `saved` to wait for the disk."""

    def __init__(self, path: Path, content: Callable[[], Content]) -> None:
        self._path = path
        self._content = content
        self._version = self._on_disk = 0
        self._dirty = asyncio.Event()
        self._writing = asyncio.Lock()

    def read(self) -> Content:
        """Blocking. A file that cannot be read is kept aside for people to look at, and counts as none."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Content)
        except FileNotFoundError:
            return Content()
        except (msgspec.DecodeError, OSError) as error:
            aside = self._path.with_suffix(".broken")
            log.error(
                "the devices of running pods are not known",
                path=str(self._path),
                aside=str(aside),
                error=str(error),
                remedy="restart the pods that use devices; the file is kept aside to be looked at",
            )
            self._path.replace(aside)
            return Content()

    def touch(self) -> None:
        self._version += 1
        self._dirty.set()

    async def saved(self) -> None:
        """Return when all that was touched so far is on disk. OSError."""
        wanted = self._version
        async with self._writing:
            if self._on_disk >= wanted:
                return
            version, data = self._version, msgspec.json.encode(self._content())
            await asyncio.to_thread(_write, self._path, data)
            self._on_disk = version

    async def run(self) -> None:
        """Write what nobody waits for."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self.saved()
            except OSError as error:
                log.warning(
                    "checkpoint of devices not written",
                    path=str(self._path),
                    error=str(error),
                    remedy="make space, or make the data folder writable",
                )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    os.replace(fresh, path)
