"""`minik8s leave`: a worker takes its leave of the cluster: its pods, its Node, and all that is local."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from minik8s.api.errors import NotFound, StatusError
from minik8s.cli.agent import read_config
from minik8s.cli.connection import Choice, Cluster
from minik8s.cli.lifecycle import STOP_PATIENCE, data_dir_option, take_away, told
from minik8s.cli.targets import Target
from minik8s.cli.verb import duration
from minik8s.cli.wire import MERGE, Unreachable
from minik8s.config import Config

# All that does not stay by itself, whether or not something starts it again elsewhere: the machine goes.
DRAINING = {
    "ignore_daemonsets": True, "delete_emptydir_data": True, "force": True, "disable_eviction": False,
    "grace_period": -1, "pod_selector": "",
}  # fmt: skip


@click.command()
@data_dir_option
@click.option("--drain", is_flag=True, help="Before that, let the pods end properly, as disruption budgets allow.")
@click.option("--timeout", default="5m", show_default=True, help="With --drain: how long to try; 0s: for ever.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def leave(data_dir: Path, drain: bool, timeout: str, yes: bool) -> None:
    """Take this machine out of the cluster: drain it if told so, delete its Node, and remove all that is local.

    What `kubectl drain`, `kubectl delete node` and `minik8s reset` would do, done by the node itself.
    """
    from minik8s.roles import process
    from minik8s.roles.reset import NotOurs

    config = read_config(None, {"data_dir": str(data_dir)})
    patience = duration(timeout)
    _check(config)
    if not yes and not (sys.stdin.isatty() and click.confirm(f"Take node {config.name} out of the cluster?")):
        raise click.ClickException("nothing was done; --yes does it without asking")
    with TemporaryDirectory() as folder, told(process.ProcessError, NotOurs):
        cluster = _as_node(config, Path(folder) / "kubeconfig")
        if drain:
            _drain(cluster, config.name, patience)
        process.stop(config.data_dir, patience=STOP_PATIENCE)
        _delete(cluster, config.name)
        asyncio.run(take_away(config, dry_run=False, yes=True))


def _check(config: Config) -> None:
    if config.path("pki", "ca.key").exists():
        raise click.ClickException("this is the master, without which there is no cluster: 'minik8s reset' ends it")
    if not config.path("node", "client.crt").exists():
        raise click.ClickException(f"{config.data_dir} is not the data folder of a node that has joined a cluster")


def _as_node(config: Config, file: Path) -> Cluster:
    """The cluster with this node's own rights."""
    from minik8s import pki
    from minik8s.roles.identity import read_node_identity, write_kubeconfig

    identity = read_node_identity(config)
    certificate, key = identity.client
    pair = pki.Pair(certificate.read_bytes(), key.read_bytes())
    write_kubeconfig(file, config.server, identity.ca_file.read_bytes(), pair, user=config.name)
    cluster = Cluster(Choice(kubeconfig=str(file)), timeout=10)
    _ = cluster.credentials  # the file is not needed any more
    return cluster


def _drain(cluster: Cluster, name: str, patience: float) -> None:
    from minik8s.cli.drain import Draining

    node = Target(cluster.kinds.find("nodes"), name, None)
    cluster.wire.send("PATCH", node.path, {"spec": {"unschedulable": True}}, content_type=MERGE)
    Draining(cluster, node, DRAINING, timeout=patience, dry_run="none").run()


def _delete(cluster: Cluster, name: str) -> None:
    """The Node, and those that were simulated here. A cluster that does not answer keeps nobody from leaving."""
    try:
        nodes = cluster.kinds.find("nodes")
        query = {"labelSelector": f"minik8s.io/simulated-by={name}"}
        simulated = [each["metadata"]["name"] for each in cluster.wire.get(nodes.path(), query)["items"]]
        for each in (name, *simulated):
            try:
                cluster.wire.send("DELETE", nodes.path(None, each), {})
            except NotFound:
                continue
            click.echo(f"node {each} deleted")
    except (Unreachable, StatusError) as error:
        said = error.format_message() if isinstance(error, Unreachable) else str(error)
        click.echo(
            f"{click.style('Warning:', fg='yellow')} the Node could not be deleted: {said}; "
            f"on the master: kubectl delete node {name}", err=True,
        )  # fmt: skip
