"""`minik8s doctor`: looks at this machine with the eyes of an agent, and says what would help."""

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
from collections.abc import Callable, Iterator
from ctypes import CDLL
from pathlib import Path
from typing import NamedTuple

import click

from minik8s.cli.agent import config_options, read_config
from minik8s.config import Config, split_address

MIN_KERNEL = (5, 2)  # nftables maps with concatenated ranges and typeof
MIN_DISK = 2 << 30  # bytes free for images and the store
MIN_INOTIFY = 128  # instances; each followed file system watch of a container takes one
MIN_DOCKER_API = (1, 41)
GOOD, POOR, BAD = "ok", "warning", "failed"


class Finding(NamedTuple):
    check: str
    state: str  # ok | warning | failed
    detail: str
    remedy: str = ""


@click.command()
@config_options("data_dir", "listen", "docker_host", "runtime", "role", "join", "kubelet_port")
@click.option("-o", "output", type=click.Choice(["json"]), help="Machine-readable form.")
def doctor(config_file: Path | None, output: str | None, **flags: str) -> None:
    """Check docker, kernel, network settings, ports, disk and clock; say the remedy for what is not right.

    Exit code 1 if something would keep an agent from working here.
    """
    if flags.get("role") == "worker" and not flags.get("join"):
        flags["join"] = "127.0.0.1"  # no master is asked for here
    config = read_config(config_file, dict(flags))
    found = [finding for check in CHECKS for finding in check(config)]
    if output:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        for finding in found:
            _show(finding)
    if any(finding.state == BAD for finding in found):
        sys.exit(1)


def _show(finding: Finding) -> None:
    colour = {GOOD: "green", POOR: "yellow", BAD: "red"}[finding.state]
    mark = click.style(f"{finding.state:8}", fg=colour) if sys.stdout.isatty() else f"{finding.state:8}"
    click.echo(f"{mark} {finding.check:12} {finding.detail}")
    if finding.remedy:
        click.echo(f"{'':21} -> {finding.remedy}")


def _root(config: Config) -> Iterator[Finding]:
    if config.runtime == "docker" and config.hosts_node and os.geteuid() != 0:
        yield Finding("root", BAD, "a node needs root for networks and mounts", "run minik8s with sudo")
    else:
        yield Finding("root", GOOD, "enough rights")


def _kernel(config: Config) -> Iterator[Finding]:
    release = platform.release()
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if version < MIN_KERNEL:
        wanted = ".".join(map(str, MIN_KERNEL))
        yield Finding("kernel", BAD, f"Linux {release} is older than {wanted}", "upgrade the kernel")
    else:
        yield Finding("kernel", GOOD, f"Linux {release}")


def _docker(config: Config) -> Iterator[Finding]:
    if config.runtime != "docker" or not config.hosts_node:
        return
    address = config.docker_host or os.environ.get("DOCKER_HOST", "") or "unix:///var/run/docker.sock"
    try:
        version = _docker_version(address)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        remedy = "install docker.io and start it: systemctl start docker, or dockerd in the background"
        yield Finding("docker", BAD, f"the Engine does not answer at {address}: {error}", remedy)
        return
    spoken = tuple(int(part) for part in str(version["ApiVersion"]).split("."))
    if spoken < MIN_DOCKER_API:
        yield Finding("docker", BAD, f"Engine {version['Version']} is too old", "install Docker Engine 20.10 or newer")
    else:
        yield Finding("docker", GOOD, f"Engine {version['Version']} (API {version['ApiVersion']}) at {address}")


def _docker_version(address: str) -> dict[str, str]:
    scheme, _, place = address.partition("://")
    if scheme == "unix":
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(5)
        connection.sock.connect(place)
    else:
        host, port = split_address(place, 2375)
        connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/version")
        answer: dict[str, str] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


