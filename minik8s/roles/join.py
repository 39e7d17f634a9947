"""How a machine becomes a node: trust the master by the hash in the token, ask for certificates, keep them.

The steps, each with its own error: read the CA that the master shows, compare its key's hash with the token's (before
any secret is said), then over verified TLS present the token's secret and two certificate requests, and wait for them.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import re
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from minik8s import pki
from minik8s.api.errors import AlreadyExists, Forbidden, ServiceUnavailable, StatusError, Unauthorized
from minik8s.api.kinds.certificatesigningrequest import CertificateSigningRequest
from minik8s.api.meta import condition
from minik8s.apiserver.auth import NODE_PREFIX, NODES
from minik8s.client.base import Client
from minik8s.client.http import HttpTransport
from minik8s.clock import Clock, system_clock
from minik8s.config import Config
from minik8s.controllers.certificates import CLIENT_SIGNER, SERVING_SIGNER
from minik8s.roles.contact import JoinError, first_contact, skew, untrusted
from minik8s.roles.identity import (
    NodeIdentity,
    client_context,
    needs_renewal,
    node_names,
    read_node_identity,
    usable_key,
)

TOKEN = re.compile(r"(?P<id>[a-z0-9]{6})\.(?P<secret>[a-z0-9]{16})\.(?P<hash>[0-9a-f]{64})")
SIGNING_PATIENCE = 30.0  # seconds


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


async def join(config: Config, *, clock: Clock = system_clock) -> NodeIdentity:
    """The identity of this node in the cluster of `config.join`; what an earlier join has left is used again.

    Certificates that are only old are left to be renewed while the node runs: the master may be away. Raises JoinError.
    """
    identity = read_node_identity(config)
    state = standing(identity, node_names(config), clock())
    if state != "new":
        _check_same(config, identity)
    if state in ("good", "stale"):
        return identity
    if state == "half":
        await renew(config)
        return identity
    if not config.token:
        why = "this machine is not a node yet" if state == "new" else "the certificate of this node has expired"
        raise JoinError(f"{why}: give it a --token, made by 'minik8s token create' on the master")
    token = parse_token(config.token)
    _check_address(config)
    ca = await _trusted_ca(config, token, clock)
    pki.write_private(identity.ca_file, ca)
    await _request(config, identity, CLIENT_SIGNER, token.credential)
    await _request(config, identity, SERVING_SIGNER)
    return identity


def _check_address(config: Config) -> None:
    """A set address that this machine has not would make a node that nobody reaches."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((config.ip, 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise JoinError(
                    f"no link of this machine has the address {config.ip}: set --node-ip to one that 'ip address' shows"
                ) from None


async def renew(config: Config) -> None:
    """Ask for new certificates with the one that this node has, if it is time for that, or its names have changed.

    Raises JoinError.
    """
    identity = read_node_identity(config)
    match standing(identity, node_names(config), system_clock()):
        case "stale" | "half":
            await _request(config, identity, CLIENT_SIGNER)
            await _request(config, identity, SERVING_SIGNER)
        case "new" | "expired":
            raise JoinError(
                "the certificate of this node has expired, or is lost: make a token on the master with 'minik8s token "
                "create', then stop this agent and run 'minik8s join' again"
            )


def _check_same(config: Config, identity: NodeIdentity) -> None:
    """Whoever joins with a token means the cluster of the token; and a node keeps its name."""
    try:
        held = pki.ca_hash(identity.ca_file.read_bytes())
    except (OSError, ValueError):
        return
    if config.token and parse_token(config.token).ca_hash != held:
        raise JoinError("this machine is a node of another cluster: run 'minik8s leave' or 'minik8s reset' first")
    name = pki.common_name(identity.client[0].read_bytes()).removeprefix(NODE_PREFIX)
    if name != config.name:
        raise JoinError(
            f"this machine has joined as node {name!r}: give it --node-name {name}, or 'minik8s leave' before it joins "
            f"as {config.name!r}"
        )


Standing = Literal["new", "good", "stale", "half", "expired"]


def standing(identity: NodeIdentity, names: Sequence[str], now: float) -> Standing:
    """What an earlier join has left: nothing that is whole (`new`), certificates that are good, such as may be used but
    should be renewed (`stale`), a client's alone (`half`), or what the master would not take any more (`expired`)."""
    try:
        ca = pki.Pair(identity.ca_file.read_bytes(), b"")
        client = pki.Pair(identity.client[0].read_bytes(), identity.client[1].read_bytes())
    except FileNotFoundError:
        return "new"
    if not pki.fits(client, ca):
        return "new"
    if pki.lifetime(client.certificate)[1] <= now:
        return "expired"
    try:
        serving = pki.Pair(identity.serving[0].read_bytes(), identity.serving[1].read_bytes())
    except FileNotFoundError:
        return "half"
    if not pki.fits(serving, ca):
        return "half"
    stale = needs_renewal(client.certificate, now) or needs_renewal(serving.certificate, now, names)
    return "stale" if stale else "good"


async def _trusted_ca(config: Config, token: Token, clock: Clock) -> bytes:
    """The master's CA, if it is the one that the token's maker meant. Nothing secret is sent."""
    contact = await asyncio.to_thread(first_contact, config.server)
    try:
        found = pki.ca_hash(contact.ca)
    except ValueError:
        raise JoinError(f"{config.server} showed no certificate authority") from None
    if found != token.ca_hash:
        raise JoinError(
            f"{config.server} is not the master that this token is for: its CA's hash is {found[:16]}…, "
            f"the token says {token.ca_hash[:16]}…; nothing was sent to it"
        )
    if contact.time is not None and (wrong := skew(clock(), contact.time)):
        raise JoinError(wrong)
    return contact.ca


async def _request(config: Config, identity: NodeIdentity, signer: str, credential: str = "") -> None:
    """Get a certificate and write it down, known by `credential`, or else by the client certificate that is there."""
    serving = signer == SERVING_SIGNER
    certificate, key = identity.serving if serving else identity.client
    private = usable_key(key)
    pki.write_private(key, private)
    wanted = node_names(config) if serving else ()
    request = pki.new_request(private, NODE_PREFIX + config.name, (NODES,), wanted)
    context = client_context(identity.ca_file, None if credential else identity.client)
    async with HttpTransport(config.server, context, token=credential) as transport:
        try:
            issued = await _signed(Client(transport), signer, request, f"{config.name}-{identity.uid[:8]}")
        except Unauthorized as error:
            raise JoinError(f"the master refused the token: {error}") from None
        except Forbidden as error:
            raise JoinError(f"the master does not let this token join nodes: {error}") from None
        except ServiceUnavailable as error:
            reason = error.__cause__.__cause__ if error.__cause__ is not None else None
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise JoinError(untrusted(config.server, reason)) from None
            raise JoinError(f"lost the master at {config.server}: {error}") from None
        except StatusError as error:
            raise JoinError(f"the master does not give this node a certificate: {error}") from None
    pki.write_private(certificate, issued)


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
