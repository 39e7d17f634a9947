"""`minik8s dashboard`: where the dashboard is, and a token to log in with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minik8s.cli.lifecycle import data_dir_option
from minik8s.cli.token import connected, finished, parse_ttl

if TYPE_CHECKING:
    from minik8s.client.base import Client

ACCOUNT, NAMESPACE = "minik8s-dashboard", "kube-system"
ADMINISTRATOR = "cluster-admin"


@click.command()
@click.option("--ttl", default="12h", show_default=True, help="Life of the token: from 10m to 24h.")
@click.option("--url", "only_url", is_flag=True, help="Print the address alone, and make no token.")
@data_dir_option
def dashboard(ttl: str, only_url: bool, data_dir: Path) -> None:
    """Print where this master's dashboard is, and a token that logs an administrator in.

    The token belongs to the ServiceAccount minik8s-dashboard in kube-system. A token of any other ServiceAccount
    ('kubectl create token NAME') logs in with that account's rights.
    """
    from minik8s.cli.agent import read_config
    from minik8s.roles.dashboard import dashboard_url

    config = read_config(None, {"data_dir": str(data_dir)})
    if config.dashboard_listen == "off":
        raise click.ClickException("the dashboard is off; 'minik8s start --dashboard-listen 127.0.0.1:8080' serves it")
    click.echo(dashboard_url(config))
    if not only_url:
        click.echo(finished(login_token(data_dir, seconds=parse_ttl(ttl))))


async def login_token(data_dir: Path, *, seconds: float) -> str:
    """A token of the dashboard's administrator, who is made if missing. Raises StatusError."""
    async with connected(data_dir) as client:
        await _account(client)
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": int(seconds)},
        }
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
        return str((await _post(client, path, body))["status"]["token"])


async def _account(client: Client) -> None:
    from minik8s.api.errors import AlreadyExists
    from minik8s.api.kinds.rbac import ClusterRoleBinding
    from minik8s.api.kinds.serviceaccount import ServiceAccount

    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ADMINISTRATOR}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
    for kind, body, namespace in (
        (ServiceAccount, {"metadata": {"name": ACCOUNT}}, NAMESPACE),
        (ClusterRoleBinding, {"metadata": {"name": ACCOUNT}, "roleRef": role, "subjects": [subject]}, None),
    ):
        try:
            await client.create(kind, body, namespace)
        except AlreadyExists:
            continue


async def _post(client: Client, path: str, body: dict[str, Any]) -> Any:
    import msgspec

    return msgspec.json.decode(await client.transport.request("POST", path, body=msgspec.json.encode(body)))