def _nftables(config: Config) -> Iterator[Finding]:
    if config.runtime != "docker" or not config.hosts_node:
        return
    try:
        CDLL("libnftables.so.1")
        yield Finding("nftables", GOOD, "libnftables is here")
    except OSError:
        if shutil.which("nft"):
            yield Finding("nftables", POOR, "only the nft program is here: changes of services cost 12 ms each",
                          "install libnftables1")  # fmt: skip
        else:
            yield Finding("nftables", BAD, "neither libnftables nor nft is here", "install nftables")
            return
    if os.geteuid() == 0 and shutil.which("nft"):
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
        if listed.returncode != 0:
            yield Finding("nftables", BAD, f"the kernel refuses: {listed.stderr.strip()[:120]}",
                          "load nf_tables: modprobe nf_tables")  # fmt: skip


def _forwarding(config: Config) -> Iterator[Finding]:
    if config.runtime != "docker" or not config.hosts_node:
        return
    value = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
    detail = "on" if value == "1" else "off; the agent turns it on, and 'reset' off again"
    yield Finding("ip_forward", GOOD, detail)


def _inotify(config: Config) -> Iterator[Finding]:
    path = Path("/proc/sys/fs/inotify/max_user_instances")
    value = int(path.read_text()) if path.exists() else MIN_INOTIFY
    if value < MIN_INOTIFY:
        yield Finding("inotify", POOR, f"max_user_instances is {value}: containers that watch files may fail",
                      "sysctl fs.inotify.max_user_instances=512")  # fmt: skip
    else:
        yield Finding("inotify", GOOD, f"max_user_instances is {value}")


def _cgroups(config: Config) -> Iterator[Finding]:
    if config.runtime != "docker" or not config.hosts_node:
        return
    root = Path("/sys/fs/cgroup")
    version = "v2" if (root / "cgroup.controllers").exists() else "v1" if (root / "memory").is_dir() else ""
    if version:
        yield Finding("cgroups", GOOD, version)
    else:
        yield Finding("cgroups", BAD, "no memory controller: limits cannot be enforced",
                      "mount cgroup2 at /sys/fs/cgroup, or boot with systemd")  # fmt: skip


def _ports(config: Config) -> Iterator[Finding]:
    from minik8s.roles.lock import running_pid

    if running_pid(config.data_dir):
        yield Finding("ports", GOOD, "an agent runs here and holds them")
        return
    wanted = [config.listen_address] if config.hosts_master else []
    wanted += [("0.0.0.0", config.kubelet_port)] if config.hosts_node else []
    for host, port in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                yield Finding("ports", GOOD, f"{port} is free")
            except OSError as error:
                option = "--listen" if (host, port) == config.listen_address else "--kubelet-port"
                yield Finding("ports", BAD, f"{host}:{port}: {error.strerror}",
                              f"'ss -ltnp sport = :{port}' shows who has it; end that, or give {option}")  # fmt: skip


def _disk(config: Config) -> Iterator[Finding]:
    folder = config.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / (1 << 30):.1f} GiB free at {folder}"
    if free < MIN_DISK:
        yield Finding("disk", POOR, text, "free some space, or choose another --data-dir")
    else:
        yield Finding("disk", GOOD, text)


def _clock(config: Config) -> Iterator[Finding]:
    """A clock before the build of this program, or behind its own files, is wrong."""
    stamp = Path(__file__).stat().st_mtime
    if time.time() < stamp - 86400:
        yield Finding("clock", BAD, f"it is {time.strftime('%F %T')}, before this program was installed: certificates "
                      "would not be valid", "set the clock: timedatectl set-ntp true")  # fmt: skip
    else:
        yield Finding("clock", GOOD, time.strftime("%F %T %Z"))


def _capabilities(config: Config) -> Iterator[Finding]:
    if config.runtime != "docker" or not config.hosts_node:
        return
    status = Path("/proc/self/status").read_text()
    bounding = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")), 16)
    if not bounding >> 24 & 1:
        yield Finding("capabilities", POOR, "CAP_SYS_RESOURCE is missing: privileged pods get all other capabilities, "
                      "and out-of-memory scores are clamped", "nothing to do inside a sandbox")  # fmt: skip


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    _root, _kernel, _docker, _nftables, _forwarding, _inotify, _cgroups, _ports, _disk, _clock, _capabilities,
)  # fmt: skip
