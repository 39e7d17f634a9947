"""What every PodNetwork promises, asked of the fake and of the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from minik8s.net.base import AddressesExhausted, NetworkError, PodNetwork
from minik8s.net.fake import FakePodNetwork
from minik8s.net.netlink import Netlink
from minik8s.net.nftables import Nftables
from minik8s.net.routed import RoutedPodNetwork

from .kernel import Host

CIDR = "10.244.0.0/29"  # six addresses


class Bench:
    """A network under test, processes to wire, and the same node after a restart of the agent."""

    def __init__(self, network: PodNetwork, pod: Callable[[], int], restart: Callable[[], PodNetwork]) -> None:
        self.network, self.pod, self.restart = network, pod, restart


@pytest.fixture(params=["fake", pytest.param("routed", marks=pytest.mark.root)])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "fake":
        network = FakePodNetwork(CIDR)
        async with network:
            yield Bench(network, lambda: 1, lambda: network)
        return
    host: Host = request.getfixturevalue("host")
    async with AsyncExitStack() as stack:
        netlink = await stack.enter_async_context(Netlink())
        nftables = await stack.enter_async_context(Nftables())

        def make() -> RoutedPodNetwork:
            return RoutedPodNetwork(
                CIDR, tmp_path, netlink, nftables, cluster_cidr="10.244.0.0/16", service_cidr="10.96.0.0/12"
            )

        async with make() as network:
            yield Bench(network, host.pod, make)
            await network.teardown()


async def test_an_address_may_be_held_before_there_is_anything_to_wire(bench: Bench) -> None:
    held = await bench.network.reserve("a")
    assert await bench.network.reserve("a") == held
    assert await bench.network.reserve("b") != held
    assert await bench.network.known() == {"a": held, "b": await bench.network.reserve("b")}
    assert (await bench.network.attach("a", bench.pod())).ip == held
    await bench.network.detach("b")
    assert await bench.network.known() == {"a": held}


async def test_a_pod_gets_an_address_of_the_range_and_keeps_it(bench: Bench) -> None:
    pid = bench.pod()
    first = await bench.network.attach("a", pid)
    assert first.ip == "10.244.0.1"
    assert first.gateway == "169.254.1.1"
    assert len(first.interface) <= 15
    assert await bench.network.attach("a", pid) == first
    assert (await bench.network.attach("b", bench.pod())).ip == "10.244.0.2"
    assert await bench.network.known() == {"a": "10.244.0.1", "b": "10.244.0.2"}


async def test_a_restarted_sandbox_is_wired_with_the_old_address(bench: Bench) -> None:
    before = await bench.network.attach("a", bench.pod())
    assert await bench.network.attach("a", bench.pod()) == before


async def test_detach_is_idempotent_and_frees_the_address_for_last(bench: Bench) -> None:
    await bench.network.attach("a", bench.pod())
    await bench.network.detach("a")
    await bench.network.detach("a")
    await bench.network.detach("never seen")
    assert await bench.network.known() == {}
    assert (await bench.network.attach("b", bench.pod())).ip == "10.244.0.2"


async def test_a_full_range_is_refused_and_a_freed_address_given_again(bench: Bench) -> None:
    for n in range(6):
        await bench.network.attach(f"p{n}", bench.pod())
    with pytest.raises(AddressesExhausted, match=r"all 6 pod addresses of 10\.244\.0\.0/29"):
        await bench.network.attach("one more", bench.pod())
    await bench.network.detach("p3")
    assert (await bench.network.attach("one more", bench.pod())).ip == "10.244.0.4"


async def test_a_wanted_address_is_given_unless_another_pod_has_it(bench: Bench) -> None:
    assert (await bench.network.attach("a", bench.pod(), ip="10.244.0.5")).ip == "10.244.0.5"
    with pytest.raises(NetworkError, match="held by pod a"):
        await bench.network.attach("b", bench.pod(), ip="10.244.0.5")
    # One of a range that the node had before would lead nowhere.
    assert (await bench.network.attach("b", bench.pod(), ip="10.9.9.9")).ip == "10.244.0.1"


async def test_pods_survive_a_restart_of_the_agent(bench: Bench) -> None:
    pid = bench.pod()
    before = await bench.network.attach("a", pid)
    async with bench.restart() as network:
        assert await network.known() == {"a": before.ip}
        assert await network.attach("a", pid) == before
        assert (await network.attach("b", bench.pod())).ip != before.ip


async def test_teardown_forgets_everything(bench: Bench) -> None:
    await bench.network.attach("a", bench.pod())
    await bench.network.teardown()
    await bench.network.teardown()
    assert await bench.network.known() == {}
