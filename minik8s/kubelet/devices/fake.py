"""Devices that are none, for tests and demonstrations: a plugin inside the agent, over the sockets of any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from minik8s.deviceplugin import Answer, Device, Plugin, serve


class FakeDevices(Plugin):
    """A container with `vendor.example/foo: 2` finds `FOO_DEVICES=foo-0,foo-1` in its environment."""

    def __init__(self, resource: str, number: int) -> None:
        self.resource = resource
        self._name = resource.partition("/")[2]
        self._ids = [f"{self._name}-{index}" for index in range(number)]

    async def devices(self) -> AsyncIterator[Sequence[Device]]:
        yield [Device(name) for name in self._ids]
        await asyncio.Event().wait()

    async def allocate(self, ids: Sequence[str]) -> Answer:
        variable = "".join(letter if letter.isalnum() else "_" for letter in self._name.upper())
        return Answer(envs={f"{variable}_DEVICES": ",".join(ids)})


async def serve_fakes(numbers: dict[str, int], folder: Path) -> None:
    """For ever."""
    async with asyncio.TaskGroup() as tasks:
        for resource, number in numbers.items():
            tasks.create_task(serve(FakeDevices(resource, number), folder), name=f"fake {resource}")
