"""The machine's own figures, from /proc and the file system. Parsing is pure; `read_node` reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from minik8s.kubelet.figures import NodeFigures, PodFigures
from minik8s.runtime.cgroup import parse_links

_TICK: Final = os.sysconf("SC_CLK_TCK")
# Neither of the machine itself nor of a single pod's own end, which is told with the pod.
_VIRTUAL: Final = ("veth", "mk8s", "docker", "br-", "ifb", "dummy", "vxlan", "tunl")


def cpu_seconds(stat: str) -> float:
    """CPU time in use since boot: user, nice, system, irq and softirq of `/proc/stat` (proc(5)).

    Guests' time is in user's already, and stolen time was used by another machine.
    """
    columns = [int(word) for word in stat.split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq = columns[:7]
    return (user + nice + system + irq + softirq) / _TICK


def boot_time(stat: str) -> float:
    return next((float(line.split()[1]) for line in stat.splitlines() if line.startswith("btime ")), 0.0)


def processes(loadavg: str) -> int:
    """All threads of the machine, which is what its limit counts: the part behind the slash in `/proc/loadavg`."""
    return int(loadavg.split()[3].partition("/")[2])


def memory(meminfo: str) -> dict[str, int]:
    """`/proc/meminfo` in bytes."""
    pairs = (line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    return {name: int(rest.split()[0]) * 1024 for name, rest in pairs}


def default_link(route: str) -> str:
    """The interface of the default route in `/proc/net/route`; "" if there is none."""
    rows = (line.split() for line in route.splitlines()[1:])
    return next((row[0] for row in rows if len(row) > 2 and row[1] == "00000000"), "")


def read_node(folder: Path, proc: Path = Path("/proc")) -> NodeFigures:
    """`folder` is on the file system that holds the node's data. Some twenty microseconds a file; OSError."""
    stat, found = (proc / "stat").read_text(), memory((proc / "meminfo").read_text())
    faults = dict(line.split(" ", 1) for line in (proc / "vmstat").read_text().splitlines())
    disk = os.statvfs(folder)
    links = parse_links((proc / "net/dev").read_bytes())
    return NodeFigures(
        cpu_seconds=cpu_seconds(stat),
        memory_total=found["MemTotal"],
        memory_available=found["MemAvailable"],
        memory_free=found["MemFree"],
        rss=found.get("AnonPages", 0),
        page_faults=int(faults.get("pgfault", 0)),
        major_page_faults=int(faults.get("pgmajfault", 0)),
        links=tuple(link for link in links if not link.name.startswith(_VIRTUAL)),
        default_link=default_link((proc / "net/route").read_text()),
        disk_total=disk.f_blocks * disk.f_frsize,
        disk_available=disk.f_bavail * disk.f_frsize,
        disk_used=(disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        inodes=disk.f_files,
        inodes_free=disk.f_ffree,
        processes=processes((proc / "loadavg").read_text()),
        most_processes=int((proc / "sys/kernel/pid_max").read_text()),
        booted=boot_time(stat),
    )


def simulated(pods: Iterable[PodFigures], total: int, booted: float) -> NodeFigures:
    """A machine that does nothing but run these pods. `total` is its memory in bytes."""
    stats = [each.stats for pod in pods for each in pod.containers]
    used = sum(one.memory_bytes for one in stats)
    return NodeFigures(
        cpu_seconds=sum(one.cpu_seconds for one in stats),
        memory_total=total,
        memory_available=max(total - used, 0),
        memory_free=max(total - used, 0),
        rss=used,
        processes=len(stats),
        booted=booted,
    )
