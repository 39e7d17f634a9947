"""Who this machine is: the files of keys and certificates below DATA/pki and DATA/node, made once and renewed.

A master has the CA, the API server's certificate, the key of ServiceAccount tokens, and `admin.kubeconfig`.
A node has a certificate as `system:node:NAME` and one for its kubelet's server. Its identity is its key, not its
address: certificates are made anew when names or addresses have changed, two thirds of their life are over, or they do
not fit their key or CA. A key stays, so that a renewal replaces one file and no reader sees halves of two pairs.
All functions here may be called again at any time: renewal.py does, while the agent runs.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from minik8s import pki
from minik8s.apiserver.auth import MASTERS, NODE_PREFIX, NODES
from minik8s.clock import Clock, system_clock
from minik8s.config import Config

RENEW_AT = 2 / 3  # of a certificate's life
KUBELET_CLIENT = "apiserver-kubelet-client"
Files = tuple[Path, Path]  # a certificate and its key


class IdentityError(Exception):
    """Keys are missing or broken and must not be replaced silently; the message says what to do."""


@dataclass(frozen=True)
class MasterIdentity:
    ca: pki.Pair
    service_account_key: bytes
    ca_file: Path
    serving: Files
    kubelets: Files  # what the API server shows to kubelets
    admin: Files

    @property
    def certificates(self) -> tuple[Path, ...]:
        return self.serving[0], self.kubelets[0], self.admin[0]


@dataclass(frozen=True)
class NodeIdentity:
    name: str
    uid: str
    ca_file: Path
    client: Files
    serving: Files

    @property
    def certificates(self) -> tuple[Path, ...]:
        return self.client[0], self.serving[0]

    @property
    def key_id(self) -> str:
        """By which the master knows this machine again, whatever its address. "" while there is no key."""
        try:
            return pki.key_id(self.client[1].read_bytes())
        except (OSError, ValueError):
            return ""


def master_identity(config: Config, *, clock: Clock = system_clock) -> MasterIdentity:
    """Load the master's keys, making what is missing, and write `admin.kubeconfig`. Raises IdentityError."""
    folder = config.path("pki")
    ca = _ca(folder)
    key = _secret(folder / "sa.key", pki.new_key)
    names = {
        "kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", config.name,
        f"kubernetes.default.svc.{config.cluster_domain}", config.kubernetes_ip, config.ip, config.advertised,
    }  # fmt: skip
    listen, _ = config.listen_address
    names |= {listen} - {"", "0.0.0.0", "::"}
    signer = _Signer(ca, config.cluster_signing_duration, clock)
    signer.serving(folder / "apiserver", "kube-apiserver", sorted(names))
    signer.client(folder / "admin", "kubernetes-admin", MASTERS)
    signer.client(folder / KUBELET_CLIENT, "kube-apiserver-kubelet-client", MASTERS)
    write_kubeconfig(
        config.path("admin.kubeconfig"),
        config.server,
        ca.certificate,
        _read_pair(folder, "admin"),
        user="kubernetes-admin",
    )
    return MasterIdentity(
        ca, key, folder / "ca.crt",
        serving=_files(folder / "apiserver"), kubelets=_files(folder / KUBELET_CLIENT), admin=_files(folder / "admin"),
    )  # fmt: skip


def local_node_identity(config: Config, ca: pki.Pair, *, clock: Clock = system_clock) -> NodeIdentity:
    """The identity of a node that lives in the master's own process: signed on the spot."""
    folder = config.path("node")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pki.write_private(folder / "ca.crt", ca.certificate)
    signer = _Signer(ca, config.cluster_signing_duration, clock)
    signer.client(folder / "client", NODE_PREFIX + config.name, NODES)
    signer.serving(folder / "kubelet", NODE_PREFIX + config.name, node_names(config), NODES)
    return read_node_identity(config)


def node_names(config: Config) -> list[str]:
    """What a kubelet's certificate speaks for."""
    return sorted({config.name, config.ip, "localhost", "127.0.0.1"})


def read_node_identity(config: Config) -> NodeIdentity:
    """What is in DATA/node."""
    folder = config.path("node")
    uid = _secret(folder / "uid", lambda: _new_uid().encode()).decode().strip()
    return NodeIdentity(config.name, uid, folder / "ca.crt", _files(folder / "client"), _files(folder / "kubelet"))


