"""Certificates of Secrets, looked at before nginx is: one bad Secret must not stop everybody's changes."""

from __future__ import annotations

import base64
import binascii

from minik8s.api.kinds.secret import Secret
from minik8s.client.informer import Informer
from minik8s.controllers.ingress_routes import Pair
from minik8s.pki import issue, new_ca

# What OpenSSL asks for at security level 2, the level of Debian and of most others.
LEAST_RSA, LEAST_CURVE = 2048, 224  # bits
WEAK_HASHES = ("md5", "sha1")
DEFAULT_DAYS = 3650.0


class Certificates:
    """`find` gives a Secret's pair, or says what is wrong; each version of a Secret is read once."""

    def __init__(self, secrets: Informer[Secret]) -> None:
        self.secrets = secrets
        self._read: dict[str, tuple[str, Pair | str]] = {}  # uid -> (resourceVersion, what it holds)
        secrets.on_change(self._forget)

    def _forget(self, old: Secret | None, new: Secret | None) -> None:
        if old is not None and new is None:
            self._read.pop(old.metadata.uid, None)

    def find(self, namespace: str, name: str) -> Pair | str:
        secret = self.secrets.get(namespace, name)
        if secret is None:
            return f"there is no Secret {namespace}/{name} of type kubernetes.io/tls"
        return self.read(secret)

    def read(self, secret: Secret) -> Pair | str:
        meta = secret.metadata
        known = self._read.get(meta.uid)
        if known is None or known[0] != meta.resourceVersion:
            known = self._read[meta.uid] = (meta.resourceVersion, _pair(secret))
        return known[1]


def _pair(secret: Secret) -> Pair | str:
    try:
        values = [base64.b64decode(secret.data.get(key, "")) for key in ("tls.crt", "tls.key")]
    except binascii.Error as error:
        return f"Secret {secret.key}: {error}"
    pair = Pair(*values)
    fault = fault_of(pair)
    return f"Secret {secret.key}: {fault}" if fault else pair


def fault_of(pair: Pair) -> str:
    """Why nginx would not take a pair, or ""."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        chain = x509.load_pem_x509_certificates(pair.certificate)
    except ValueError:
        return "tls.crt holds no PEM certificate"
    try:
        key = load_pem_private_key(pair.key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls.key holds no PEM key that can be read without a password"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        if chain[0].public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
            return "tls.key is not the key of the certificate tls.crt"
        return next((fault for each in chain if (fault := _weakness(each))), "")
    except (ValueError, UnsupportedAlgorithm) as error:
        return f"tls.crt: {error}"


def _weakness(certificate: object) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    assert isinstance(certificate, x509.Certificate)
    key = certificate.public_key()
    for kind, least in ((RSAPublicKey, LEAST_RSA), (EllipticCurvePublicKey, LEAST_CURVE)):
        if isinstance(key, kind) and key.key_size < least:
            return f"its key has {key.key_size} bits, OpenSSL asks for {least}"
    hash = certificate.signature_hash_algorithm
    if hash is not None and hash.name in WEAK_HASHES and certificate.issuer != certificate.subject:
        return f"it is signed with {hash.name}, which OpenSSL does not take"
    return ""


def self_signed() -> Pair:
    """A certificate that nobody trusts, for hosts without one."""
    ca = new_ca("minik8s ingress")
    leaf = issue(ca, "minik8s-ingress", names=["minik8s-ingress.invalid"], server=True, client=False, days=DEFAULT_DAYS)
    return Pair(leaf.certificate, leaf.key)
