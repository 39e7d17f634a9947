"""Which cluster, and as whom: kubeconfig files as kubectl reads them, with minik8s's own as the last resort."""

from __future__ import annotations

import base64
import json
import os
import ssl
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from minik8s.cli.wire import ANSWER_TIMEOUT, Credentials, Unreachable, Wire

if TYPE_CHECKING:
    from minik8s.cli.discovery import Kinds

Json = dict[str, Any]
DATA_DIR = "/var/lib/minik8s"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Choice(NamedTuple):
    """What the options say; "" where they say nothing."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    server: str = ""
    token: str = ""


DEFAULT = Choice()


class Cluster:
    """One cluster as one user. Nothing is read or connected before it is needed."""

    def __init__(self, choice: Choice = DEFAULT, *, timeout: float = ANSWER_TIMEOUT) -> None:
        self.choice = choice
        self._timeout = timeout

    @cached_property
    def _entry(self) -> Entry:
        return find_entry(self.choice)

    @cached_property
    def namespace(self) -> str:
        return self.choice.namespace or self._entry.namespace or "default"

    @cached_property
    def credentials(self) -> Credentials:
        return credentials(self._entry)

    @cached_property
    def wire(self) -> Wire:
        return Wire(self.credentials, timeout=self._timeout)

    @cached_property
    def kinds(self) -> Kinds:
        from minik8s.cli.discovery import Kinds

        return Kinds(self.wire)


class NoCluster(click.ClickException):
    """Nothing says which cluster to speak with."""


class Entry(NamedTuple):
    """A context of a kubeconfig, resolved. Paths are relative to `folder`."""

    cluster: Json
    user: Json
    namespace: str
    folder: Path


def server_version() -> str:
    """The server's gitVersion; "" when it cannot be reached."""
    try:
        return str(Cluster(timeout=3).wire.get("/version").get("gitVersion", ""))
    except click.ClickException:
        return ""


def find_entry(choice: Choice, environment: Mapping[str, str] = os.environ) -> Entry:
    """The context to use; a ClickException when there is none, saying where it was looked for."""
    files = config_files(choice, environment)
    documents = [(path, read_config(path)) for path in files if choice.kubeconfig or path.exists()]
    named = _merged(documents)
    wanted = choice.context or next((str(d["current-context"]) for _, d in documents if d.get("current-context")), "")
    if choice.context and choice.context not in named["context"]:
        known = ", ".join(named["context"]) or "none"
        raise click.ClickException(f'there is no context "{choice.context}"; there are: {known}')
    folder, context = named["context"].get(wanted, (Path(), {}))
    folder, cluster = named["cluster"].get(context.get("cluster", ""), (folder, {}))
    user_folder, user = named["user"].get(context.get("user", ""), (folder, {}))
    user = _absolute(user, user_folder)
    if choice.server:
        cluster = {**cluster, "server": choice.server}
    if choice.token:
        user = {"token": choice.token}
    if not cluster.get("server") and (inside := _inside_a_pod(environment)):
        return inside
    if not cluster.get("server"):
        hint = '"minik8s init" makes one, --kubeconfig FILE names another'
        if any((file.parent / "node").is_dir() for file in files):
            hint = "this machine is a node; name a copy of the master's admin.kubeconfig by --kubeconfig FILE"
        raise NoCluster(f"no cluster to speak with (looked in {', '.join(map(str, files))}): {hint}")
    return Entry(cluster, user, str(context.get("namespace", "")), folder)


def config_files(choice: Choice, environment: Mapping[str, str]) -> list[Path]:
    """The files to read, the first that says something about a name winning."""
    if choice.kubeconfig:
        return [Path(choice.kubeconfig)]
    if environment.get("KUBECONFIG"):
        return [Path(part) for part in environment["KUBECONFIG"].split(os.pathsep) if part]
    own = Path(environment.get("MINIK8S_DATA_DIR") or DATA_DIR) / "admin.kubeconfig"
    home = Path(environment.get("HOME") or "~").expanduser() / ".kube" / "config"
    return [home] if home.exists() else [own]


