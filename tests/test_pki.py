"""Keys and certificates: what they say, whom they let in, and that files are written whole and privately."""

from __future__ import annotations

import hashlib
import ssl
import stat
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from minik8s import pki

CA = pki.new_ca("test")


def loaded(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def usages(pem: bytes) -> set[x509.ObjectIdentifier]:
    return set(loaded(pem).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_a_ca_signs_leaves_and_no_other_ca() -> None:
    basic = loaded(CA.certificate).extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    begin, end = pki.lifetime(CA.certificate)
    assert begin <= time.time() - pki.BACKDATE + 1
    assert end - begin == pytest.approx(pki.CA_DAYS * pki.DAY, abs=2 * pki.BACKDATE)


def test_leaves_are_for_what_they_are_for() -> None:
    client = pki.issue(CA, "ann", organizations=("team", "crew"))
    assert usages(client.certificate) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    subject = loaded(client.certificate).subject.rfc4514_string()
    assert subject == "CN=ann,O=crew,O=team"
    server = pki.issue(CA, "s", names=("a.example", "10.0.0.1", "::1"), server=True, client=False)
    assert usages(server.certificate) == {ExtendedKeyUsageOID.SERVER_AUTH}
    assert pki.names_of(server.certificate) == {"a.example", "10.0.0.1", "::1"}
    assert pki.names_of(client.certificate) == set()


def test_openssl_takes_what_was_signed(tmp_path: Path) -> None:
    (tmp_path / "ca").write_bytes(CA.certificate)
    (tmp_path / "leaf").write_bytes(pki.issue(CA, "ann").certificate)
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", tmp_path / "ca", tmp_path / "leaf"], capture_output=True
    )
    assert done.returncode == 0, done


def test_a_pair_fits_its_ca_and_no_other() -> None:
    pair, other = pki.issue(CA, "a"), pki.issue(CA, "b")
    assert pki.fits(pair, CA)
    assert pki.fits(CA, CA)
    assert not pki.fits(pair, pki.new_ca("test"))
    assert not pki.fits(pki.Pair(pair.certificate, other.key), CA)
    assert not pki.fits(pki.Pair(b"", pair.key), CA)
    assert not pki.fits(pki.Pair(pair.certificate, b"junk"), CA)


def test_requests_say_who_and_where() -> None:
    key = pki.new_key()
    pem = pki.new_request(key, "system:node:n", ("system:nodes",), ("n", "10.0.0.1"))
    id = pki.key_id(key)
    assert pki.read_request(pem) == pki.Request("system:node:n", ("system:nodes",), ("n",), ("10.0.0.1",), id)
    assert pki.read_request(pki.new_request(key, "a")) == pki.Request("a", (), (), (), id)
    assert pki.key_id(pki.new_key()) != id
    signed = pki.issue(CA, "system:node:n", public_key_of=pem)
    assert signed.key == b""
    assert pki.fits(pki.Pair(signed.certificate, key), CA)
    assert pki.common_name(signed.certificate) == "system:node:n"


def test_a_leaf_may_be_for_a_key_that_is_there() -> None:
    key = pki.new_key()
    assert pki.issue(CA, "a", key=key).key == key
    assert pki.fits(pki.issue(CA, "a", key=key), CA)


def test_requests_that_are_none() -> None:
    good = x509.load_pem_x509_csr(pki.new_request(pki.new_key(), "a")).public_bytes(serialization.Encoding.DER)
    forged = good[:-1] + bytes([good[-1] ^ 1])
    import base64

    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.b64encode(forged) + b"\n-----END CERTIFICATE REQUEST-----\n"
    for text in (b"", b"junk", CA.certificate, pem):
        with pytest.raises(ValueError):
            pki.read_request(text)


def test_the_hash_is_that_of_kubeadm() -> None:
    """sha256 of the DER public key, as `kubeadm init` prints and openssl gives it."""
    key = loaded(CA.certificate).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert pki.ca_hash(CA.certificate) == hashlib.sha256(der).hexdigest()
    with pytest.raises(ValueError):
        pki.ca_hash(b"")


def test_private_files_are_private_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "pki" / "x.key"
    pki.write_private(file, b"one")
    file.chmod(0o644)
    pki.write_private(file, b"two")
    assert file.read_bytes() == b"two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(file.parent.iterdir()) == [file]


def test_a_tls_handshake_between_two_of_them(tmp_path: Path) -> None:
    for name, pair in {"ca": CA, "s": pki.issue(CA, "s", names=("localhost",), server=True, client=False)}.items():
        (tmp_path / f"{name}.crt").write_bytes(pair.certificate)
        (tmp_path / f"{name}.key").write_bytes(pair.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "s.crt", tmp_path / "s.key")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    for name, good in (("localhost", True), ("other", False)):
        a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
        here = client.wrap_bio(a, b, server_hostname=name)
        there = server.wrap_bio(b, a, server_side=True)
        error = None
        for _ in range(4):
            for side in (here, there):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as caught:  # one side refuses, the other is told
                    error = caught
            if error:
                break
        assert (error is None) is good
