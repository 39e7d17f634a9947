"""Docker's JSON both ways; create bodies are golden files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minik8s.runtime.base import ContainerSpec, Device, Mount, SandboxSpec
from minik8s.runtime.docker_json import (
    Identity,
    Limits,
    container_info,
    docker_create,
    parse_name,
    reductions,
    seconds,
)

GOLDENS = Path(__file__).parent / "goldens"
SANDBOX = SandboxSpec("uid-1", "web-0", "default", hostname="web-0")
PLAIN = ContainerSpec("uid-1", "web-0", "default", "app", 2, "abc", "sha256:1", SANDBOX, "sid")
HOST = replace(SANDBOX, hostname="", host_network=True, host_pid=True, host_ipc=True)
POOR = Limits(oom_score_adj=-500, capabilities=("CHOWN", "SYS_ADMIN"))
FULL = replace(
    PLAIN,
    command=("run",),
    args=("-v",),
    env=(("A", "1"), ("B", "=2")),
    working_dir="/srv",
    user="1000:2000",
    groups=("7",),
    mounts=(Mount("/a", "/b"), Mount("/c", "/d", read_only=True, propagation="rslave")),
    devices=(Device("/dev/fuse", "/dev/fuse"),),
    tty=True,
    stdin=True,
    stdin_once=True,
    read_only_root=True,
    no_new_privileges=True,
    cap_add=("NET_ADMIN",),
    cap_drop=("ALL",),
    cpu_shares=512,
    cpu_period=100_000,
    cpu_quota=50_000,
    memory=64 << 20,
    oom_score_adj=-997,
    cgroup_parent="/kubepods/uid-1",
    labels={"mine": "yes"},
    seccomp="/profile.json",
)
BODIES = {
    "sandbox": lambda: docker_create(SANDBOX, "node-1", Limits()),
    "sandbox-host": lambda: docker_create(HOST, "node-1", POOR),
    "sandbox-sysctls": lambda: docker_create(
        replace(SANDBOX, sysctls={"net.core.somaxconn": "9"}, cgroup_parent="/p"), "node-1", Limits()
    ),
    "container": lambda: docker_create(PLAIN, "node-1", Limits()),
    "container-full": lambda: docker_create(FULL, "node-1", Limits(), seccomp='{"defaultAction": "SCMP_ACT_ALLOW"}'),
    "container-host": lambda: docker_create(replace(PLAIN, sandbox=HOST), "node-1", Limits()),
    "container-privileged": lambda: docker_create(replace(PLAIN, privileged=True), "node-1", Limits()),
    "container-privileged-poor": lambda: docker_create(
        replace(PLAIN, privileged=True, oom_score_adj=-997), "node-1", POOR
    ),
    "container-all-capabilities-poor": lambda: docker_create(replace(PLAIN, cap_add=("ALL",)), "node-1", POOR),
    "container-shared-pid": lambda: docker_create(
        replace(PLAIN, sandbox=replace(SANDBOX, share_pid=True)), "node-1", Limits()
    ),
    "container-ephemeral": lambda: docker_create(replace(PLAIN, pid_target="other"), "node-1", Limits()),
}


@pytest.mark.parametrize("name", BODIES)
def test_create_bodies(name: str, request: pytest.FixtureRequest) -> None:
    text = json.dumps(BODIES[name](), indent=2, sort_keys=True) + "\n"
    golden = GOLDENS / f"{name}.json"
    if request.config.getoption("--update-goldens"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_names_carry_identity() -> None:
    who = Identity("app", "web-0.x", "default", "1-2-3", 4)
    assert str(who) == "k8s_app_web-0.x_default_1-2-3_4"
    assert parse_name(f"/{who}") == who
    for other in ("web", "k8s_a_b_c_d_x", "k8s_a_b_c_d_1_2"):
        assert parse_name(other) is None


def test_what_the_host_cannot_give_is_said() -> None:
    asked = replace(PLAIN, privileged=True, oom_score_adj=-997)
    assert reductions(asked, Limits()) == ()
    assert len(reductions(asked, POOR)) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0001-01-01T00:00:00Z", 0),
        ("", 0),
        ("2024-05-01T10:00:00Z", 1714557600),
        ("2024-05-01T10:00:00.5Z", 1714557600.5),
        ("2024-05-01T12:00:00.25+02:00", 1714557600.25),
    ],
)
def test_times(text: str, value: float) -> None:
    assert seconds(text) == value


def answer(**state: Any) -> dict[str, Any]:
    still = {
        "Status": "running", "Pid": 7, "ExitCode": 0, "Error": "", "OOMKilled": False,
        "StartedAt": "2024-05-01T10:00:01Z", "FinishedAt": "0001-01-01T00:00:00Z",
    }  # fmt: skip
    return {
        "Id": "abc",
        "Name": "/k8s_app_web-0_default_uid-1_2",
        "Created": "2024-05-01T10:00:00Z",
        "Image": "sha256:1",
        "Config": {"Image": "sha256:1", "Labels": {"io.minik8s.image": "web:1"}},
        "HostConfig": {"NetworkMode": "container:sid"},
        "State": still | state,
    }


def test_container_info() -> None:
    info = container_info(answer())
    assert info is not None
    assert (info.name, info.attempt, info.state, info.pid, info.image) == ("app", 2, "running", 7, "web:1")
    assert (info.started_at - info.created_at, info.finished_at) == (1, 0)


def test_a_container_that_a_power_cut_ended() -> None:
    info = container_info(answer(Status="exited", Pid=0, ExitCode=255, FinishedAt="2024-05-01T11:00:00Z"))
    assert info is not None
    assert (info.state, info.exit_code, info.finished_at) == ("exited", 255, 1714561200)


def test_a_container_that_could_not_start() -> None:
    info = container_info(answer(Status="created", Pid=0, ExitCode=127, Error="no such file", StartedAt=""))
    assert info is not None
    assert (info.state, info.exit_code, info.error) == ("exited", 127, "no such file")
    assert info.finished_at == info.created_at


def test_gpus_are_requested_by_id() -> None:
    body = docker_create(replace(PLAIN, gpus=("GPU-1",)), "node", Limits())
    wanted = {"Driver": "nvidia", "DeviceIDs": ["GPU-1"], "Capabilities": [["gpu"]]}
    assert body["HostConfig"]["DeviceRequests"] == [wanted]
