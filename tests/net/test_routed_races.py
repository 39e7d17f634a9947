"""Pods that come and go while the kernel is being asked which there are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from minik8s.net.routed import RoutedPodNetwork


class SlowNetlink:
    """Links in a dict; the answer to `pods` is as old as the question and waits for `answer`."""

    def __init__(self) -> None:
        self.wired: dict[str, str] = {}
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def pods(self) -> dict[str, str]:
        then = dict(self.wired)
        self.asked.set()
        await self.answer.wait()
        return then

    async def wire(self, pod_uid: str, pid: int, address: str, mtu: int) -> str:
        self.wired[pod_uid] = address
        return "mk8s0"

    async def remove(self, name: str) -> None:
        self.wired.clear()


@pytest.fixture
def netlink() -> SlowNetlink:
    return SlowNetlink()


@pytest.fixture
def network(netlink: SlowNetlink, tmp_path: Path) -> RoutedPodNetwork:
    unused: Any = None
    ranges = {"cluster_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/12"}
    kernel: Any = netlink
    return RoutedPodNetwork("10.244.0.0/24", tmp_path, kernel, unused, **ranges)


async def test_a_pod_that_comes_while_we_look_keeps_its_address(
    network: RoutedPodNetwork, netlink: SlowNetlink
) -> None:
    looking = asyncio.create_task(network.known())
    await netlink.asked.wait()
    one = await network.attach("one", 1)
    netlink.answer.set()
    assert await looking == {"one": one.ip}
    assert (await network.attach("two", 2)).ip != one.ip


async def test_a_pod_that_goes_while_we_look_stays_gone(network: RoutedPodNetwork, netlink: SlowNetlink) -> None:
    await network.attach("one", 1)
    looking = asyncio.create_task(network.known())
    await netlink.asked.wait()
    await network.detach("one")
    netlink.answer.set()
    assert await looking == {}
    assert await network.known() == {}
