"""Image references, the pause program, cgroup files, log frames, the pool."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minik8s.runtime.base import InvalidImageName, LogLine
from minik8s.runtime.cgroup import cgroup_files, read_stats
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


def test_cgroup_v1(tmp_path: Path) -> None:
    for folder, name, text in (
        ("cpuacct", "cpuacct.usage", "2500000000\n"),
        ("memory", "memory.usage_in_bytes", "1000\n"),
        ("memory", "memory.stat", "inactive_file 1\ntotal_inactive_file 300\n"),
    ):
        (tmp_path / folder / "docker/abc").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "docker/abc" / name).write_text(text)
    files = cgroup_files("3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n0::/x\n", tmp_path)
    assert files is not None
    assert read_stats(files) == (2.5, 700)
    assert cgroup_files("3:cpu,cpuacct:/gone\n2:memory:/gone\n", tmp_path) is None


def test_cgroup_v2(tmp_path: Path) -> None:
    group = tmp_path / "system.slice/docker-abc.scope"
    group.mkdir(parents=True)
    (group / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (group / "memory.current").write_text("1000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 2000\n")
    files = cgroup_files("0::/system.slice/docker-abc.scope\n", tmp_path)
    assert files is not None
    assert read_stats(files) == (1.5, 0)


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