def read_config(path: Path) -> Json:
    try:
        text = path.read_text()
    except OSError as error:
        raise click.ClickException(f"the kubeconfig {path} cannot be read: {error.strerror}") from None
    try:
        document = json.loads(text)  # minik8s writes JSON, which is 40 ms quicker to read
    except ValueError:
        from minik8s.cli.yaml_read import YamlError, load

        try:
            document = load(text, str(path))
        except YamlError as error:
            raise click.ClickException(f"the kubeconfig is broken: {error}") from None
    if not isinstance(document, dict):
        raise click.ClickException(f"{path} is no kubeconfig")
    return document


def _merged(documents: list[tuple[Path, Json]]) -> dict[str, dict[str, tuple[Path, Json]]]:
    """context | cluster | user -> name -> (folder of its file, content)."""
    named: dict[str, dict[str, tuple[Path, Json]]] = {"context": {}, "cluster": {}, "user": {}}
    for path, document in documents:
        for what, found in named.items():
            for item in document.get(f"{what}s") or ():
                found.setdefault(str(item.get("name")), (path.parent, item.get(what) or {}))
    return named


def _absolute(user: Json, folder: Path) -> Json:
    keys = ("client-certificate", "client-key", "tokenFile")
    return {**user, **{key: str(folder / user[key]) for key in keys if user.get(key)}}


def _inside_a_pod(environment: Mapping[str, str]) -> Entry | None:
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (SERVICE_ACCOUNT / "token").exists():
        return None
    cluster = {"server": f"https://{host}:{port}", "certificate-authority": str(SERVICE_ACCOUNT / "ca.crt")}
    user = {"tokenFile": str(SERVICE_ACCOUNT / "token")}
    return Entry(cluster, user, (SERVICE_ACCOUNT / "namespace").read_text().strip(), SERVICE_ACCOUNT)


def credentials(entry: Entry) -> Credentials:
    """TLS and headers for an entry. Ways to log in that we do not know are refused by name."""
    user, server = entry.user, str(entry.cluster["server"])
    if "://" not in server:
        server = f"https://{server}"
    for key in ("exec", "auth-provider"):
        if user.get(key):
            raise click.ClickException(f"the kubeconfig's user logs in by {key}, which minik8s cannot: use kubectl")
    headers = {}
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password', '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    try:
        token = user.get("token") or (Path(user["tokenFile"]).read_text().strip() if user.get("tokenFile") else "")
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return Credentials(server, _tls(entry) if server.startswith("https:") else None, headers)
    except (OSError, ValueError) as error:
        raise Unreachable(f"the kubeconfig's credentials for {server} cannot be used: {error}") from None


def _tls(entry: Entry) -> ssl.SSLContext:
    cluster, user = entry.cluster, entry.user
    authority = _decoded(cluster.get("certificate-authority-data"))
    file = cluster.get("certificate-authority")
    context = ssl.create_default_context(
        cadata=authority.decode() if authority else None, cafile=str(entry.folder / file) if file else None
    )
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _decoded(user.get("client-certificate-data")), _decoded(user.get("client-key-data"))
    if certificate and key:
        _load_pair(context, certificate + b"\n" + key)
    elif user.get("client-certificate"):
        context.load_cert_chain(user["client-certificate"], user.get("client-key"))
    return context


def _load_pair(context: ssl.SSLContext, pem: bytes) -> None:
    """OpenSSL reads files only: one in memory where the kernel has that, else one that only we can read."""
    if hasattr(os, "memfd_create"):
        with suppress(FileNotFoundError), os.fdopen(os.memfd_create("client"), "wb") as memory:
            memory.write(pem)
            memory.flush()
            context.load_cert_chain(f"/proc/self/fd/{memory.fileno()}")
            return
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)


def _decoded(data: Any) -> bytes:
    return base64.b64decode(data) if data else b""
