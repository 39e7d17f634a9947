"""A node in the API, in virtual time: how often it is heard of, and what it does when others change its Node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from minik8s.api.errors import NotFound
from minik8s.api.kinds.lease import INTERVAL_ANNOTATION, NODE_LEASES, Lease
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.node import KEY_ANNOTATION
from minik8s.api.kinds.node import Node as NodeObject
from minik8s.api.meta import is_true
from minik8s.client.base import STRATEGIC_MERGE_PATCH, Client
from minik8s.kubelet.node_status import UID_LABEL, NameTaken
from minik8s.runtime.fake import FakeRuntime

from .node import NODE, Cuttable, api_server, eventually, node

pytestmark = pytest.mark.looptime
BEGIN = 1_700_000_000.0


def clock() -> float:
    return BEGIN + asyncio.get_running_loop().time()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with api_server(clock) as client:
        yield client


@pytest.fixture
async def runtime() -> AsyncIterator[FakeRuntime]:
    async with FakeRuntime(clock=clock) as runtime:
        yield runtime


async def beats(client: Client, seconds: float) -> int:
    """How many heartbeats come in some time."""
    seen: set[str] = set()
    for _ in range(int(seconds * 20)):
        seen.add((await client.get(Lease, NODE, NODE_LEASES)).spec.renewTime)
        await asyncio.sleep(0.05)
    return len(seen)


async def want_beats(client: Client, interval: str) -> None:
    annotations = {"metadata": {"annotations": {INTERVAL_ANNOTATION: interval}}}
    await client.patch(Namespace, NODE_LEASES, None, annotations)


async def exists(client: Client) -> bool:
    try:
        await client.get(NodeObject, NODE)
    except NotFound:
        return False
    return True


async def judged(client: Client, status: str) -> None:
    """As the node controller does it."""
    unknown = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
    await client.patch(NodeObject, NODE, None, unknown, subresource="status", content_type=STRATEGIC_MERGE_PATCH)


@pytest.mark.parametrize(("wanted", "expected"), [("1", (10, 12)), ("30", (2, 3)), ("odd", (2, 3)), ("-1", (90, 110))])
async def test_heartbeats_come_as_often_as_the_master_wants_or_more_often(
    client: Client, runtime: FakeRuntime, wanted: str, expected: tuple[int, int]
):
    await want_beats(client, wanted)
    async with node(client, runtime, None, clock=clock):
        await asyncio.sleep(1)
        fewest, most = expected
        assert fewest <= await beats(client, 10) <= most


async def test_a_lease_says_for_how_long_it_is_good(client: Client, runtime: FakeRuntime):
    transport = Cuttable(client.transport)
    async with node(Client(transport), runtime, None, clock=clock):
        await asyncio.sleep(1)
        assert (await client.get(Lease, NODE, NODE_LEASES)).spec.leaseDurationSeconds == 40
        transport.cut()  # the master is restarted with shorter times
        await want_beats(client, "1")
        await asyncio.sleep(30)
        transport.heal()
        await asyncio.sleep(7)
        assert (await client.get(Lease, NODE, NODE_LEASES)).spec.leaseDurationSeconds == 8
        assert 10 <= await beats(client, 10) <= 12


async def test_who_is_taken_for_lost_says_that_it_lives(client: Client, runtime: FakeRuntime):
    async def ready() -> bool:
        return is_true((await client.get(NodeObject, NODE)).status.conditions, "Ready")

    transport = Cuttable(client.transport)
    async with node(Client(transport), runtime, None, clock=clock):
        await judged(client, "Unknown")  # though nothing was wrong with us or the way to it
        await eventually(ready, 11)
        transport.cut()
        await asyncio.sleep(60)
        await judged(client, "Unknown")
        transport.heal()
        await eventually(ready, 6)


async def test_what_somebody_adds_to_the_capacity_can_be_allocated(client: Client, runtime: FakeRuntime):
    async def allocatable() -> object:
        return (await client.get(NodeObject, NODE)).status.allocatable.get("example.com/dongle")

    async def add(amount: str | None) -> None:
        body = {"status": {"capacity": {"example.com/dongle": amount}}}
        await client.patch(NodeObject, NODE, None, body, subresource="status")

    async with node(client, runtime, None, clock=clock):
        for amount in ("4", "2", None):
            await add(amount)
            await asyncio.sleep(11)
            assert await allocatable() == amount
        assert "cpu" in (await client.get(NodeObject, NODE)).status.allocatable


async def test_a_node_that_was_deleted_stays_so_until_somebody_makes_it_again(client: Client, runtime: FakeRuntime):
    async with node(client, runtime, None, clock=clock, node_uid="a1", node_key="k1") as one:
        await asyncio.sleep(1)
        await client.delete(NodeObject, NODE)
        await client.delete(Lease, NODE, NODE_LEASES)  # as the garbage collector does
        await asyncio.sleep(600)
        assert not await exists(client)
        with pytest.raises(NotFound):
            await client.get(Lease, NODE, NODE_LEASES)
        await client.create(NodeObject, {"metadata": {"name": NODE, "labels": {"mine": "1"}}})

        async def adopted() -> bool:
            found = await client.get(NodeObject, NODE)
            return is_true(found.status.conditions, "Ready") and found.metadata.labels.get(UID_LABEL) == "a1"

        await eventually(adopted, 30)
        found = await client.get(NodeObject, NODE)
        assert found.metadata.labels["mine"] == "1"
        assert found.metadata.annotations[KEY_ANNOTATION] == "k1"
        await asyncio.sleep(6)
        lease = await client.get(Lease, NODE, NODE_LEASES)
        assert lease.metadata.ownerReferences[0].uid == found.metadata.uid
        assert one.kubelet.node.node is not None
    async with node(client, runtime, None, clock=clock, node_uid="a1"):
        assert await exists(client), "an agent that is started registers itself"


async def test_a_store_that_was_replaced_has_deleted_nobody(client: Client, runtime: FakeRuntime):
    transport = Cuttable(client.transport)
    async with node(Client(transport), runtime, None, clock=clock):
        await asyncio.sleep(1)
        transport.cut()
        async with api_server(clock) as other:
            transport._inner = other.transport
            await asyncio.sleep(30)
            transport.heal()
            await eventually(lambda: exists(other), 30)
            await asyncio.sleep(10)
            assert (await other.get(Lease, NODE, NODE_LEASES)).spec.renewTime
            transport.cut()


async def test_a_name_that_another_machine_has_taken_ends_the_agent(client: Client, runtime: FakeRuntime):
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012 - it ends while the body waits
        async with node(client, runtime, None, clock=clock, node_uid="a1"):
            await client.patch(NodeObject, NODE, None, {"metadata": {"labels": {UID_LABEL: "b2"}}})
            await asyncio.sleep(30)
    assert caught.group_contains(NameTaken)


async def test_another_address_is_announced(client: Client, runtime: FakeRuntime):
    async with node(client, runtime, None, clock=clock) as one:
        one.kubelet.node.readdress("192.0.2.7")

        async def told() -> bool:
            addresses = (await client.get(NodeObject, NODE)).status.addresses
            return [a.address for a in addresses if a.type == "InternalIP"] == ["192.0.2.7"]

        await eventually(told, 5)
