"""A machine joins with a token that names the master's key, gets certificates of its own, and acts as that node."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from http.client import BadStatusLine
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
from minik8s.kubelet.server import KubeletServer
from minik8s.roles.contact import first_contact, skew, unreached
from minik8s.roles.identity import client_context, master_identity, server_context
from minik8s.roles.join import JoinError, join
from minik8s.roles.master import Master, open_master
from minik8s.runtime.fake import FakeRuntime
from tests.agent import free_port

pytestmark = pytest.mark.timeout(60)


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
        node_name="master", **{"listen": f"127.0.0.1:{free_port()}", **settings},
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
            await join(place.worker("w1", await place.token(expires=time.time() - 1)))


async def test_no_master_names_the_address(tmp_path):
    port = free_port()
    config = Config(
        role="worker", join=f"127.0.0.1:{port}", data_dir=tmp_path, node_name="w1", node_ip="127.0.0.1",
        token=f"abcdef.0123456789abcdef.{'0' * 64}",
    )  # fmt: skip
    with pytest.raises(JoinError, match=f"no master answers at https://127.0.0.1:{port}"):
        await join(config)


@contextmanager
def listener(answer: bytes):
    """Something on a port that is no API server; it says `answer` to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(answer)
                        connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_another_protocol_is_told_at_once(tmp_path, answer):
    with listener(answer) as port:
        config = Config(
            role="worker", join=f"127.0.0.1:{port}", data_dir=tmp_path, node_name="w1", node_ip="127.0.0.1",
            token=f"abcdef.0123456789abcdef.{'0' * 64}",
        )  # fmt: skip
        with pytest.raises(JoinError, match="is not a minik8s master: what listens there speaks another protocol"):
            await asyncio.wait_for(join(config), 4)


async def test_the_port_of_a_kubelet_is_not_the_masters(tmp_path):
    ca = pki.new_ca("other")
    pair = pki.issue(ca, "x", names=("127.0.0.1",), server=True)
    for name, data in (("c", pair.certificate), ("k", pair.key), ("ca", ca.certificate)):
        (tmp_path / name).write_bytes(data)
    server = KubeletServer(FakeRuntime(), None, None)
    context = server_context((tmp_path / "c", tmp_path / "k"), tmp_path / "ca")
    async with server.listening("127.0.0.1", 0, context) as (_, port):
        with pytest.raises(JoinError, match=r"is not a minik8s master: Unauthorized.*HTTP 401"):
            await asyncio.to_thread(first_contact, f"https://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the name 'm' is not known here"),
        (ConnectionRefusedError(111, "Connection refused"), "nothing listens on port 7000"),
        (TimeoutError("timed out"), "no firewall blocks TCP port 7000"),
        (OSError(113, "No route to host"), "No route to host; check the address"),
        (ssl.SSLError(1, "wrong version number"), "another protocol"),
        (ConnectionResetError(104, "Connection reset by peer"), "another protocol"),
        (BadStatusLine("SSH-2.0"), "another protocol"),
    ],
)
def test_what_keeps_from_a_master_has_its_remedy(error, words):
    assert words in unreached("https://m:7000", "m", 7000, error)


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (0, ""), (299, ""), (-299, ""), (301, "5 minutes ahead of"), (-301, "5 minutes behind"),
        (3 * 3600, "3 hours ahead of"), (-40 * 86400, "40 days behind"),
    ],
)  # fmt: skip
def test_clocks_may_differ_as_certificates_allow(ahead, words):
    said = skew(1_700_000_000.0 + ahead, 1_700_000_000.0)
    assert words in said
    assert bool(said) == bool(words)
    assert not said or "timedatectl" in said


async def test_a_wrong_clock_is_told_before_the_token(tmp_path):
    async with master_at(tmp_path) as place:
        with pytest.raises(JoinError, match="this machine's clock is 24 hours behind the master's"):
            await join(place.worker("w1", await place.token()), clock=lambda: time.time() - 86400)
        assert (await place.client.list(CertificateSigningRequest)).items == ()


async def test_an_address_that_the_master_does_not_speak_for_has_its_remedy(tmp_path):
    async with master_at(tmp_path, listen=f"0.0.0.0:{free_port()}") as place:
        config = place.worker("w1", await place.token())
        config = replace(config, join=config.join.replace("127.0.0.1", "127.0.0.5"))
        with pytest.raises(JoinError, match=r"does not speak for 127.0.0.5: start the master with --advertise"):
            await join(config)


async def test_an_address_that_this_machine_has_not_is_told_before_anything_is_asked_for(tmp_path):
    async with master_at(tmp_path) as place:
        config = replace(place.worker("w1", await place.token()), node_ip="192.0.2.77")
        with pytest.raises(JoinError, match="no link of this machine has the address 192"):
            await join(config)
        assert (await place.client.list(CertificateSigningRequest)).items == ()


async def test_a_node_keeps_its_cluster_and_its_name(tmp_path):
    async with master_at(tmp_path) as place:
        config = place.worker("w1", await place.token())
        await join(config)
        other = config.token[: -len("0" * 64)] + "0" * 64
        with pytest.raises(JoinError, match="is a node of another cluster"):
            await join(replace(config, token=other))
        with pytest.raises(JoinError, match="has joined as node 'w1'"):
            await join(replace(config, node_name="w2"))


async def test_the_same_machine_may_join_again_and_another_only_when_the_node_is_deleted(tmp_path):
    async with master_at(tmp_path) as place:
        config = place.worker("w1", await place.token())
        identity = await join(config)
        key = {"minik8s.io/node-key": identity.key_id}
        await place.client.create(Node, {"metadata": {"name": "w1", "annotations": key}})
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        await place.client.patch(Node, "w1", None, ready, subresource="status")
        identity.client[0].unlink()  # a certificate that is lost, or has expired
        assert (await join(config)).key_id == identity.key_id
        another = replace(config, data_dir=tmp_path / "another")
        with pytest.raises(JoinError, match='a living node is already called "w1"'):
            await join(another)
        silent = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
        await place.client.patch(Node, "w1", None, silent, subresource="status")
        with pytest.raises(JoinError, match=r'a silent node is already called "w1".*kubectl delete node w1'):
            await join(another)
        await place.client.delete(Node, "w1")
        assert (await join(another)).key_id != identity.key_id


async def test_a_token_that_was_deleted_is_refused(tmp_path):
    async with master_at(tmp_path) as place:
        token = await place.token()
        await place.client.delete(Secret, f"bootstrap-token-{token[:6]}", "kube-system")
        with pytest.raises(JoinError, match="unknown or was deleted"):
            await join(place.worker("w1", token))


async def test_the_name_of_a_living_node_is_not_given_away(tmp_path):
    async with master_at(tmp_path) as place:
        await place.client.create(Node, {"metadata": {"name": "w1"}})
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        await place.client.patch(Node, "w1", None, ready, subresource="status")
        with pytest.raises(JoinError, match='already called "w1"'):
            await join(place.worker("w1", await place.token()))
