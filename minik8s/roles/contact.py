"""The first word with a master: who answers at an address, which CA does it show, and what time is it there?

Nothing secret is said, nothing is believed, and whatever is in the way is told at once, with its remedy.
"""

from __future__ import annotations

import json
import socket
import ssl
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from typing import Any, NamedTuple

from minik8s.config import split_address
from minik8s.pki import BACKDATE
from minik8s.roles.identity import IdentityError

PATIENCE = 5.0  # seconds for a master to accept, and again to answer
PATH = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
CLOCKS = "set it right, e.g. 'timedatectl set-ntp true', and join again"


class JoinError(IdentityError):
    """Joining failed; the message says why and what to do."""


class Contact(NamedTuple):
    ca: bytes  # PEM, as shown: to be compared with the token's hash
    time: float | None  # the master's clock, Unix seconds


def first_contact(server: str) -> Contact:
    """Ask `https://HOST:PORT` without credentials. Blocking; raises JoinError."""
    host, port = split_address(server.removeprefix("https://"), 6443)
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    connection = HTTPSConnection(host, port, timeout=PATIENCE, context=unverified)
    try:
        connection.request("GET", PATH, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body, date = answer.read(), answer.headers.get("date", "")
    except (OSError, HTTPException) as error:
        raise JoinError(unreached(server, host, port, error)) from None
    finally:
        connection.close()
    return Contact(_ca(server, answer.status, body), _time(date))


def unreached(server: str, host: str, port: int, error: Exception) -> str:
    """What to say about a connection that did not come about. Pure."""
    nobody = f"no master answers at {server}: "
    match error:
        case socket.gaierror():
            return f"{nobody}the name {host!r} is not known here; check it, or give the master's address"
        case ConnectionRefusedError():
            return (
                f"{nobody}that machine is there, but nothing listens on port {port}; does the agent run there "
                "('minik8s status'), and is this the port of its --listen?"
            )
        case TimeoutError():
            why = f"no answer within {PATIENCE:.0f} s; check the address, and that no firewall blocks TCP port {port}"
            return nobody + why
        case ssl.SSLError() | HTTPException() | ConnectionError():
            return (
                f"{server} is not a minik8s master: what listens there speaks another protocol "
                f"({error or type(error).__name__}); check the port, which is 6443 unless the master's --listen says "
                "otherwise"
            )
    reason = getattr(error, "strerror", "") or error
    return f"{nobody}{reason}; check the address, and that there is a route to it"


def _ca(server: str, status: int, body: bytes) -> bytes:
    try:
        said: Any = json.loads(body)
    except ValueError:
        said = None
    ca = (said.get("data") or {}).get("ca.crt") if isinstance(said, dict) else None
    if status == 200 and isinstance(ca, str):
        return ca.encode()
    why = said.get("message") if isinstance(said, dict) else "it answers something else"
    if status == 503:
        raise JoinError(f"the master at {server} is not ready yet: {why}; try again in a moment")
    raise JoinError(f"{server} is not a minik8s master: {why or 'it shows no cluster-info'} (HTTP {status})")


def _time(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def skew(ours: float, theirs: float) -> str:
    """What is wrong with this machine's clock beside the master's; "" if certificates allow for it. Pure."""
    ahead = ours - theirs
    if abs(ahead) <= BACKDATE:
        return ""
    size = abs(ahead)
    unit, seconds = next((u, s) for u, s in (("days", 86400), ("hours", 3600), ("minutes", 60)) if size >= 2 * s)
    way = "ahead of" if ahead > 0 else "behind"
    return (
        f"this machine's clock is {size / seconds:.0f} {unit} {way} the master's, and certificates would not be valid "
        f"here: {CLOCKS}"
    )


def untrusted(server: str, error: ssl.SSLCertVerificationError) -> str:
    """What to say when the CA is the right one and the master's certificate is not good all the same. Pure."""
    if error.verify_code in (9, 10):  # not yet valid, expired
        return f"the master's certificate is not valid at this machine's time: {CLOCKS}"
    if error.verify_code in (62, 64):  # name, address
        host, _ = split_address(server.removeprefix("https://"), 6443)
        return (
            f"the master's certificate does not speak for {host}: start the master with --advertise {host}, or join by "
            "an address that it knows"
        )
    return f"the certificate of {server} is not of the cluster's CA: {error.verify_message}"
