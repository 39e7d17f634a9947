"""The agent's life on this machine: init, join, start, stop, reset, status."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from minik8s.cli.agent import config_options, read_config
from minik8s.config import Config, save

START_PATIENCE = 60.0  # seconds; no deadline that a slow machine could not meet
STOP_PATIENCE = 60.0
WAY_PATIENCE = 10.0  # for the others to have heard of a node that joins
SIGNS = "|/-\\"  # of the spinner

data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path), default=Path("/var/lib/minik8s"), show_default=True,
    envvar="MINIK8S_DATA_DIR", help="Folder of all state of the agent.",
)  # fmt: skip


@click.command()
@config_options()
@click.option("--no-start", is_flag=True, help="Only prepare; do not start the agent.")
def init(config_file: Path | None, no_start: bool, **flags: Any) -> None:
    """Prepare this machine as a master (and, unless --role master, as a node too) and start it.

    Makes the data folder with the cluster's CA and keys, a kubeconfig for the administrator, a token for joining, and
    a systemd unit where there is systemd. On a machine that has been prepared it changes nothing but the given
    settings.
    """
    from minik8s.roles import process
    from minik8s.roles.identity import IdentityError, master_identity

    config = read_config(config_file, flags)
    if not config.hosts_master:
        raise click.ClickException(
            "init makes a master; to make this machine a node, use 'minik8s join ADDR --token T'"
        )
    _check_root(config)
    with told(process.ProcessError, IdentityError):
        fresh = not config.path("pki", "ca.crt").exists()
        master_identity(config)
        save(config)
        if process.has_systemd():
            process.install_unit(config.data_dir)
    click.echo(f"{'prepared' if fresh else 'kept'} {config.data_dir}")
    if no_start:
        return
    _start(config)
    token = _new_token(config)
    click.echo(f"\nTo use the cluster:\n  export KUBECONFIG={config.path('admin.kubeconfig')}\n  kubectl get nodes")
    _, port = config.listen_address
    address = config.advertised + (f":{port}" if port != 6443 else "")
    click.echo(f"\nTo add a node, on that machine as root:\n  minik8s join {address} --token {token}")


@click.command()
@click.argument("address", metavar="ADDR[:PORT]")
@config_options(
    "data_dir", "node_name", "node_ip", "runtime", "docker_host", "kubelet_port", "token", "log_level", "log_format",
    "pod_cidr", "service_cidr", "cluster_domain", "replicas",
)  # fmt: skip
def join(address: str, config_file: Path | None, **flags: Any) -> None:
    """Make this machine a node of the cluster whose master is at ADDR, with a token from 'minik8s token create'."""
    from minik8s.roles import process
    from minik8s.roles.contact import JoinError
    from minik8s.roles.join import join as join_cluster

    config = read_config(config_file, flags | {"role": "worker", "join": address})
    _check_root(config)
    with told(JoinError, process.ProcessError):
        asyncio.run(join_cluster(config))
        click.echo(f"node {config.name} has joined {config.server}")
        save(replace(config, node_name=config.name))  # it stays this node, whatever the host is called one day
        process.stop(config.data_dir, patience=STOP_PATIENCE)  # one whose Node was deleted registers at a start
        if process.has_systemd():
            process.install_unit(config.data_dir)
    _start(config)
    if config.runtime != "fake":
        _tell_ways(config)


def _tell_ways(config: Config) -> None:
    """What is in the way between pods here and elsewhere is told now, not when somebody misses a packet."""
    from minik8s.cli.diagnosis import BAD
    from minik8s.cli.doctor import show
    from minik8s.cli.doctor_net import from_here

    found = from_here(config, patience=WAY_PATIENCE)
    for finding in found:
        if finding.state == BAD:
            show(finding)
    if found and not any(finding.state == BAD for finding in found):
        click.echo(f"pods here reach those of the other node{'s' * (len(found) > 1)} ({len(found)})")


@click.command()
@config_options()
def start(config_file: Path | None, **flags: Any) -> None:
    """Start the agent in the background: a new cluster if the data folder is empty, else the one that is there."""
    config = read_config(config_file, flags)
    _check_root(config)
    with told():
        save(config)
    _start(config)


@click.command()
@data_dir_option
def stop(data_dir: Path) -> None:
    """Stop the agent; its pods keep running and are taken up again by 'minik8s start'."""
    from minik8s.roles import process

    with told(process.ProcessError):
        pid = process.stop(data_dir.absolute(), patience=STOP_PATIENCE)
    click.echo(f"stopped the agent (pid {pid})" if pid else f"no agent runs on {data_dir}")


@click.command()
@data_dir_option
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def reset(data_dir: Path, dry_run: bool, yes: bool) -> None:
    """Stop the agent and remove everything that minik8s made on this machine, and nothing else.

    That is: its containers, links, routes, nftables tables, iptables chain, mounts, systemd unit and data folder.
    """
    from minik8s.roles import process
    from minik8s.roles.reset import NotOurs

    config = read_config(None, {"data_dir": str(data_dir)})
    if not (dry_run or yes or sys.stdin.isatty()):
        raise click.ClickException("nobody is here to be asked: give --yes, or --dry-run to see what would go")
    with told(process.ProcessError, NotOurs):
        asyncio.run(take_away(config, dry_run=dry_run, yes=yes))


async def take_away(config: Config, *, dry_run: bool, yes: bool) -> None:
    from minik8s.net.base import NetworkError
    from minik8s.roles import process
    from minik8s.roles.reset import Reset
    from minik8s.runtime.base import RuntimeFailure

    async with Reset(config) as work:
        found = await work.plan()
        for note in found.notes:
            click.echo(f"note: {note}", err=True)
        lines = found.lines()
        if not lines:
            click.echo("there is nothing to remove")
            return
        for line in lines:
            click.echo(f"{'would remove' if dry_run else 'remove'} {line}")
        if dry_run:
            return
        if not yes and not click.confirm("Remove all of this?", default=False):
            raise click.ClickException("nothing was removed")
        process.stop(config.data_dir, patience=STOP_PATIENCE)
        try:
            await work.perform(await work.plan())
        except (RuntimeFailure, NetworkError, OSError) as error:
            raise click.ClickException(f"not everything could be removed: {error}; run 'minik8s reset' again") from None
    click.echo("removed")


@click.command()
@data_dir_option
@click.option("-o", "output", type=click.Choice(["json", "yaml"]), help="Machine-readable form.")
def status(data_dir: Path, output: str | None) -> None:
    """Tell what runs on this machine and how it is. Exit code 1 if no agent runs or it is not ready."""
    from minik8s.roles import process
    from minik8s.roles.lock import running_pid

    config = read_config(None, {"data_dir": str(data_dir)})
    pid = running_pid(data_dir)
    ready = pid is not None and process.is_ready(config)
    facts: dict[str, Any] = {"dataDir": str(data_dir), "role": config.role, "pid": pid, "ready": ready}
    if pid is not None:
        facts |= {"server": config.server, "node": config.name if config.hosts_node else None}
        facts |= {"residentMegabytes": _resident(pid)}
    if output:
        from minik8s.cli.printing import dump

        click.echo(dump(facts, output), nl=False)
    elif pid is None:
        click.echo(f"no agent runs on {data_dir}; start one with 'minik8s start'")
    else:
        click.echo(f"agent    pid {pid}, {'ready' if ready else 'not ready'}, {facts['residentMegabytes']} MB resident")
        click.echo(f"role     {config.role}")
        click.echo(f"server   {config.server}")
        click.echo(f"data     {data_dir}")
    if not ready:
        sys.exit(1)


def _resident(pid: int) -> int:
    with suppress(OSError):  # it has ended just now
        text = Path(f"/proc/{pid}/status").read_text()
        kilobytes = next((line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")), "0")
        return round(int(kilobytes) / 1024)
    return 0


def _check_root(config: Config) -> None:
    import os

    if config.runtime == "docker" and config.hosts_node and os.geteuid() != 0:
        raise click.ClickException("a node that runs containers needs root; run this with sudo, or try --runtime fake")


def _start(config: Config) -> None:
    from minik8s.roles import process
    from minik8s.roles.lock import running_pid

    pid = running_pid(config.data_dir)
    if pid is not None:
        click.echo(f"the agent runs already (pid {pid})")
        return
    began = time.monotonic()
    with told(process.ProcessError), _spinner("starting the agent") as turn:
        pid = process.start(config, patience=START_PATIENCE, waiting=turn)
    click.echo(f"the agent runs (pid {pid}) and answers at {config.server} after {time.monotonic() - began:.1f} s")


@contextmanager
def told(*faults: type[Exception]) -> Iterator[None]:
    """Faults that are to be expected, and files that cannot be used, are one line and exit code 1."""
    try:
        yield
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        hint = "; run this with sudo, or choose another --data-dir" if isinstance(error, PermissionError) else ""
        raise click.ClickException(f"{place}{error.strerror or error}{hint}") from None
    except faults as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def _spinner(text: str) -> Iterator[Callable[[], None]]:
    """A turning sign on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    count = 0

    def turn() -> None:
        nonlocal count
        count += 1
        click.echo(f"\r{SIGNS[count % len(SIGNS)]} {text}", nl=False, err=True)

    try:
        yield turn
    finally:
        click.echo("\r\033[K", nl=False, err=True)


def _new_token(config: Config) -> str:
    from minik8s.cli.token import TTL, new_token

    return asyncio.run(new_token(config.data_dir, ttl=TTL, description="made by 'minik8s init'"))