def needs_renewal(certificate: bytes, now: float, names: Sequence[str] = ()) -> bool:
    """Has the certificate lived two thirds of its life, or does it not speak for one of `names`? ValueError: broken."""
    return now > renewal_due(certificate) or not set(names) <= (pki.names_of(certificate) if names else set())


def renewal_due(certificate: bytes) -> float:
    """Unix seconds. ValueError: broken."""
    begin, end = pki.lifetime(certificate)
    return begin + (end - begin) * RENEW_AT


def usable_key(path: Path) -> bytes:
    """The key in the file, or a fresh one where there is none that can be read."""
    try:
        key = path.read_bytes()
        pki.key_id(key)
    except (OSError, ValueError):
        return pki.new_key()
    return key


def write_kubeconfig(path: Path, server: str, ca: bytes, pair: pki.Pair, *, user: str) -> None:
    """A kubeconfig (mode 0600) for one user of this cluster, as JSON, which is YAML."""
    cluster = {"server": server, "certificate-authority-data": pki.b64(ca)}
    credentials = {"client-certificate-data": pki.b64(pair.certificate), "client-key-data": pki.b64(pair.key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "minik8s", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "minik8s", "context": {"cluster": "minik8s", "user": user}}],
        "current-context": "minik8s",
    }
    pki.write_private(path, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def server_context(serving: Files, ca_file: Path) -> ssl.SSLContext:
    """TLS for a server that knows clients by certificates of our CA, and lets those without one in (as anonymous)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*serving)
    context.load_verify_locations(ca_file)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(ca_file: Path, client: Files | None) -> ssl.SSLContext:
    """TLS for a client that trusts our CA alone, with its certificate if it has one."""
    context = ssl.create_default_context(cafile=str(ca_file))
    if client is not None:
        context.load_cert_chain(*client)
    return context


class _Signer(NamedTuple):
    """Makes `STEM.crt` and `STEM.key`, unless they are there and good for a while."""

    ca: pki.Pair
    seconds: float
    clock: Clock

    def client(self, stem: Path, common_name: str, organization: str) -> None:
        self._leaf(stem, common_name, (organization,), ())

    def serving(self, stem: Path, common_name: str, names: Sequence[str], *organizations: str) -> None:
        self._leaf(stem, common_name, organizations, names)

    def _leaf(self, stem: Path, common_name: str, organizations: Sequence[str], names: Sequence[str]) -> None:
        certificate, key = _files(stem)
        if certificate.exists() and key.exists():
            held = pki.Pair(certificate.read_bytes(), key.read_bytes())
            if pki.fits(held, self.ca) and not needs_renewal(held.certificate, self.clock(), names):
                return
        pair = pki.issue(
            self.ca,
            common_name,
            organizations=organizations,
            names=names,
            server=bool(names),
            client=not names,
            days=self.seconds / pki.DAY,
            key=usable_key(key),
        )
        pki.write_private(key, pair.key)
        pki.write_private(certificate, pair.certificate)


def _files(stem: Path) -> Files:
    return stem.with_name(stem.name + ".crt"), stem.with_name(stem.name + ".key")


def _ca(folder: Path) -> pki.Pair:
    """The cluster's CA. A new one would lock all nodes out, so it is made only where there has been none."""
    certificate, key = folder / "ca.crt", folder / "ca.key"
    if not certificate.exists():  # the key is written first: alone, it is what a cut start has left
        if any(folder.glob("*.crt")):
            raise IdentityError(f"{certificate} is missing: put it back from a backup, or 'minik8s reset' the cluster")
        pair = pki.new_ca("minik8s")
        pki.write_private(key, pair.key)
        pki.write_private(certificate, pair.certificate)
    if not key.exists():
        raise IdentityError(f"{key} is missing: put it back from a backup, or 'minik8s reset' the cluster")
    pair = _read_pair(folder, "ca")
    if not pki.fits(pair, pair):
        raise IdentityError(f"{certificate} and {key} are broken, or not a pair: put them back from a backup")
    return pair


def _read_pair(folder: Path, stem: str) -> pki.Pair:
    return pki.Pair((folder / f"{stem}.crt").read_bytes(), (folder / f"{stem}.key").read_bytes())


def _secret(path: Path, make: Callable[[], bytes]) -> bytes:
    if not path.exists():
        pki.write_private(path, make())
    return path.read_bytes()


def _new_uid() -> str:
    import uuid

    return str(uuid.uuid4())
