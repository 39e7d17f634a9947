"""Two API servers on one etcd: what one gives out the other never gives out again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from api_harness import ADMIN, Api

from minik8s.apiserver import claims, strategy
from minik8s.apiserver.allocator import ServiceAllocator
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.handler import AllowAll
from minik8s.clock import ManualClock
from minik8s.store.etcd import EtcdStore
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache
from tests.etcd import EtcdServer

SERVICES = "/api/v1/namespaces/default/services"
CIDR = "10.1.0.0/26"  # 62 addresses, so that the masters meet


def service(name: str, **spec: object) -> dict:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def masters(etcd: EtcdServer) -> AsyncIterator[list[Api]]:
    async with AsyncExitStack() as stack:
        made: list[Api] = []
        for _ in range(2):
            store = await stack.enter_async_context(EtcdStore([("127.0.0.1", etcd.port)]))
            cache = await stack.enter_async_context(WatchCache(store))
            handler = build_handler(cache, authenticator=None, authorizer=AllowAll(), service_cidr=CIDR)
            made.append(Api(handler, ManualClock(), cache))
        await made[0].post("/api/v1/namespaces", {"metadata": {"name": "default"}})
        await made[1].cache.wait(made[0].cache.revision)
        yield made
        for item in (await made[0].get(SERVICES))["items"]:
            await made[0].delete(f"{SERVICES}/{item['metadata']['name']}")


def numbers(services: list[dict]) -> tuple[Counter[str], Counter[int]]:
    """How often each address and each node port was given."""
    ports = (port["nodePort"] for each in services for port in each["spec"]["ports"])
    return Counter(each["spec"]["clusterIP"] for each in services), Counter(ports)


@pytest.mark.etcd
async def test_no_number_is_given_twice(masters: list[Api]) -> None:
    wanted = [(masters[i % 2], service(f"s{i}", type="NodePort")) for i in range(80)]
    made = await asyncio.gather(*(api.post(SERVICES, body) for api, body in wanted))
    assert Counter(answer.code for answer in made) == {201: 62, 500: 18}
    await masters[0].cache.wait(masters[1].cache.revision)
    there = (await masters[0].get(SERVICES))["items"]
    addresses, ports = numbers(there)
    assert len(addresses) == len(ports) == len(there) == 62
    # Each master takes back what the other gave, and gives it out again.
    gone = [item["metadata"]["name"] for item in there[:20]]
    await asyncio.gather(*(masters[i % 2].delete(f"{SERVICES}/{name}") for i, name in enumerate(gone)))
    for api in masters:
        await api.cache.wait(max(each.cache.revision for each in masters))
    made = await asyncio.gather(*(masters[i % 2].post(SERVICES, service(f"t{i}", type="NodePort")) for i in range(20)))
    assert Counter(answer.code for answer in made) == {201: 20}
    await masters[0].cache.wait(masters[1].cache.revision)
    addresses, ports = numbers((await masters[0].get(SERVICES))["items"])
    assert len(addresses) == len(ports) == 62


@pytest.mark.etcd
async def test_the_same_number_asked_of_both_at_once_is_given_to_one(masters: list[Api]) -> None:
    for round in range(5):
        ports = [{"port": 80, "nodePort": 31000 + round}]
        bodies = (service(f"r{round}-{i}", type="NodePort", ports=ports) for i in range(2))
        made = await asyncio.gather(*(api.post(SERVICES, body) for api, body in zip(masters, bodies, strict=True)))
        assert sorted(answer.code for answer in made) == [201, 422]
        assert "already allocated" in next(answer.message for answer in made if answer.code == 422)
        for api in masters:
            await api.cache.wait(max(each.cache.revision for each in masters))
    more = {"spec": {"ports": [{"port": 80, "nodePort": 31100}]}}
    paths = [f"{SERVICES}/r{i}-{await owner(api, i)}" for i, api in enumerate(masters)]
    moved = await asyncio.gather(*(api.patch(path, more) for api, path in zip(masters, paths, strict=True)))
    assert sorted(answer.code for answer in moved) == [200, 422]


async def owner(api: Api, round: int) -> int:
    """Whose Service of that round there is."""
    return 0 if (await api.get(f"{SERVICES}/r{round}-0")).code == 200 else 1


# -- what a crash leaves behind


@pytest.fixture
async def cache() -> AsyncIterator[WatchCache]:
    async with MemoryStore() as store, WatchCache(store) as cache:
        yield cache


async def test_claims_of_the_dead_come_free_and_those_of_the_living_stay(cache: WatchCache) -> None:
    api = Api(build_handler(cache, authenticator=None, authorizer=AllowAll(), service_cidr=CIDR), ManualClock(), cache)
    await api.post("/api/v1/namespaces", {"metadata": {"name": "default"}})
    await api.post(SERVICES, service("lives", clusterIP="10.1.0.5"))
    # A master was killed after it had claimed an address, before it wrote the Service.
    await claims.take(cache, ["/claims/clusterips/10.1.0.6"], "/services/default/never")
    repairing = ServiceAllocator(cache, CIDR)
    await repairing.repair()  # it may just be about to be written
    assert (await api.post(SERVICES, service("a", clusterIP="10.1.0.6"))).code == 422
    await repairing.repair()
    assert (await api.post(SERVICES, service("a", clusterIP="10.1.0.6"))).code == 201
    await repairing.repair()
    await repairing.repair()
    assert (await api.post(SERVICES, service("b", clusterIP="10.1.0.5"))).code == 422


async def test_services_that_were_made_before_there_were_claims(cache: WatchCache) -> None:
    old = {"metadata": {"name": "old", "namespace": "default", "uid": "u"}, "spec": {"clusterIP": "10.1.0.7"}}
    await cache.write("/services/default/old", strategy.encode(old), expect=0)
    api = Api(build_handler(cache, authenticator=None, authorizer=AllowAll(), service_cidr=CIDR), ManualClock(), cache)
    await api.post("/api/v1/namespaces", {"metadata": {"name": "default"}})
    await ServiceAllocator(cache, CIDR).repair()
    assert (await api.post(SERVICES, service("new", clusterIP="10.1.0.7"), user=ADMIN)).code == 422


async def test_who_was_killed_half_way_may_go_on_at_once(cache: WatchCache) -> None:
    api = Api(build_handler(cache, authenticator=None, authorizer=AllowAll(), service_cidr=CIDR), ManualClock(), cache)
    await api.post("/api/v1/namespaces", {"metadata": {"name": "default"}})
    await claims.take(cache, ["/claims/clusterips/10.1.0.1"], "/services/default/kubernetes")
    assert (await api.post(SERVICES, service("kubernetes", clusterIP="10.1.0.1"))).code == 201
    assert (await api.post(SERVICES, service("other", clusterIP="10.1.0.1"))).code == 422
