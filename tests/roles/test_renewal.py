"""Certificates are renewed while everything runs: no connection ends, and new ones show the new certificates."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from minik8s import pki
from minik8s.aio import background
from minik8s.api.errors import ServiceUnavailable, StatusError
from minik8s.api.kinds.node import Node
from minik8s.api.meta import is_true
from minik8s.client.base import Client
from minik8s.client.http import HttpTransport
from minik8s.client.informer import Informer
from minik8s.clock import ManualClock
from minik8s.config import Config
from minik8s.roles.contact import JoinError
from minik8s.roles.identity import IdentityError, client_context, local_node_identity, master_identity
from minik8s.roles.join import join, renew
from minik8s.roles.node import run_node
from minik8s.roles.renewal import Credentials
from tests.roles.test_join import free_port, master_at

DAY = 86400.0
LIFE = 5.0  # seconds; a third of it is for a machine that has more to do


async def shown(port: int) -> bytes:
    """The certificate that a server shows to a new connection."""
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port), timeout=5)
    return pem.encode()


@pytest.mark.timeout(60)
async def test_an_agent_outlives_its_certificates_many_times(tmp_path: Path) -> None:
    async with master_at(tmp_path, cluster_signing_duration=LIFE) as place:
        port, kubelet = place.config.listen_address[1], free_port()
        worker = replace(place.worker("w1", await place.token()), kubelet_port=kubelet)
        admin, own = place.config.path("admin.kubeconfig"), worker.path("node")
        async with background(run_node(worker, None, None)):
            await until_ready(place.client, "w1")
            old_context = client_context(own / "ca.crt", (own / "client.crt", own / "client.key"))
            key = (own / "client.key").read_bytes()
            async with HttpTransport(worker.server, old_context) as transport:
                # A watch that is opened now, with a certificate that will have expired long before the end.
                client = Client(transport)
                watched = Informer(client, client.resource(Node), Node)
                requests = count_requests(transport)
                async with background(watched.run()):
                    await watched.synced()
                    await see_them_change(port, kubelet, (own / "client.crt", admin))
                    await place.client.patch(Node, "w1", None, {"metadata": {"labels": {"end": "true"}}})
                    async with asyncio.timeout(5):
                        while (seen := watched.get(None, "w1")) is None or "end" not in seen.metadata.labels:
                            await asyncio.sleep(0.01)
                    assert requests == [1], "the watch was never interrupted"
            assert is_true((await place.client.get(Node, "w1")).status.conditions, "Ready")
            user = json.loads(admin.read_text())["users"][0]["user"]
            assert pki.b64(place.config.path("pki", "admin.crt").read_bytes()) == user["client-certificate-data"]
            assert (own / "client.key").read_bytes() == key, "a node is its key"
            with pytest.raises(ServiceUnavailable):
                async with HttpTransport(worker.server, old_context) as late:
                    await Client(late).get(Node, "w1")


async def see_them_change(api: int, kubelet: int, files: Sequence[Path]) -> None:
    """Look at all certificates for several of their lives; those that servers show are good at any moment."""
    seen: dict[str, dict[bytes, None]] = {"api": {}, "kubelet": {}} | {str(file): {} for file in files}
    end = time.monotonic() + 2 * LIFE
    while time.monotonic() < end or min(map(len, seen.values())) < 4:
        for name, port in (("api", api), ("kubelet", kubelet)):
            certificate = await shown(port)
            begin, expiry = pki.lifetime(certificate)
            assert begin <= time.time() <= expiry, f"the certificate of the {name} server"
            seen[name][certificate] = None
        for file in files:
            seen[str(file)][await asyncio.to_thread(file.read_bytes)] = None
        await asyncio.sleep(0.2)


def count_requests(transport: HttpTransport) -> list[int]:
    count, request = [0], transport.request

    async def counted(method: str, path: str, **more: object) -> bytes:
        count[0] += 1
        return await request(method, path, **more)  # type: ignore[arg-type]

    transport.request = counted  # type: ignore[method-assign,assignment]
    return count


async def until_ready(client: Client, name: str) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(StatusError):
                if is_true((await client.get(Node, name)).status.conditions, "Ready"):
                    return
            await asyncio.sleep(0.02)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=tmp_path, node_name="n1", node_ip="192.0.2.1")


async def test_renewal_comes_with_the_clock_and_not_before(config: Config) -> None:
    master_identity(config)
    clock, made = ManualClock(time.time()), asyncio.Event()
    identity = master_identity(config)
    before = identity.serving[0].read_bytes()

    async def remake() -> None:
        master_identity(config, clock=clock)
        made.set()

    credentials = Credentials(identity.certificates, remake, clock=clock)
    context = credentials.server(identity.serving, identity.ca_file)
    async with background(credentials.run()):
        credentials.nudge()
        await asyncio.wait_for(made.wait(), 5)
        assert identity.serving[0].read_bytes() == before, "it is not due"
        made.clear()
        clock.advance(260 * DAY)
        credentials.nudge()  # instead of the hour until it looks at the clock again
        await asyncio.wait_for(made.wait(), 5)
    assert identity.serving[0].read_bytes() != before
    assert context.cert_store_stats()["x509_ca"] == 1


async def test_a_failed_renewal_is_tried_again(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minik8s.roles.renewal.backoff", lambda first, last: iter([0.01] * 9))
    tries: list[int] = []
    done = asyncio.Event()

    async def remake() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise IdentityError("the master is away")
        done.set()

    credentials = Credentials(master_identity(config).certificates, remake)
    async with background(credentials.run()):
        credentials.nudge()
        await asyncio.wait_for(done.wait(), 5)


async def test_an_address_that_changes_is_in_the_next_certificate(config: Config) -> None:
    master = master_identity(config)
    identity = local_node_identity(config, master.ca)
    where = [config]

    async def remake() -> None:
        local_node_identity(where[0], master.ca)

    credentials = Credentials(identity.certificates, remake)
    async with background(credentials.run()):
        where[0] = replace(config, node_ip="192.0.2.7")
        credentials.nudge()
        async with asyncio.timeout(5):
            while "192.0.2.7" not in pki.names_of(identity.serving[0].read_bytes()):
                await asyncio.sleep(0.01)


async def test_a_worker_renews_by_its_own_certificate_and_keeps_its_key(tmp_path: Path) -> None:
    async with master_at(tmp_path) as place:
        worker = place.worker("w1", await place.token())
        identity = await join(worker)
        key, certificate = identity.client[1].read_bytes(), identity.client[0].read_bytes()
        await renew(worker)
        assert identity.client[0].read_bytes() == certificate, "it is not due"
        await renew(replace(worker, node_ip="127.0.0.2"))
        assert identity.client[0].read_bytes() != certificate
        assert identity.client[1].read_bytes() == key
        assert "127.0.0.2" in pki.names_of(identity.serving[0].read_bytes())
        # Somebody deleted the node, and another machine has taken its name.
        await place.client.create(Node, {"metadata": {"name": "w1", "annotations": {"minik8s.io/node-key": "other"}}})
        with pytest.raises(JoinError, match="already called"):
            await renew(replace(worker, node_ip="127.0.0.3"))
        assert identity.client[1].read_bytes() == key
