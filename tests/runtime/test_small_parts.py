"""Image references, the pause program, cgroup files, log frames, the pool."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minik8s.runtime.base import InvalidImageName, LinkStats, LogLine, ProcessStats
from minik8s.runtime.cgroup import cgroup_files, parse_links, read_stats
from minik8s.runtime.docker_json import Limits
from minik8s.runtime.docker_streams import log_lines
from minik8s.runtime.linux import own_limits
from minik8s.runtime.pause import executable, image_name, layer
from minik8s.runtime.reference import parse_reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "registry", "whole"),
    [
        ("nginx", "docker.io", "nginx:latest"),
        ("nginx:1.2", "docker.io", "nginx:1.2"),
        ("me/web:1", "docker.io", "me/web:1"),
        ("localhost/web", "localhost", "localhost/web:latest"),
        ("host:5000/a/b:1", "host:5000", "host:5000/a/b:1"),
        ("r.example/a@" + DIGEST, "r.example", "r.example/a@" + DIGEST),
        ("r.example/a:1@" + DIGEST, "r.example", "r.example/a@" + DIGEST),
    ],
)
def test_references(text: str, registry: str, whole: str) -> None:
    assert parse_reference(text).registry == registry
    assert str(parse_reference(text)) == whole


@pytest.mark.parametrize("text", ["", "Nginx", "a b", "a:", "a//b", "a@sha256:12", "-a", "a:b:c", "a" * 300, "a\n"])
def test_bad_references(text: str) -> None:
    with pytest.raises(InvalidImageName, match="couldn't parse image name"):
        parse_reference(text)


def test_the_pause_program_is_small_and_always_the_same() -> None:
    for architecture, machine in (("amd64", 62), ("arm64", 183)):
        program = executable(architecture)
        assert len(program) < 300
        assert struct.unpack_from("<H", program, 18) == (machine,)
        assert layer(architecture) == layer(architecture)
    assert image_name("amd64") != image_name("arm64")


V1 = {
    "cpuacct/cpuacct.usage": "2500000000\n",
    "cpuacct/cpuacct.stat": "user 200\nsystem 50\n",
    "cpu/cpu.stat": "nr_periods 10\nnr_throttled 3\nthrottled_time 1500000000\n",
    "memory/memory.usage_in_bytes": "1000\n",
    "memory/memory.stat": "rss 1\ninactive_file 1\nhierarchical_memory_limit 4096\ntotal_rss 600\ntotal_cache 390\n"
    "total_swap 7\ntotal_inactive_file 300\ntotal_pgfault 9\ntotal_pgmajfault 2\ntotal_mapped_file 5\n",
    "memory/memory.failcnt": "4\n",
    "memory/cgroup.procs": "70\n71\n",
    "blkio/blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 20\n8:16 Read 5\n8:0 Total 30\nTotal 35\n",
    "blkio/blkio.throttle.io_serviced": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
    "pids/pids.current": "6\n",
}
V2 = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 3\n"
    "throttled_usec 1500000\n",
    "memory.current": "1000\n",
    "memory.stat": "anon 600\nfile 390\ninactive_file 300\npgfault 9\npgmajfault 2\nfile_mapped 5\n",
    "memory.max": "4096\n",
    "memory.swap.current": "7\n",
    "memory.events": "low 0\nmax 4\noom 0\n",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0\n8:16 rbytes=5 wbytes=0\n253:0 \n",
    "pids.current": "6\n",
    "cgroup.procs": "70\n71\n",
}
FIGURES = ProcessStats(
    cpu_seconds=2.5, memory_bytes=700, user_seconds=2.0, system_seconds=0.5,
    periods=10, throttled_periods=3, throttled_seconds=1.5,
    memory_usage=1000, memory_limit=4096, memory_failures=4, rss=600, cache=390, swap=7, mapped_file=5,
    page_faults=9, major_page_faults=2, read_bytes=15, written_bytes=20, reads=1, writes=2,
    processes=2, threads=6, pid=70,
)  # fmt: skip


def test_cgroup_v1(tmp_path: Path) -> None:
    for place, text in V1.items():
        folder, name = place.split("/")
        (tmp_path / folder / "docker/abc").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "docker/abc" / name).write_text(text)
    split = "".join(
        f"{at}:{name}:/docker/abc\n" for at, name in enumerate(("cpu", "cpuacct", "memory", "blkio", "pids"))
    )
    files = cgroup_files(split + "0::/x\n", tmp_path)
    assert files is not None
    assert read_stats(files) == FIGURES
    (tmp_path / "memory/docker/abc/memory.stat").write_text("hierarchical_memory_limit 9223372036854771712\n")
    assert read_stats(files).memory_limit == 0
    assert cgroup_files("3:cpu,cpuacct:/gone\n2:memory:/gone\n", tmp_path) is None


def test_cgroup_v2(tmp_path: Path) -> None:
    group = tmp_path / "system.slice/docker-abc.scope"
    group.mkdir(parents=True)
    for name, text in V2.items():
        (group / name).write_text(text)
    files = cgroup_files("0::/system.slice/docker-abc.scope\n", tmp_path)
    assert files is not None
    assert read_stats(files) == FIGURES
    (group / "memory.max").write_text("max\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 2000\n")
    for name in ("io.stat", "memory.swap.current", "memory.events", "pids.current"):
        (group / name).unlink()  # controllers that a kernel lacks
    (group / "cgroup.procs").write_text("")
    assert read_stats(files)[1:] == FIGURES._replace(
        memory_bytes=0, memory_limit=0, memory_failures=0, rss=5, cache=0, swap=0, mapped_file=0, page_faults=0,
        major_page_faults=0, read_bytes=0, written_bytes=0, reads=0, writes=0, processes=0, threads=0, pid=0,
    )[1:]  # fmt: skip
    (group / "memory.current").unlink()
    with pytest.raises(FileNotFoundError):
        read_stats(files)


def test_links() -> None:
    heading = b"Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n"
    table = b"    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0:100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n"
    assert parse_links(heading + table) == (LinkStats("eth0", 100, 2, 3, 4, 500, 6, 7, 8),)
    assert parse_links(b"") == ()


def test_own_limits(tmp_path: Path) -> None:
    (tmp_path / "oom_score_adj").write_text("-17\n")
    (tmp_path / "status").write_text("Name:\tx\nCapBnd:\t000001ffffffffff\n")
    assert own_limits(tmp_path) == Limits()
    (tmp_path / "status").write_text("Name:\tx\nCapBnd:\t0000000000000003\n")
    assert own_limits(tmp_path) == Limits(-17, ("CHOWN", "DAC_OVERRIDE"))


async def _pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def _frame(stream: int, data: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_frames_in_any_pieces(size: int) -> None:
    data = _frame(1, b"T one\n") + _frame(2, b"T err\n") + _frame(1, b"T long") + _frame(1, b"T er\n")
    lines = [line async for line in log_lines(_pieces(data, size), framed=True, timestamps=True)]
    # The engine cut the last line in two and stamped both pieces.
    assert lines == [LogLine(1, b"T one\n"), LogLine(2, b"T err\n"), LogLine(1, b"T long"), LogLine(1, b"er\n")]


async def test_lines_of_a_terminal() -> None:
    lines = [line async for line in log_lines(_pieces(b"one\r\ntwo\r\nrest", 4), framed=False, timestamps=False)]
    assert lines == [LogLine(1, b"one\r\n"), LogLine(1, b"two\r\n"), LogLine(1, b"rest")]
