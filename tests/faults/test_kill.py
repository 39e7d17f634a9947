"""`kill -9` of the agent at any moment, under load: nothing acknowledged is lost, nothing that runs is touched.

MINIK8S_TEST_KILLS says how often (20).
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import threading
import time
import urllib.request
from dataclasses import dataclass, field

import pytest

from minik8s.aio import background
from minik8s.api.errors import StatusError
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.service import Service
from minik8s.client.base import Client
from tests.agent import Agent
from tests.faults.api import admin, gone, is_ready, pod, ready
from tests.faults.host import Host
from tests.images import NGINX

pytestmark = [pytest.mark.faults, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(900)]
KILLS = int(os.environ.get("MINIK8S_TEST_KILLS", "20"))
LONGEST_LIFE = 1.5  # seconds that an agent which is ready is left to work
FIRST_GUESS = 1.0  # seconds that a start takes
STILL = ("still-0", "still-1", "still-2")
CHURN = "churn"  # the namespace of pods that come and go


class Page:
    """Fetches a page from one address over and over, as somebody outside the cluster does; keeps what went wrong."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.fetched = 0
        self.failures: list[str] = []
        self._over = threading.Event()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> Page:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.fetch()

    def fetch(self) -> bool:
        began = time.monotonic()
        self.fetched += 1
        try:
            with self._opener.open(f"http://{self.address}/", timeout=2) as answer:
                if b"It works" in answer.read():
                    return True
                self.failures.append("another page")
        except OSError as error:
            self.failures.append(f"{error!r} after {time.monotonic() - began:.2f} s")
        return False


@dataclass
class Load:
    """Writers and churners, and what the API has promised them."""

    client: Client
    written: set[str] = field(default_factory=set)
    doomed: set[str] = field(default_factory=set)  # a deletion was sent
    deleted: set[str] = field(default_factory=set)
    refused: list[StatusError] = field(default_factory=list)

    async def write(self, writer: int) -> None:
        number = 0
        while True:
            name = f"w{writer}-{number}"
            number += 1
            if await self._try(self.client.create(ConfigMap, {"metadata": {"name": name}, "data": {"a": name}}, CHURN)):
                self.written.add(name)
                if number % 5 == 0:
                    self.doomed.add(name)
                    if await self._try(self.client.delete(ConfigMap, name, CHURN)):
                        self.deleted.add(name)

    async def churn(self, churner: int) -> None:
        number = 0
        while True:
            name = f"c{churner}-{number}"
            number += 1
            if not await self._try(self.client.create(Pod, pod(name), CHURN)):
                continue
            await asyncio.sleep(random.random() * 2)
            while not await self._try(self.client.delete(Pod, name, CHURN, grace=random.choice([None, 0, 1]))):
                pass

    async def _try(self, call: object) -> bool:
        """Whether it was acknowledged. What was cut may have been done or not."""
        try:
            await call  # type: ignore[misc]
        except StatusError as error:
            if error.code == 404:  # an earlier try had been done before it was cut
                return True
            if error.code < 500:
                self.refused.append(error)
                return True
            await asyncio.sleep(0.05)
            return False
        return True


async def prepare(client: Client) -> str:
    """Pods that must not be touched, and a service; its address."""
    await client.create(Namespace, {"metadata": {"name": CHURN}})
    for name in STILL:
        await client.create(Pod, pod(name), "default")
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": NGINX}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    await client.create(Deployment, {"metadata": {"name": "web"}, "spec": spec}, "default")
    service = {"metadata": {"name": "web"}, "spec": {"selector": labels, "ports": [{"port": 80}]}}
    address = (await client.create(Service, service, "default")).spec.clusterIP
    async with asyncio.timeout(30):
        while len(found := (await client.list(Pod, "default")).items) < 5 or not all(map(is_ready, found)):
            await asyncio.sleep(0.1)
        while not await asyncio.to_thread(Page(address).fetch):
            await asyncio.sleep(0.05)
    return address


async def kill_often(agent: Agent) -> None:
    """The agent runs at the end."""
    loop = asyncio.get_running_loop()
    start = FIRST_GUESS  # seconds from the start of a process until it is ready
    for number in range(KILLS):
        if number % 2:  # while it starts
            await asyncio.sleep(random.uniform(0, start))
        else:  # while it works
            began = loop.time()
            await asyncio.to_thread(agent.wait_ready)
            start = loop.time() - began if number else start
            await asyncio.sleep(random.uniform(0.1, LONGEST_LIFE))
        await asyncio.to_thread(agent.kill9)
        agent.start(ready=False)
    await asyncio.to_thread(agent.wait_ready)


async def test_kill_9_under_load(agent: Agent, host: Host) -> None:
    async with admin(agent) as client:
        address = await prepare(client)
        before = {pod.metadata.name: pod for pod in (await client.list(Pod, "default")).items}
        pids = host.pids()
        assert len(pids) == 10
        load = Load(client)
        began = time.monotonic()
        with Page(address) as page:
            async with background(*(load.write(n) for n in range(4)), *(load.churn(n) for n in range(3))):
                await kill_often(agent)
                await asyncio.sleep(1)
        took = time.monotonic() - began
        print(f"{len(load.written)} written, {len(load.doomed)} deleted, {page.fetched} pages, {took:.0f} s")

        # What was acknowledged is there.
        assert not load.refused
        kept = {one.metadata.name for one in (await client.list(ConfigMap, CHURN)).items}
        assert load.written - load.doomed <= kept
        assert not load.deleted & kept
        assert len(load.written) > 10 * KILLS

        # Those who asked the service noticed nothing.
        assert page.fetched > 10 * KILLS
        assert page.failures == []

        # The pods that nobody deleted go on as they were.
        after = {pod.metadata.name: pod for pod in (await client.list(Pod, "default")).items}
        assert {name: pod.metadata.uid for name, pod in after.items()} == {
            name: pod.metadata.uid for name, pod in before.items()
        }
        assert {name: pid for name, pid in host.pids().items() if name in pids} == pids
        for name in after:
            settled = await ready(client, name)
            assert settled.status.podIP == before[name].status.podIP
            assert [one.restartCount for one in settled.status.containerStatuses] == [0]

        # And of those that came and went nothing is left, once the last are deleted.
        for one in (await client.list(Pod, CHURN)).items:
            await client.delete(Pod, one.metadata.name, CHURN, grace=0)
        await gone(client, namespace=CHURN)
        await _nothing_left(host, {pod.metadata.uid for pod in after.values()})
    await asyncio.to_thread(agent.stop)
    with sqlite3.connect(agent.data / "state.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert host.pids().items() >= pids.items()


async def _nothing_left(host: Host, uids: set[str], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while left := await asyncio.to_thread(host.leftovers, uids):
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.2)
