"""The dashboard of a master: where it listens, and what keeps it safe there.

On a loopback address it speaks plain HTTP: nobody else can listen in, and browsers have nothing to warn of. Everywhere
else it shows the API server's certificate, so that tokens never cross a network in the clear.
"""

from __future__ import annotations

import ipaddress

from minik8s.apiserver.auth import AUTHENTICATED, MASTERS, User
from minik8s.config import Config
from minik8s.roles.master import Master
from minik8s.web.door import serve
from minik8s.web.settings import Settings


async def serve_dashboard(config: Config, master: Master) -> None:
    """For ever. The history of usage is collected by a user of its own; all else is done as whoever logs in."""
    await master.informers.synced()
    identity = master.identity
    host, port = config.dashboard_address
    secure = not is_loopback(host)
    tls = master.credentials.server(identity.serving, identity.ca_file) if secure else None
    settings = Settings(config.server, str(identity.ca_file), write=config.dashboard_write, secure=secure)
    collector = master.client(User("system:dashboard", (MASTERS, AUTHENTICATED)))
    await serve(host, port, settings, collector.transport, tls=tls)


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def dashboard_url(config: Config) -> str:
    """Where a browser finds it, as said to people: this machine's address where it listens on all."""
    host, port = config.dashboard_address
    if is_loopback(host):
        return f"http://{_bracketed(host)}:{port}/"
    shown = config.advertised if host in ("", "0.0.0.0", "::") else host
    return f"https://{_bracketed(shown)}:{port}/"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
