"""A machine joins with a token that names the master's key, gets certificates of its own, and acts as that node."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minik8s import pki
from minik8s.aio import background, supervise
from minik8s.api.errors import Forbidden
from minik8s.api.kinds.certificatesigningrequest import CertificateSigningRequest
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.secret import Secret
from minik8s.apiserver.auth import AUTHENTICATED, MASTERS, User
from minik8s.apiserver.tokens import bootstrap_secret, new_bootstrap_token
from minik8s.client.base import Client
from minik8s.client.http import HttpTransport
from minik8s.config import Config
from minik8s.controllers.certificates import CLIENT_SIGNER, SERVING_SIGNER
from minik8s.roles.identity import client_context, master_identity
from minik8s.roles.join import JoinError, join
from minik8s.roles.master import Master, open_master

pytestmark = pytest.mark.timeout(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Place:
    def __init__(self, config: Config, master: Master, ca: bytes) -> None:
        self.config = config
        self.master = master
        self.ca = ca
        self.client = master.client(User("test", (MASTERS, AUTHENTICATED)))

    async def token(self, **options: float) -> str:
        id, secret = new_bootstrap_token()
        await self.client.create(Secret, bootstrap_secret(id, secret, **options))
        return f"{id}.{secret}.{pki.ca_hash(self.ca)}"

    def worker(self, name: str, token: str) -> Config:
        _, port = self.config.listen_address
        folder = self.config.data_dir.parent / name
        return replace(
            self.config, role="worker", join=f"127.0.0.1:{port}", token=token, node_name=name, data_dir=folder
        )


@asynccontextmanager
async def master_at(folder: Path, **settings: Any):
    config = Config(
        data_dir=folder / "master", store="memory", runtime="fake", role="master", node_ip="127.0.0.1",
        listen=f"127.0.0.1:{free_port()}", node_name="master", **settings,
    )  # fmt: skip
    keys = master_identity(config)
    async with open_master(config, keys) as master:
        async with background(supervise([("serve", master.serve()), *master.activities()])):
            await master.informers.synced()
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", config.listen_address[1])
                    writer.close()
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0)
            yield Place(config, master, keys.ca.certificate)


async def test_a_joined_node_may_write_itself_and_no_other(tmp_path):
    async with master_at(tmp_path) as place:
        config = place.worker("w1", await place.token())
        identity = await join(config)
        context = client_context(identity.ca_file, identity.client)
        async with HttpTransport(config.server, context) as transport:
            client = Client(transport)
            node = await client.create(Node, {"metadata": {"name": "w1"}})
            assert node.metadata.name == "w1"
            with pytest.raises(Forbidden, match="not allowed to modify"):
                await client.create(Node, {"metadata": {"name": "w2"}})
            with pytest.raises(Forbidden):
                await client.list(Secret, "kube-system")
        requests = (await place.client.list(CertificateSigningRequest)).items
        asked = {r.spec.signerName: r.spec.username.rpartition(":")[0] for r in requests}
        assert asked == {CLIENT_SIGNER: "system:bootstrap", SERVING_SIGNER: "system:node"}
        for path in (identity.client[1], identity.serving[1]):
            assert path.stat().st_mode & 0o777 == 0o600


async def test_a_second_join_uses_what_the_first_has_left(tmp_path):
    async with master_at(tmp_path) as place:
        config = place.worker("w1", await place.token())
        first = (await join(config)).client[0].read_bytes()
        again = await join(replace(config, token=""))
        assert again.client[0].read_bytes() == first


async def test_a_wrong_hash_is_refused_before_anything_is_sent(tmp_path):
    async with master_at(tmp_path) as place:
        token = await place.token()
        wrong = token[: -len("0" * 64)] + "0" * 64
        with pytest.raises(JoinError, match="nothing was sent"):
            await join(place.worker("w1", wrong))
        assert (await place.client.list(CertificateSigningRequest)).items == ()


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("nonsense", "ID.SECRET.HASH"),
        ("", "give it a --token"),
        ("abcdef.0123456789abcdef.{hash}", "unknown or was deleted"),
    ],
)
async def test_faulty_tokens_are_told_apart(tmp_path, token, words):
    async with master_at(tmp_path) as place:
        with pytest.raises(JoinError, match=words):
            await join(place.worker("w1", token.format(hash=pki.ca_hash(place.ca))))


async def test_an_expired_token_says_so(tmp_path):
    async with master_at(tmp_path) as place:
        with pytest.raises(JoinError, match="expired at"):
            await join(place.worker("w1", await place.token(expires=1.0)))


async def test_no_master_names_the_address(tmp_path):
    port = free_port()
    config = Config(
        role="worker", join=f"127.0.0.1:{port}", data_dir=tmp_path, node_name="w1", node_ip="127.0.0.1",
        token=f"abcdef.0123456789abcdef.{'0' * 64}",
    )  # fmt: skip
    with pytest.raises(JoinError, match=f"no master answers at https://127.0.0.1:{port}"):
        await join(config)


async def test_the_name_of_a_living_node_is_not_given_away(tmp_path):
    async with master_at(tmp_path) as place:
        await place.client.create(Node, {"metadata": {"name": "w1"}})
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        await place.client.patch(Node, "w1", None, ready, subresource="status")
        with pytest.raises(JoinError, match='already called "w1"'):
            await join(place.worker("w1", await place.token()))
