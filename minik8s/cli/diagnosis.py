"""What is right and wrong with a machine for an agent, from facts about it. Pure: `doctor.py` finds the facts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from minik8s.config import Config

MIN_KERNEL = (5, 2)  # nftables maps with concatenated ranges and typeof
MIN_DISK = 2 << 30  # bytes free for images and the store
MIN_INOTIFY = 128  # instances; each followed file system watch of a container takes one
MIN_DOCKER_API = (1, 41)
CAP_SYS_RESOURCE = 24  # its bit, capabilities(7)
GOOD, POOR, BAD = "ok", "warning", "failed"


class Finding(NamedTuple):
    check: str
    state: str  # ok | warning | failed
    detail: str
    remedy: str = ""


class Port(NamedTuple):
    """An address that the agent would listen at, and why it could not ("": it could)."""

    host: str
    number: int
    option: str  # that chooses another one
    fault: str = ""


@dataclass(frozen=True)
class Facts:
    """What was seen. The defaults are those of a good machine."""

    root: bool = True
    kernel: str = "6.1.0-1-amd64"  # as uname -r gives it
    docker: str = "unix:///var/run/docker.sock"  # the address that was asked
    docker_version: str = "20.10.24"
    docker_api: str = "1.41"
    docker_fault: str = ""  # why the Engine does not answer
    libnftables: bool = True
    nft: bool = True
    nft_fault: str = ""  # what the kernel has against listing tables
    ip_forward: bool = True
    inotify: int = MIN_INOTIFY  # fs.inotify.max_user_instances
    cgroups: str = "v2"  # v1 | v2 | "" = without a memory controller
    agent: int | None = None  # the pid of one that runs on this data folder
    ports: tuple[Port, ...] = ()
    folder: str = "/var/lib"  # where the data folder is, or would be
    disk: int = 1 << 40  # bytes free there
    now: float = 1.7e9
    installed: float = 0.0  # when this program was
    bounding: int = (1 << 41) - 1  # capabilities that this process may ever have


def findings(config: Config, facts: Facts) -> list[Finding]:
    """Everything worth saying, in the order of the checks; of containers only where the agent would run some."""
    real = config.runtime == "docker" and config.hosts_node
    checks = (*FIRST, *OF_NODES, *LAST) if real else (*FIRST, *LAST)
    return [finding for check in checks for finding in check(facts)]


def _kernel(facts: Facts) -> Iterator[Finding]:
    if _numbers(facts.kernel) < MIN_KERNEL:
        wanted = ".".join(map(str, MIN_KERNEL))
        yield Finding("kernel", BAD, f"Linux {facts.kernel} is older than {wanted}", "upgrade the kernel")
    else:
        yield Finding("kernel", GOOD, f"Linux {facts.kernel}")


def _root(facts: Facts) -> Iterator[Finding]:
    if facts.root:
        yield Finding("root", GOOD, "enough rights")
    else:
        yield Finding("root", BAD, "a node needs root for networks and mounts", "run minik8s with sudo")


def _docker(facts: Facts) -> Iterator[Finding]:
    if facts.docker_fault:
        remedy = "install docker.io and start it: systemctl start docker, or dockerd in the background"
        yield Finding("docker", BAD, f"the Engine does not answer at {facts.docker}: {facts.docker_fault}", remedy)
    elif _numbers(facts.docker_api) < MIN_DOCKER_API:
        yield Finding(
            "docker", BAD, f"Engine {facts.docker_version} is too old", "install Docker Engine 20.10 or newer"
        )
    else:
        yield Finding("docker", GOOD, f"Engine {facts.docker_version} (API {facts.docker_api}) at {facts.docker}")


def _nftables(facts: Facts) -> Iterator[Finding]:
    if not facts.libnftables and not facts.nft:
        yield Finding("nftables", BAD, "neither libnftables nor nft is here", "install nftables")
    elif facts.nft_fault:
        yield Finding("nftables", BAD, f"the kernel refuses: {facts.nft_fault}", "load nf_tables: modprobe nf_tables")
    elif not facts.libnftables:
        detail = "only the nft program is here: changes of services cost 12 ms each"
        yield Finding("nftables", POOR, detail, "install libnftables1")
    else:
        yield Finding("nftables", GOOD, "libnftables is here")


def _forwarding(facts: Facts) -> Iterator[Finding]:
    yield Finding("ip_forward", GOOD, "on" if facts.ip_forward else "off; the agent turns it on, and 'reset' off again")


def _inotify(facts: Facts) -> Iterator[Finding]:
    if facts.inotify < MIN_INOTIFY:
        detail = f"max_user_instances is {facts.inotify}: containers that watch files may fail"
        yield Finding("inotify", POOR, detail, "sysctl fs.inotify.max_user_instances=512")
    else:
        yield Finding("inotify", GOOD, f"max_user_instances is {facts.inotify}")


def _cgroups(facts: Facts) -> Iterator[Finding]:
    if facts.cgroups:
        yield Finding("cgroups", GOOD, facts.cgroups)
    else:
        remedy = "mount cgroup2 at /sys/fs/cgroup, or boot with systemd"
        yield Finding("cgroups", BAD, "no memory controller: limits cannot be enforced", remedy)


def _capabilities(facts: Facts) -> Iterator[Finding]:
    if not facts.bounding >> CAP_SYS_RESOURCE & 1:
        detail = (
            "CAP_SYS_RESOURCE is missing: privileged pods get all other capabilities, and out-of-memory scores are "
        )
        yield Finding("capabilities", POOR, f"{detail}clamped", "nothing to do inside a sandbox")


def _ports(facts: Facts) -> Iterator[Finding]:
    if facts.agent is not None:
        yield Finding("ports", GOOD, f"an agent runs here (pid {facts.agent}) and holds them")
        return
    for host, number, option, fault in facts.ports:
        if fault:
            remedy = f"'ss -ltnp sport = :{number}' shows who has it; end that, or give {option}"
            yield Finding("ports", BAD, f"{host}:{number}: {fault}", remedy)
        else:
            yield Finding("ports", GOOD, f"{number} is free")


def _disk(facts: Facts) -> Iterator[Finding]:
    text = f"{facts.disk / (1 << 30):.1f} GiB free at {facts.folder}"
    if facts.disk < MIN_DISK:
        yield Finding("disk", POOR, text, "free some space, or choose another --data-dir")
    else:
        yield Finding("disk", GOOD, text)


def _clock(facts: Facts) -> Iterator[Finding]:
    """A clock before the installation of this program is wrong."""
    told = time.strftime("%F %T UTC", time.gmtime(facts.now))
    if facts.now < facts.installed - 86400:
        detail = f"it is {told}, before this program was installed: certificates would not be valid"
        yield Finding("clock", BAD, detail, "set the clock: timedatectl set-ntp true")
    else:
        yield Finding("clock", GOOD, told)


def _numbers(text: str) -> tuple[int, ...]:
    """`6.1.0-13-amd64` -> (6, 1)"""
    return tuple(int(part) for part in text.split("-")[0].split(".")[:2] if part.isdigit())


Check = Callable[[Facts], Iterator[Finding]]
FIRST: tuple[Check, ...] = (_kernel,)
OF_NODES: tuple[Check, ...] = (_root, _docker, _nftables, _forwarding, _inotify, _cgroups, _capabilities)
LAST: tuple[Check, ...] = (_ports, _disk, _clock)
