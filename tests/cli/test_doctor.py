"""`minik8s doctor`: each check from facts, and the command on this very machine."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from minik8s.cli import cli, doctor
from minik8s.cli.diagnosis import BAD, GOOD, POOR, Facts, Finding, Port, findings
from minik8s.config import Config

NODE = Config()
FINE = Facts(ports=(Port("0.0.0.0", 6443, "--listen"),))


def test_a_good_machine() -> None:
    found = findings(NODE, FINE)
    assert {finding.state for finding in found} == {GOOD}
    assert [finding.check for finding in found] == [
        "kernel", "root", "docker", "nftables", "ip_forward", "inotify", "cgroups", "ports", "disk", "clock",
    ]  # fmt: skip
    assert not any(finding.remedy for finding in found)


@pytest.mark.parametrize(
    ("check", "state", "facts", "said", "remedy"),
    [
        ("root", BAD, {"root": False}, "needs root", "sudo"),
        ("kernel", BAD, {"kernel": "4.19.0-26-amd64"}, "Linux 4.19.0-26-amd64 is older than 5.2", "upgrade"),
        ("kernel", GOOD, {"kernel": "5.2.0"}, "Linux 5.2.0", ""),
        ("kernel", GOOD, {"kernel": "6.18.44-fc-v669"}, "6.18", ""),
        ("docker", BAD, {"docker_fault": "No such file or directory"}, "docker.sock: No such", "install docker.io"),
        ("docker", BAD, {"docker_version": "19.03.15", "docker_api": "1.40"}, "19.03.15 is too old", "20.10 or newer"),
        ("docker", GOOD, {"docker_version": "29.0.1", "docker_api": "1.52"}, "29.0.1 (API 1.52)", ""),
        ("nftables", BAD, {"libnftables": False, "nft": False}, "neither", "install nftables"),
        ("nftables", BAD, {"nft_fault": "Operation not supported"}, "Operation not supported", "modprobe"),
        ("nftables", POOR, {"libnftables": False}, "only the nft program", "libnftables1"),
        ("ip_forward", GOOD, {"ip_forward": False}, "the agent turns it on", ""),
        ("inotify", POOR, {"inotify": 64}, "64", "sysctl"),
        ("cgroups", BAD, {"cgroups": ""}, "no memory controller", "mount cgroup2"),
        ("cgroups", GOOD, {"cgroups": "v1"}, "v1", ""),
        ("capabilities", POOR, {"bounding": 0x1FFFEFFFFFF}, "CAP_SYS_RESOURCE", "sandbox"),
        ("ports", BAD, {"ports": (Port("0.0.0.0", 10250, "--kubelet-port", "Address already in use"),)},
         "0.0.0.0:10250: Address already in use", "give --kubelet-port"),
        ("ports", GOOD, {"agent": 17, "ports": ()}, "an agent runs here (pid 17)", ""),
        ("disk", POOR, {"disk": 1 << 30, "folder": "/srv"}, "1.0 GiB free at /srv", "--data-dir"),
        ("clock", BAD, {"now": 0.0, "installed": 1.7e9}, "1970-01-01 00:00:00 UTC", "timedatectl"),
        ("clock", GOOD, {"now": 1.7e9, "installed": 1.7e9 + 3600}, "2023-11-14", ""),
    ],
)  # fmt: skip
def test_each_check(check: str, state: str, facts: dict[str, Any], said: str, remedy: str) -> None:
    found = findings(NODE, replace(FINE, **facts))
    (finding,) = [each for each in found if each.check == check]
    assert finding.state == state
    assert said in finding.detail
    assert remedy in finding.remedy
    assert bool(finding.remedy) == (state != GOOD)
    assert all(each.state == GOOD for each in found if each.check != check)  # nothing else is blamed


def test_who_runs_no_containers_needs_no_engine() -> None:
    bad = replace(
        FINE, root=False, docker_fault="gone", nft=False, libnftables=False, cgroups="", bounding=0, inotify=1
    )
    for config in (Config(role="master"), Config(role="worker", join="x", runtime="fake")):
        assert [finding.check for finding in findings(config, bad)] == ["kernel", "ports", "disk", "clock"]
        assert {finding.state for finding in findings(config, bad)} == {GOOD}


# -- the command


@pytest.mark.parametrize(
    ("facts", "code"), [(FINE, 0), (replace(FINE, inotify=1), 0), (replace(FINE, docker_fault="it is gone"), 1)]
)
def test_the_exit_code_tells_whether_it_would_work(monkeypatch: pytest.MonkeyPatch, facts: Facts, code: int) -> None:
    monkeypatch.setattr(doctor, "look", lambda config: facts)
    done = CliRunner().invoke(cli, ["doctor", "-o", "json"])
    assert done.exit_code == code
    assert [Finding(**each) for each in json.loads(done.stdout)] == findings(NODE, facts)
    text = CliRunner().invoke(cli, ["doctor"])
    assert text.exit_code == code
    assert text.stdout.splitlines()[0] == f"ok       kernel       Linux {facts.kernel}"
    assert ("failed   docker" in text.stdout) == (code == 1)


def test_this_machine(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["doctor", "--data-dir", str(tmp_path / "d" / "e"), "-o", "json"])
    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert set(found) >= {"kernel", "root", "docker", "nftables", "cgroups", "ports", "disk", "clock"}
    assert found["kernel"]["detail"] == f"Linux {os.uname().release}"
    assert found["disk"]["detail"].endswith(f"free at {tmp_path}")
    assert found["root"]["state"] == (GOOD if os.geteuid() == 0 else BAD)
    assert done.exit_code == (1 if any(each["state"] == BAD for each in found.values()) else 0)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = CliRunner().invoke(cli, ["doctor", "--role", "master", "--data-dir", str(tmp_path), "--listen", address])
    assert done.exit_code == 1
    assert f"{address}: Address already in use" in done.stdout
    done = CliRunner().invoke(cli, ["doctor", "--role", "master", "--data-dir", str(tmp_path), "--listen", address])
    assert done.exit_code == 0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Something that listens where an Engine should, and what it says."""
    says = [b""]
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "e.sock"))
    listening.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(says[0])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"unix://{tmp_path / 'e.sock'}", says
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


@pytest.mark.parametrize(
    ("body", "state", "said"),
    [
        (b'{"Version": "26.1.5", "ApiVersion": "1.45"}', GOOD, "Engine 26.1.5 (API 1.45)"),
        (b'{"Version": "1.12", "ApiVersion": "1.24"}', BAD, "too old"),
        (b"<html>", BAD, "does not answer"), (b"{}", BAD, "does not answer"), (b"", BAD, "does not answer"),
    ],
)  # fmt: skip
def test_engines_of_all_kinds(
    engine: tuple[str, list[bytes]], tmp_path: Path, body: bytes, state: str, said: str
) -> None:
    address, says = engine
    says[0] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body) if body else b""
    done = CliRunner().invoke(cli, ["doctor", "--data-dir", str(tmp_path), "--docker-host", address, "-o", "json"])
    (found,) = [each for each in json.loads(done.stdout) if each["check"] == "docker"]
    assert (found["state"], said in found["detail"]) == (state, True), found


def test_no_engine_at_all(tmp_path: Path) -> None:
    for address in (f"unix://{tmp_path}/none.sock", "tcp://127.0.0.1:1"):
        done = CliRunner().invoke(cli, ["doctor", "--data-dir", str(tmp_path), "--docker-host", address])
        assert done.exit_code == 1
        assert f"the Engine does not answer at {address}" in done.stdout
