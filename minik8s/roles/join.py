"""How a machine becomes a node: trust the master by the hash in the token, ask for certificates, keep them.

The steps, each with its own error: read the CA that the master shows, compare its key's hash with the token's (before
any secret is said), then over verified TLS present the token's secret and two certificate requests, and wait for them.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from minik8s import pki
from minik8s.api.errors import AlreadyExists, Forbidden, ServiceUnavailable, StatusError, Unauthorized
from minik8s.api.kinds.certificatesigningrequest import CertificateSigningRequest
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.meta import condition
from minik8s.apiserver.auth import NODE_PREFIX, NODES
from minik8s.client.base import Client
from minik8s.client.http import HttpTransport
from minik8s.config import Config
from minik8s.controllers.certificates import CLIENT_SIGNER, SERVING_SIGNER
from minik8s.log import get_logger
from minik8s.roles.identity import IdentityError, NodeIdentity, client_context, needs_renewal, read_node_identity

TOKEN = re.compile(r"(?P<id>[a-z0-9]{6})\.(?P<secret>[a-z0-9]{16})\.(?P<hash>[0-9a-f]{64})")
SIGNING_PATIENCE = 30.0  # seconds
log = get_logger("join")


class JoinError(IdentityError):
    """Joining failed; the message says why and what to do."""


class Token(NamedTuple):
    credential: str  # ID.SECRET
    ca_hash: str  # hex SHA-256


def parse_token(text: str) -> Token:
    match = TOKEN.fullmatch(text.strip())
    if match is None:
        raise JoinError(
            "the token is not complete: it reads ID.SECRET.HASH, as 'minik8s token create' on the master prints it"
        )
    return Token(f"{match['id']}.{match['secret']}", match["hash"])


async def join(config: Config) -> NodeIdentity:
    """The identity of this node in the cluster of `config.join`; what an earlier join has left is used again.

    Raises JoinError.
    """
    identity = read_node_identity(config)
    state = standing(identity, (config.name, config.ip), time.time())
    if state == "good":
        return identity
    if state == "stale":
        await _request_certificates(config, identity, client_context(identity.ca_file, identity.client), "")
        return identity
    if not config.token:
        why = "this machine is not a node yet" if state == "new" else "the certificate of this node has expired"
        raise JoinError(f"{why}: give it a --token, made by 'minik8s token create' on the master")
    token = parse_token(config.token)
    identity.ca_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca = await _trusted_ca(config, token)
    pki.write_private(identity.ca_file, ca)
    await _request_certificates(config, identity, client_context(identity.ca_file, None), token.credential)
    return identity


Standing = Literal["new", "good", "stale", "expired"]


def standing(identity: NodeIdentity, names: Sequence[str], now: float) -> Standing:
    """What an earlier join has left: nothing that is whole (`new`), certificates that are good, such as the node may
    renew by itself (`stale`), or that the master would not take any more (`expired`)."""
    try:
        ca = pki.Pair(identity.ca_file.read_bytes(), b"")
        client, serving = (
            pki.Pair(certificate.read_bytes(), key.read_bytes())
            for certificate, key in (identity.client, identity.serving)
        )
    except FileNotFoundError:
        return "new"
    if not pki.fits(client, ca):
        return "new"
    if pki.lifetime(client.certificate)[1] <= now:
        return "expired"
    stale = needs_renewal(client.certificate, now) or not pki.fits(serving, ca)
    return "stale" if stale or needs_renewal(serving.certificate, now, names) else "good"


async def _trusted_ca(config: Config, token: Token) -> bytes:
    """The master's CA, if it is the one that the token's maker meant. Nothing secret is sent."""
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    async with HttpTransport(config.server, unverified) as transport:
        try:
            info = await Client(transport).get(ConfigMap, "cluster-info", "kube-public")
        except ServiceUnavailable as error:
            raise JoinError(
                f"no master answers at {config.server}: {error}; check the address, the port and firewalls"
            ) from None
        except StatusError as error:
            raise JoinError(f"{config.server} is not a minik8s master: {error}") from None
    ca = info.data.get("ca.crt", "").encode()
    try:
        found = pki.ca_hash(ca)
    except ValueError:
        raise JoinError(f"{config.server} showed no certificate authority") from None
    if found != token.ca_hash:
        raise JoinError(
            f"{config.server} is not the master that this token is for: its CA's hash is {found[:16]}…, "
            f"the token says {token.ca_hash[:16]}…; nothing was sent to it"
        )
    return ca


async def _request_certificates(
    config: Config, identity: NodeIdentity, context: ssl.SSLContext, credential: str
) -> None:
    user = NODE_PREFIX + config.name
    names = sorted({config.name, config.ip, "localhost", "127.0.0.1"})
    async with HttpTransport(config.server, context, token=credential) as transport:
        client = Client(transport)
        try:
            for signer, (certificate, key), wanted in (
                (CLIENT_SIGNER, identity.client, ()),
                (SERVING_SIGNER, identity.serving, tuple(names)),
            ):
                private = pki.new_key()
                request = pki.new_request(private, user, (NODES,), wanted)
                issued = await _signed(client, signer, request, f"{config.name}-{identity.uid[:8]}")
                pki.write_private(key, private)
                pki.write_private(certificate, issued)
        except Unauthorized as error:
            raise JoinError(f"the master refused the token: {error}") from None
        except Forbidden as error:
            raise JoinError(f"the master does not let this token join nodes: {error}") from None
        except ServiceUnavailable as error:
            raise JoinError(f"lost the master at {config.server}: {error}") from None


async def _signed(client: Client, signer: str, request: bytes, stem: str) -> bytes:
    usage = "server auth" if signer == SERVING_SIGNER else "client auth"
    document = {
        "metadata": {"generateName": f"{stem}-"},
        "spec": {
            "request": pki.b64(request),
            "signerName": signer,
            "usages": ["digital signature", "key encipherment", usage],
        },
    }
    try:
        made = await client.create(CertificateSigningRequest, document)
    except AlreadyExists:  # two names drawn alike: once more
        made = await client.create(CertificateSigningRequest, document)
    deadline = time.monotonic() + SIGNING_PATIENCE
    while time.monotonic() < deadline:
        now = await client.get(CertificateSigningRequest, made.metadata.name)
        denied = condition(now.status.conditions, "Denied") or condition(now.status.conditions, "Failed")
        if denied:
            raise JoinError(f"the master denied this node's certificate: {denied.message}")
        if now.status.certificate:
            return base64.b64decode(now.status.certificate)
        await asyncio.sleep(0.1)
    raise JoinError(
        f"the master did not sign this node's certificate within {SIGNING_PATIENCE:.0f} s; "
        f"see 'kubectl describe csr {made.metadata.name}' there"
    )
