"""`minik8s doctor`: looks at this machine with the eyes of an agent, and says what would help (`diagnosis.py`)."""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from ctypes import CDLL
from pathlib import Path
from typing import Any

import click

from minik8s.cli.agent import config_options, read_config
from minik8s.cli.diagnosis import BAD, GOOD, MIN_INOTIFY, POOR, Facts, Finding, Port, findings
from minik8s.config import Config, split_address

ENGINE_SECONDS = 5.0  # for the Engine to answer


class _Doctor(click.Group):
    """Its one command looks at the cluster, and is imported only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["gpu", "net"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "gpu":
            from minik8s.cli.doctor_gpu import gpu

            return gpu
        if cmd_name != "net":
            return None
        from minik8s.cli.doctor_net import net

        return net


@click.command(cls=_Doctor, invoke_without_command=True)
@config_options("data_dir", "listen", "docker_host", "runtime", "role", "join", "kubelet_port")
@click.option("-o", "output", type=click.Choice(["json"]), help="Machine-readable form.")
@click.pass_context
def doctor(context: click.Context, /, config_file: Path | None, output: str | None, **flags: str) -> None:
    """Check docker, kernel, network settings, ports, disk and clock; say the remedy for what is not right.

    'doctor net' tries the pod network between the cluster's nodes, 'doctor gpu' what leads from a GPU into a pod.

    Exit code 1 if something would keep an agent from working here.
    """
    if context.invoked_subcommand:
        return
    if flags.get("role") == "worker" and not flags.get("join"):
        flags["join"] = "127.0.0.1"  # no master is asked for here
    config = read_config(config_file, dict(flags))
    found = findings(config, look(config))
    if output:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        for finding in found:
            show(finding)
    if any(finding.state == BAD for finding in found):
        sys.exit(1)


def show(finding: Finding) -> None:
    colour = {GOOD: "green", POOR: "yellow", BAD: "red"}[finding.state]
    mark = click.style(f"{finding.state:8}", fg=colour) if sys.stdout.isatty() else f"{finding.state:8}"
    click.echo(f"{mark} {finding.check:12} {finding.detail}")
    if finding.remedy:
        click.echo(f"{'':21} -> {finding.remedy}")


def look(config: Config) -> Facts:
    """The facts of this machine; changes nothing."""
    from minik8s.roles.lock import running_pid

    folder = config.data_dir
    while not folder.exists():
        folder = folder.parent
    agent = running_pid(config.data_dir)
    inotify = Path("/proc/sys/fs/inotify/max_user_instances")
    return Facts(
        root=os.geteuid() == 0,
        kernel=platform.release(),
        **_docker(config),
        libnftables=_has_library("libnftables.so.1"),
        nft=shutil.which("nft") is not None,
        nft_fault=_nft_fault(),
        ip_forward=Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1",
        inotify=int(inotify.read_text()) if inotify.exists() else MIN_INOTIFY,
        cgroups=_cgroups(Path("/sys/fs/cgroup")),
        agent=agent,
        ports=() if agent is not None else tuple(map(_tried, _ports(config))),
        folder=str(folder),
        disk=shutil.disk_usage(folder).free,
        now=time.time(),
        installed=Path(__file__).stat().st_mtime,
        bounding=_bounding(Path("/proc/self/status").read_text()),
    )


def _docker(config: Config) -> dict[str, Any]:
    if config.runtime != "docker" or not config.hosts_node:
        return {}
    address = config.docker_host or os.environ.get("DOCKER_HOST", "") or "unix:///var/run/docker.sock"
    try:
        version = docker_version(address)
        return {"docker": address, "docker_version": version["Version"], "docker_api": version["ApiVersion"]}
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return {"docker": address, "docker_fault": str(error) or type(error).__name__}


def docker_version(address: str) -> dict[str, str]:
    """What the Engine says of itself; see `docker_answer`."""
    answer: dict[str, str] = docker_answer(address, "/version")
    return answer


def docker_answer(address: str, path: str) -> Any:
    """To a GET, of the Engine at `unix://PATH` or `tcp://HOST:PORT`. OSError, ValueError or HTTPException."""
    scheme, _, place = address.partition("://")
    if scheme == "unix":
        connection = http.client.HTTPConnection("localhost", timeout=ENGINE_SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(ENGINE_SECONDS)
        connection.sock.connect(place)
    else:
        host, port = split_address(place, 2375)
        connection = http.client.HTTPConnection(host, port, timeout=ENGINE_SECONDS)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def _has_library(name: str) -> bool:
    try:
        CDLL(name)
    except OSError:
        return False
    return True


def _nft_fault() -> str:
    if os.geteuid() != 0 or shutil.which("nft") is None:
        return ""
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return listed.stderr.strip()[:120] or f"exit code {listed.returncode}" if listed.returncode else ""


def _cgroups(root: Path) -> str:
    return "v2" if (root / "cgroup.controllers").exists() else "v1" if (root / "memory").is_dir() else ""


def _ports(config: Config) -> list[Port]:
    host, number = config.listen_address
    wanted = [Port(host or "0.0.0.0", number, "--listen")] if config.hosts_master else []
    return wanted + ([Port("0.0.0.0", config.kubelet_port, "--kubelet-port")] if config.hosts_node else [])


def _tried(port: Port) -> Port:
    try:
        with socket.socket(socket.AF_INET6 if ":" in port.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((port.host, port.number))
    except OSError as error:
        return port._replace(fault=error.strerror or str(error))
    return port


def _bounding(status: str) -> int:
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")), 16)
