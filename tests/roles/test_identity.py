"""Who a machine is: made once, renewed in time, healed after a cut start, and never replaced where that would hurt."""

from __future__ import annotations

import json
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from minik8s import pki
from minik8s.config import Config
from minik8s.roles.identity import (
    IdentityError,
    client_context,
    local_node_identity,
    master_identity,
    needs_renewal,
    read_node_identity,
    renewal_due,
    server_context,
)
from minik8s.roles.join import standing

DAY = 86400.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=tmp_path, node_name="n1", node_ip="192.0.2.1", advertise="192.0.2.9", listen="10.0.0.7:6443")


def after(days: float):
    return lambda: time.time() + days * DAY


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_master_is_the_same_at_each_start(config: Config) -> None:
    first = master_identity(config)
    before = files(config.data_dir)
    assert master_identity(config) == first
    assert files(config.data_dir) == before


def test_the_api_server_speaks_for_all_its_names(config: Config) -> None:
    certificate = master_identity(config).serving[0].read_bytes()
    assert pki.names_of(certificate) == {
        "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
        "localhost", "127.0.0.1", "10.96.0.1", "n1", "192.0.2.1", "192.0.2.9", "10.0.0.7",
    }  # fmt: skip


def test_nothing_secret_is_readable_by_others(config: Config) -> None:
    master = master_identity(config)
    local_node_identity(config, master.ca)
    for file in config.data_dir.rglob("*"):
        if file.suffix == ".key" or file.name == "admin.kubeconfig":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    for folder in ("pki", "node"):
        assert stat.S_IMODE(config.path(folder).stat().st_mode) == 0o700


def test_the_administrators_kubeconfig(config: Config) -> None:
    master = master_identity(config)
    document = json.loads(config.path("admin.kubeconfig").read_text())
    assert document["clusters"][0]["cluster"]["server"] == "https://10.0.0.7:6443"
    assert document["current-context"] == "minik8s"
    admin = config.path("pki", "admin.crt").read_bytes()
    assert document["users"][0]["user"]["client-certificate-data"] == pki.b64(admin)
    assert document["clusters"][0]["cluster"]["certificate-authority-data"] == pki.b64(master.ca.certificate)


def test_certificates_are_renewed_after_two_thirds_of_their_life(config: Config) -> None:
    master_identity(config)
    before = files(config.data_dir)
    master_identity(config, clock=after(240))
    assert files(config.data_dir) == before
    master_identity(config, clock=after(250))
    now = files(config.data_dir)
    renewed = {name for name in now if now[name] != before[name]}
    assert renewed == {
        "admin.kubeconfig", "pki/admin.crt", "pki/apiserver.crt", "pki/apiserver-kubelet-client.crt",
    }, "keys stay, so that nobody reads halves of two pairs"  # fmt: skip


def test_another_address_is_another_certificate_of_the_same_ca(config: Config) -> None:
    first = master_identity(config)
    admin = config.path("pki", "admin.crt").read_bytes()
    second = master_identity(replace(config, node_ip="192.0.2.2"))
    assert second.ca == first.ca
    assert "192.0.2.2" in pki.names_of(second.serving[0].read_bytes())
    assert config.path("pki", "admin.crt").read_bytes() == admin


@pytest.mark.parametrize("file", ["apiserver.crt", "apiserver.key", "admin.key"])
@pytest.mark.parametrize("damage", ["gone", "empty", "of another pair"])
def test_a_start_that_was_cut_is_healed(config: Config, file: str, damage: str) -> None:
    """A key is written before its certificate: between the two, they do not fit."""
    master_identity(config)
    path = config.path("pki", file)
    match damage:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case _:
            other = pki.issue(pki.new_ca("other"), "x")
            path.write_bytes(other.key if file.endswith("key") else other.certificate)
    healed = master_identity(config)
    server_context(healed.serving, healed.ca_file)
    client_context(healed.ca_file, (config.path("pki", "admin.crt"), config.path("pki", "admin.key")))


def test_a_key_alone_is_what_a_cut_first_start_leaves(config: Config) -> None:
    pki.write_private(config.path("pki", "ca.key"), pki.new_key())
    made = master_identity(config)
    assert pki.fits(made.ca, made.ca)


@pytest.mark.parametrize("damage", ["no key", "no certificate", "another key", "junk"])
def test_a_lost_ca_is_never_replaced(config: Config, damage: str) -> None:
    master_identity(config)
    certificate, key = config.path("pki", "ca.crt"), config.path("pki", "ca.key")
    match damage:
        case "no key":
            key.unlink()
        case "no certificate":
            certificate.unlink()
        case "another key":
            key.write_bytes(pki.new_key())
        case _:
            certificate.write_bytes(b"junk")
    with pytest.raises(IdentityError, match="from a backup"):
        master_identity(config)


def test_a_node_in_the_masters_process(config: Config) -> None:
    master = master_identity(config)
    node = local_node_identity(config, master.ca)
    assert local_node_identity(config, master.ca) == node
    assert pki.names_of(node.serving[0].read_bytes()) == {"n1", "192.0.2.1", "localhost", "127.0.0.1"}
    assert local_node_identity(replace(config, node_ip="192.0.2.2"), master.ca).uid == node.uid
    assert "192.0.2.2" in pki.names_of(node.serving[0].read_bytes())


def test_what_needs_renewal() -> None:
    ca = pki.new_ca("test")
    leaf = pki.issue(ca, "a", names=("a", "10.0.0.1"), days=90).certificate
    now = time.time()
    assert not needs_renewal(leaf, now, ("a", "10.0.0.1"))
    assert needs_renewal(leaf, now, ("a", "10.0.0.2"))
    assert not needs_renewal(leaf, now + 59 * DAY)
    assert needs_renewal(leaf, now + 61 * DAY)


def test_a_short_life_begins_now(config: Config) -> None:
    """Or two thirds of it would be over when it begins."""
    certificate = master_identity(replace(config, cluster_signing_duration=60.0)).serving[0].read_bytes()
    begin, end = pki.lifetime(certificate)
    assert end - begin == pytest.approx(60, abs=2)
    assert renewal_due(certificate) == pytest.approx(time.time() + 40, abs=5)


def test_what_an_earlier_join_has_left(config: Config) -> None:
    names, now = ("n1", "192.0.2.1"), time.time()
    assert standing(read_node_identity(config), names, now) == "new"
    ca = pki.new_ca("test")
    node = local_node_identity(config, ca)
    assert standing(node, names, now) == "good"
    assert standing(node, ("n1", "192.0.2.2"), now) == "stale"
    assert standing(node, names, now + 300 * DAY) == "stale"
    assert standing(node, names, now + 400 * DAY) == "expired"
    node.serving[1].write_bytes(pki.new_key())
    assert standing(node, names, now) == "half"
    node.serving[0].unlink()
    assert standing(node, names, now) == "half"
    node.client[1].write_bytes(pki.new_key())
    assert standing(node, names, now) == "new"
