"""Keys and certificates: a CA of our own, short-lived leaves, and the hash by which a stranger may trust the CA.

Keys are ECDSA P-256: small, and a handshake costs a fifth of RSA's. `cryptography` is imported inside the functions,
so that an agent that only serves never pays for what it does not issue.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

DAY = 86400
CA_DAYS = 3650
LEAF_DAYS = 365
BACKDATE = 300  # seconds; clocks of joining machines may be a little behind
SHORT = 8 * 3600  # seconds; a shorter life is not begun before now, or most of it would be over: as upstream's signer


class Pair(NamedTuple):
    """A certificate and its private key, PEM."""

    certificate: bytes
    key: bytes


class Request(NamedTuple):
    """What a certificate signing request asks for."""

    common_name: str
    organizations: tuple[str, ...]
    dns_names: tuple[str, ...]
    addresses: tuple[str, ...]
    key_id: str = ""  # of the key that has signed it


def new_key() -> bytes:
    """A fresh private key, PEM (PKCS#8)."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def new_ca(common_name: str) -> Pair:
    """A self-signed CA that may sign leaves only."""
    from cryptography import x509

    key = _load_key(new_key())
    subject = _name(common_name, ())
    builder = _builder(subject, subject, key.public_key(), CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return Pair(_sign(builder, key), _key_pem(key))


def issue(
    ca: Pair,
    common_name: str,
    *,
    organizations: Sequence[str] = (),
    names: Sequence[str] = (),
    server: bool = False,
    client: bool = True,
    days: float = LEAF_DAYS,
    public_key_of: bytes | None = None,
    key: bytes | None = None,
) -> Pair:
    """A leaf signed by `ca`, for `key` or a fresh one. `names` are DNS names and addresses.

    With `public_key_of` (a PEM request) the key is the requestor's, and that of the answer is b"".
    """
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    issuer, issuer_key = x509.load_pem_x509_certificate(ca.certificate), _load_key(ca.key)
    if public_key_of is None:
        private = key or new_key()
        public = _load_key(private).public_key()
    else:
        public, private = x509.load_pem_x509_csr(public_key_of).public_key(), b""  # type: ignore[assignment]
    builder = _builder(_name(common_name, organizations), issuer.subject, public, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = builder.add_extension(authority, critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False)
    return Pair(_sign(builder, issuer_key), private)


def new_request(key: bytes, common_name: str, organizations: Sequence[str] = (), names: Sequence[str] = ()) -> bytes:
    """A PKCS#10 request, PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name, organizations))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False)
    return builder.sign(_load_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_request(pem: bytes) -> Request:
    """What a request asks for; ValueError if it is none, is odd, or its signature is wrong."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509.oid import NameOID

    dns: list[str] = []
    addresses: list[str] = []
    try:
        request = x509.load_pem_x509_csr(pem)
        if not request.is_signature_valid:
            raise ValueError("the request's signature does not fit its key")
        alternative = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = alternative.get_values_for_type(x509.DNSName)
        addresses = [str(a) for a in alternative.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        pass
    except (UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise ValueError(f"the request cannot be read: {error}") from None
    return Request(
        _attribute(request.subject, NameOID.COMMON_NAME),
        tuple(str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
        tuple(dns),
        tuple(addresses),
        _fingerprint(request.public_key()),
    )


def lifetime(certificate: bytes) -> tuple[float, float]:
    """Not before and not after, Unix seconds."""
    from cryptography import x509

    loaded = x509.load_pem_x509_certificate(certificate)
    return loaded.not_valid_before_utc.timestamp(), loaded.not_valid_after_utc.timestamp()


def common_name(certificate: bytes) -> str:
    """Whom a certificate is for."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return _attribute(x509.load_pem_x509_certificate(certificate).subject, NameOID.COMMON_NAME)


def names_of(certificate: bytes) -> set[str]:
    """The DNS names and addresses that a server certificate speaks for."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return set()
    return set(found.value.get_values_for_type(x509.DNSName)) | {
        str(a) for a in found.value.get_values_for_type(x509.IPAddress)
    }


def ca_hash(certificate: bytes) -> str:
    """SHA-256 of the public key (DER SubjectPublicKeyInfo), hex: kubeadm's discovery-token-ca-cert-hash."""
    from cryptography import x509

    return _fingerprint(x509.load_pem_x509_certificate(certificate).public_key())


def key_id(key: bytes) -> str:
    """The same of a private key: who holds it, whatever name and address it bears. ValueError: broken."""
    return _fingerprint(_load_key(key).public_key())


def _fingerprint(public: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def fits(pair: Pair, ca: Pair) -> bool:
    """Whether the key is that of the certificate, and the certificate was signed by this CA; False for broken files."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate))
        return bool(certificate.public_key() == _load_key(pair.key).public_key())
    except (ValueError, TypeError, InvalidSignature):
        return False


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _load_key(pem: bytes) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(pem, None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError("the private key is not an elliptic-curve key")
    return key


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _builder(subject: x509.Name, issuer: x509.Name, public_key: object, days: float) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=BACKDATE if days * DAY > SHORT else 0))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)  # type: ignore[arg-type]
    )


def _sign(builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import hashes, serialization

    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(common_name: str, organizations: Sequence[str]) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _attribute(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    return next((str(attribute.value) for attribute in name.get_attributes_for_oid(oid)), "")
