"""CPU time and memory of a container from the kernel's own files, cgroup v1 and v2.

Docker's stats call takes a second and a connection; these are two small files that the kernel makes up when read.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from minik8s.runtime.base import ProcessStats


class CgroupFiles(NamedTuple):
    cpu: Path  # v1: cpuacct.usage; v2: cpu.stat
    memory: Path  # v1: memory.usage_in_bytes; v2: memory.current
    memory_stat: Path


def cgroup_files(proc_cgroup: str, root: Path = Path("/sys/fs/cgroup")) -> CgroupFiles | None:
    """Where the figures are for a process with this `/proc/<pid>/cgroup`; None if its groups are not mounted."""
    paths = _paths(proc_cgroup)
    if "memory" in paths:  # v1, also in its hybrid form
        cpu, memory = root / "cpuacct" / paths["cpuacct"], root / "memory" / paths["memory"]
        files = CgroupFiles(cpu / "cpuacct.usage", memory / "memory.usage_in_bytes", memory / "memory.stat")
    else:
        group = root / paths.get("", "")
        files = CgroupFiles(group / "cpu.stat", group / "memory.current", group / "memory.stat")
    return files if files.memory.exists() else None


def cgroup_of(pid: int) -> str:
    """The text of `/proc/<pid>/cgroup`."""
    return Path(f"/proc/{pid}/cgroup").read_text()


def _paths(proc_cgroup: str) -> dict[str, str]:
    """Controller → path below its mount; the unified hierarchy is ""."""
    found: dict[str, str] = {}
    for line in proc_cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path.lstrip("/")
    return found


def read_stats(files: CgroupFiles) -> ProcessStats:
    """Working set is what cannot be dropped: usage without inactive file pages, as kubelet counts it.

    OSError if the group is gone.
    """
    usage = int(files.memory.read_text())
    stat = dict(line.split(" ", 1) for line in files.memory_stat.read_text().splitlines())
    inactive = int(stat.get("total_inactive_file") or stat.get("inactive_file") or 0)
    return ProcessStats(_cpu_seconds(files.cpu), max(usage - inactive, 0))


def _cpu_seconds(path: Path) -> float:
    text = path.read_text()
    if path.name == "cpuacct.usage":
        return int(text) / 1e9
    figures = dict(line.split(" ", 1) for line in text.splitlines())
    return int(figures["usage_usec"]) / 1e6
