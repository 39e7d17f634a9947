"""What somebody logs in with: a bearer token, or a kubeconfig whose user has a token or a certificate.

Of a kubeconfig only the user counts: the dashboard speaks to its own API server, whatever servers the file names.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import ssl
from typing import Any, NamedTuple

from minik8s.api.errors import BadRequest

LONGEST = 256 * 1024  # characters of a kubeconfig
# Reading YAML takes its time with depth and with lines, and whoever reaches the port may send some.
MOST_LINES, MOST_BRACKETS = 3000, 100
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
REMEDY = "'kubectl config view --raw --flatten --minify' writes a kubeconfig that has all in it"


class Login(NamedTuple):
    """Either a token or a certificate with its key (PEM)."""

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""


def read(text: str) -> Login:
    """A token or a kubeconfig, as pasted. Raises BadRequest, saying what is missing. Slow: to be called in a thread."""
    text = text.strip()
    if not text or len(text) > LONGEST:
        raise BadRequest("paste a token or a kubeconfig")
    if TOKEN.fullmatch(text):
        return Login(token=text)
    user = _user(_document(text))
    for key in ("exec", "auth-provider", "tokenFile", "client-certificate", "client-key"):
        if user.get(key):
            raise BadRequest(f"the kubeconfig's user has {key}, which lies on your machine: {REMEDY}")
    if token := user.get("token"):
        if not TOKEN.fullmatch(str(token)):
            raise BadRequest("the kubeconfig's token is broken")
        return Login(token=str(token))
    try:
        certificate = base64.b64decode(user["client-certificate-data"], validate=True)
        key_pem = base64.b64decode(user["client-key-data"], validate=True)
    except (KeyError, TypeError, binascii.Error):
        raise BadRequest(
            f"the kubeconfig's user has neither a token nor a certificate with its key: {REMEDY}"
        ) from None
    return Login(certificate=certificate, key=key_pem)


def _document(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not text.startswith("{") and (text.count("\n") > MOST_LINES or sum(map(text.count, "[{")) > MOST_BRACKETS):
        raise BadRequest(f"this is neither a token nor a kubeconfig of a sensible size: {REMEDY}")
    try:
        document = json.loads(text) if text.startswith("{") else YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError):
        raise BadRequest("this is neither a token nor a kubeconfig: it is not YAML") from None
    if not isinstance(document, dict):
        raise BadRequest("this is neither a token nor a kubeconfig")
    return document


def _user(document: dict[str, Any]) -> dict[str, Any]:
    """The user of the current context, or the only one."""
    contexts, users = _named(document, "context"), _named(document, "user")
    context = contexts.get(document.get("current-context"), {})
    user = users.get(context.get("user")) or (next(iter(users.values())) if len(users) == 1 else None)
    if user is None:
        raise BadRequest("the kubeconfig's current context names no user of it")
    return user


def _named(document: dict[str, Any], what: str) -> dict[Any, dict[str, Any]]:
    items = document.get(f"{what}s")
    pairs = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return {item.get("name"): item[what] for item in pairs if isinstance(item.get(what), dict)}


def context(login: Login, ca: str) -> ssl.SSLContext:
    """TLS that trusts the cluster's CA (a file) and shows the user's certificate. Raises BadRequest if that is none."""
    made = ssl.create_default_context(cafile=ca)
    if login.certificate:
        # OpenSSL reads keys from files only; this one is in memory and gone when it is closed.
        with os.fdopen(os.memfd_create("login"), "wb") as memory:
            memory.write(login.certificate + b"\n" + login.key)
            memory.flush()
            try:
                made.load_cert_chain(f"/proc/self/fd/{memory.fileno()}", password=lambda: b"")
            except (OSError, ValueError):  # ssl.SSLError is an OSError
                raise BadRequest("the kubeconfig's certificate or key is broken, or they are not a pair") from None
    return made
