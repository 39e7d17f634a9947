"""What a container uses, from the kernel's own files: cgroup v1 and v2, and its processes' /proc.

Docker's stats call takes a second and a connection; these are ten small files that the kernel makes up when read.
They are read as bytes through `os.open`: ten times per container and look, pathlib would cost more than the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from minik8s.runtime.base import LinkStats, ProcessStats

_NO_LIMIT = 1 << 60  # bytes; v1 says "none" by the largest number of pages
_TICK = os.sysconf("SC_CLK_TCK")
_LONGEST = 1 << 16  # bytes of one read; a list of processes may take several


class CgroupFiles(NamedTuple):
    """The group's folder under each controller's mount; under v2 they are all the same."""

    unified: bool
    cpu: str
    cpuacct: str
    memory: str
    blkio: str
    pids: str


def cgroup_files(proc_cgroup: str, root: Path = Path("/sys/fs/cgroup")) -> CgroupFiles | None:
    """Where the figures are for a process with this `/proc/<pid>/cgroup`; None if its groups are not mounted."""
    paths = _paths(proc_cgroup)
    if "memory" in paths:  # v1, also in its hybrid form
        names = ("cpu", "cpuacct", "memory", "blkio", "pids")
        files = CgroupFiles(False, *(str(root / name / paths.get(name, "")) for name in names))
        found = Path(files.memory, "memory.usage_in_bytes")
    else:
        folder = str(root / paths.get("", ""))
        files = CgroupFiles(True, folder, folder, folder, folder, folder)
        found = Path(files.memory, "memory.current")
    return files if found.exists() else None


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
    """OSError if the group is gone. What a kernel was built without (swap, I/O) reads as 0."""
    return _read_v2(files.memory) if files.unified else _read_v1(files)


def _read_v1(files: CgroupFiles) -> ProcessStats:
    usage = int(_read(f"{files.memory}/memory.usage_in_bytes"))
    memory = _pairs(_read(f"{files.memory}/memory.stat"))
    limit = memory.get(b"hierarchical_memory_limit", 0)
    cpu, times = _pairs(_maybe(f"{files.cpu}/cpu.stat")), _pairs(_maybe(f"{files.cpuacct}/cpuacct.stat"))
    size = dict(_operations(_maybe(f"{files.blkio}/blkio.throttle.io_service_bytes")))
    count = dict(_operations(_maybe(f"{files.blkio}/blkio.throttle.io_serviced")))
    members = _maybe(f"{files.memory}/cgroup.procs").split()
    return ProcessStats(
        cpu_seconds=int(_read(f"{files.cpuacct}/cpuacct.usage")) / 1e9,
        memory_bytes=max(usage - memory.get(b"total_inactive_file", 0), 0),
        user_seconds=times.get(b"user", 0) / _TICK,
        system_seconds=times.get(b"system", 0) / _TICK,
        periods=cpu.get(b"nr_periods", 0),
        throttled_periods=cpu.get(b"nr_throttled", 0),
        throttled_seconds=cpu.get(b"throttled_time", 0) / 1e9,
        memory_usage=usage,
        memory_limit=limit if limit < _NO_LIMIT else 0,
        memory_failures=int(_maybe(f"{files.memory}/memory.failcnt") or 0),
        rss=memory.get(b"total_rss", 0),
        cache=memory.get(b"total_cache", 0),
        swap=memory.get(b"total_swap", 0),
        mapped_file=memory.get(b"total_mapped_file", 0),
        page_faults=memory.get(b"total_pgfault", 0),
        major_page_faults=memory.get(b"total_pgmajfault", 0),
        read_bytes=size.get(b"Read", 0),
        written_bytes=size.get(b"Write", 0),
        reads=count.get(b"Read", 0),
        writes=count.get(b"Write", 0),
        processes=len(members),
        threads=int(_maybe(f"{files.pids}/pids.current") or 0),
        pid=int(members[0]) if members else 0,
    )


def _read_v2(group: str) -> ProcessStats:
    usage = int(_read(f"{group}/memory.current"))
    memory, cpu = _pairs(_read(f"{group}/memory.stat")), _pairs(_read(f"{group}/cpu.stat"))
    limit = _maybe(f"{group}/memory.max").strip()
    disk = _io(_maybe(f"{group}/io.stat"))
    members = _maybe(f"{group}/cgroup.procs").split()
    return ProcessStats(
        cpu_seconds=cpu[b"usage_usec"] / 1e6,
        memory_bytes=max(usage - memory.get(b"inactive_file", 0), 0),
        user_seconds=cpu.get(b"user_usec", 0) / 1e6,
        system_seconds=cpu.get(b"system_usec", 0) / 1e6,
        periods=cpu.get(b"nr_periods", 0),
        throttled_periods=cpu.get(b"nr_throttled", 0),
        throttled_seconds=cpu.get(b"throttled_usec", 0) / 1e6,
        memory_usage=usage,
        memory_limit=int(limit) if limit.isdigit() else 0,
        memory_failures=_pairs(_maybe(f"{group}/memory.events")).get(b"max", 0),
        rss=memory.get(b"anon", 0),
        cache=memory.get(b"file", 0),
        swap=int(_maybe(f"{group}/memory.swap.current") or 0),
        mapped_file=memory.get(b"file_mapped", 0),
        page_faults=memory.get(b"pgfault", 0),
        major_page_faults=memory.get(b"pgmajfault", 0),
        read_bytes=disk.get(b"rbytes", 0),
        written_bytes=disk.get(b"wbytes", 0),
        reads=disk.get(b"rios", 0),
        writes=disk.get(b"wios", 0),
        processes=len(members),
        threads=int(_maybe(f"{group}/pids.current") or 0),
        pid=int(members[0]) if members else 0,
    )


def read_links(pid: int) -> tuple[LinkStats, ...]:
    """The network interfaces that a process sees, `lo` apart; none if it has gone."""
    return parse_links(_maybe(f"/proc/{pid}/net/dev")) if pid else ()


def parse_links(net_dev: bytes) -> tuple[LinkStats, ...]:
    """`/proc/net/dev` (proc(5)): eight columns of what was received, then eight of what was sent."""
    found = []
    for line in net_dev.splitlines()[2:]:
        name, _, rest = line.partition(b":")
        columns = [int(word) for word in rest.split()]
        if name.strip() != b"lo" and len(columns) >= 12:
            found.append(LinkStats(name.strip().decode(errors="replace"), *columns[0:4], *columns[8:12]))
    return tuple(found)


# -- files


def _read(path: str) -> bytes:
    """A small file of the kernel, which has it ready in one read but for long lists."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, _LONGEST)
        while len(data) >= _LONGEST // 2 and (more := os.read(descriptor, _LONGEST)):
            data += more
        return data
    finally:
        os.close(descriptor)


def _maybe(path: str) -> bytes:
    """Empty where there is no such file."""
    with suppress(OSError):
        return _read(path)
    return b""


def _pairs(data: bytes) -> Mapping[bytes, int]:
    """Lines of a name and a number."""
    words = data.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=False))


def _operations(data: bytes) -> Iterator[tuple[bytes, int]]:
    """blkio's `MAJOR:MINOR Read 123`, added up over devices."""
    sums: dict[bytes, int] = {}
    for line in data.splitlines():
        words = line.split()
        if len(words) == 3:
            sums[words[1]] = sums.get(words[1], 0) + int(words[2])
    yield from sums.items()


def _io(data: bytes) -> dict[bytes, int]:
    """io.stat's `MAJOR:MINOR rbytes=1 wbytes=2 …`, added up over devices."""
    sums: dict[bytes, int] = {}
    for line in data.splitlines():
        for word in line.split()[1:]:
            name, _, value = word.partition(b"=")
            sums[name] = sums.get(name, 0) + int(value)
    return sums
