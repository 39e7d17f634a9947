"""Tokens that let a machine join: made, listed and deleted on the master, kept as Secrets as kubeadm keeps them."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from minik8s.cli.lifecycle import data_dir_option

if TYPE_CHECKING:
    from minik8s.client.base import Client

TTL = 24 * 3600.0  # seconds; kubeadm's default
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
T = TypeVar("T")


@click.group()
def token() -> None:
    """Make, list and delete the tokens with which machines join this master's cluster."""


@token.command()
@click.option("--ttl", default="24h", show_default=True, help="Life of the token, e.g. 30m, 24h, 7d; 0 = for ever.")
@click.option("--description", default="", help="What it is for.")
@click.option("--print-join-command", is_flag=True, help="Print the whole line to run on the machine that joins.")
@data_dir_option
def create(ttl: str, description: str, print_join_command: bool, data_dir: Path) -> None:
    """Make a token and print it."""
    made = finished(new_token(data_dir, ttl=parse_ttl(ttl), description=description))
    if not print_join_command:
        click.echo(made)
        return
    from minik8s.cli.agent import read_config

    config = read_config(None, {"data_dir": str(data_dir)})
    _, port = config.listen_address
    click.echo(f"minik8s join {config.advertised}:{port} --token {made}")


@token.command(name="list")
@data_dir_option
def list_(data_dir: Path) -> None:
    """List the tokens; secrets are not shown."""
    rows = [("TOKEN", "TTL", "EXPIRES", "DESCRIPTION"), *finished(_list(data_dir))]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        click.echo("   ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]).rstrip())


@token.command()
@click.argument("ids", nargs=-1, required=True, metavar="TOKEN-ID...")
@data_dir_option
def delete(ids: tuple[str, ...], data_dir: Path) -> None:
    """Delete tokens by their first six characters, or whole."""
    for id in ids:
        finished(_delete(data_dir, id.partition(".")[0]))
        click.echo(f'token "{id.partition(".")[0]}" deleted')


def parse_ttl(text: str) -> float:
    """Seconds of `30m`, `24h`, `7d`, `0`. Raises ClickException."""
    match = re.fullmatch(r"(\d+)([smhd]?)", text)
    if match is None or (match[1] != "0" and not match[2]):
        raise click.ClickException(f"--ttl {text}: write a number and a unit, e.g. 30m, 24h or 7d; 0 means for ever")
    return int(match[1]) * UNITS.get(match[2], 1)


async def new_token(data_dir: Path, *, ttl: float, description: str) -> str:
    """Make a token in the running cluster; `ID.SECRET.HASH`."""
    from minik8s import pki
    from minik8s.api.kinds.secret import Secret
    from minik8s.apiserver.tokens import bootstrap_secret, new_bootstrap_token

    id, secret = new_bootstrap_token()
    expires = time.time() + ttl if ttl else 0
    async with connected(data_dir) as client:
        await client.create(Secret, bootstrap_secret(id, secret, expires=expires, description=description))
    return f"{id}.{secret}.{pki.ca_hash((data_dir / 'pki' / 'ca.crt').read_bytes())}"


async def _list(data_dir: Path) -> list[tuple[str, str, str, str]]:
    from minik8s.api.kinds.columns import duration
    from minik8s.api.kinds.secret import Secret
    from minik8s.apiserver.tokens import BOOTSTRAP_TYPE
    from minik8s.clock import parse_time

    async with connected(data_dir) as client:
        found = await client.list(Secret, "kube-system", fields=f"type={BOOTSTRAP_TYPE}")
    rows = []
    for secret in found.items:
        data = {key: base64.b64decode(value).decode() for key, value in secret.data.items()}
        expires = data.get("expiration", "")
        left = parse_time(expires) - time.time() if expires else 0
        ttl = "<forever>" if not expires else duration(left) if left > 0 else "<expired>"
        rows.append((data.get("token-id", ""), ttl, expires or "<never>", data.get("description", "") or "<none>"))
    return rows


async def _delete(data_dir: Path, id: str) -> None:
    from minik8s.api.errors import NotFound
    from minik8s.api.kinds.secret import Secret

    async with connected(data_dir) as client:
        try:
            await client.delete(Secret, f"bootstrap-token-{id}", "kube-system")
        except NotFound:
            raise click.ClickException(f"there is no token {id!r}; 'minik8s token list' shows those that are") from None


@asynccontextmanager
async def connected(data_dir: Path) -> AsyncIterator[Client]:
    from minik8s.cli.agent import read_config
    from minik8s.client.base import Client
    from minik8s.client.http import HttpTransport
    from minik8s.roles.identity import client_context

    pki = data_dir / "pki"
    if not (pki / "admin.crt").exists():
        raise click.ClickException(
            f"{data_dir} is not a master's data folder; run this on the master, or give --data-dir"
        )
    config = read_config(None, {"data_dir": str(data_dir)})
    context = client_context(pki / "ca.crt", (pki / "admin.crt", pki / "admin.key"))
    async with HttpTransport(config.server, context) as transport:
        yield Client(transport)


def finished(work: Awaitable[T]) -> T:
    from minik8s.api.errors import StatusError

    async def wait() -> T:
        return await work

    try:
        return asyncio.run(wait())
    except StatusError as error:
        raise click.ClickException(str(error)) from None
