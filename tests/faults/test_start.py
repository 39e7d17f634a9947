"""What keeps an agent from starting: one clear line, exit code 1, and nothing changed that was there."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minik8s.api.errors import StatusError
from minik8s.api.kinds.configmap import ConfigMap
from tests.agent import Agent, answers, until
from tests.faults.api import admin
from tests.faults.host import Host

pytestmark = [pytest.mark.faults]


def master(folder: Path) -> Agent:
    """A control plane alone: it needs neither root nor Docker."""
    return Agent(folder, options=("--role", "master"))


def started(agent: Agent) -> Agent:
    agent.start(ready=False)
    until(lambda: agent.pid is None or answers(agent.port, "/readyz"), what=lambda: agent.log)
    assert agent.pid is not None, agent.log
    return agent


def refused(agent: Agent) -> str:
    """The only line that an agent says which cannot start."""
    before = len(agent.log) if agent.data.exists() and (agent.data / "test-agent.log").exists() else 0
    agent.start(ready=False)
    assert agent.process is not None
    assert agent.process.wait(30) == 1
    said = agent.log[before:]
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if not line.startswith("{")]
    return line


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def cluster(data: Path) -> Iterator[Agent]:
    agent = master(data)
    yield agent
    if agent.pid is not None:
        agent.kill9()


def test_a_second_agent_is_refused_with_the_pid_of_the_first(cluster: Agent) -> None:
    started(cluster)
    second = master(cluster.data)
    line = refused(second)
    assert f"pid {cluster.pid}" in line
    assert str(cluster.data) in line
    assert "minik8s stop" in line
    assert answers(cluster.port, "/readyz")
    assert cluster.stop() == 0


def test_a_port_that_is_taken(cluster: Agent) -> None:
    with socket.socket() as other:
        other.bind(("", cluster.port))
        other.listen()
        line = refused(cluster)
    assert f":{cluster.port}" in line
    assert "Address already in use" in line
    assert "--listen" in line
    started(cluster)


@pytest.mark.docker
@pytest.mark.root
def test_a_kubelet_port_that_is_taken(engine: None) -> None:
    with Agent.lent() as agent, socket.socket() as other:
        other.bind(("", agent.kubelet_port))
        other.listen()
        line = refused(agent)
        assert f":{agent.kubelet_port}" in line
        assert "--kubelet-port" in line


def scratch(file: Path) -> None:
    with file.open("r+b") as raw:
        raw.seek(4096)
        raw.write(os.urandom(3 * 4096))


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def text(file: Path) -> None:
    file.write_text("precious notes of somebody\n" * 100)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def foreign(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE kv (precious TEXT)")


@pytest.mark.parametrize("harm", [scratch, half, text, empty, foreign])
def test_a_store_that_is_no_store(cluster: Agent, harm: Callable[[Path], None]) -> None:
    started(cluster).stop()
    file = cluster.data / "state.db"
    harm(file)
    before = file.read_bytes()
    line = refused(cluster)
    assert str(file) in line
    assert "not changed" in line
    assert "backup" in line
    assert file.read_bytes() == before
    file.unlink()  # what the line says
    for log in cluster.data.glob("state.db-*"):
        log.unlink()
    started(cluster)


def test_a_data_folder_that_is_a_file(data: Path) -> None:
    data.write_text("not a folder")
    answer = Agent(data.parent / "aside").minik8s("run", "--role", "master", "--data-dir", str(data), check=False)
    assert answer.code == 1
    assert "Traceback" not in answer.both
    assert str(data) in answer.err


@pytest.fixture
def small(data: Path) -> Iterator[Path]:
    """A data folder on a file system of 4 MB."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a small file system is mounted")
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "minik8s-test", data], check=True)
    yield data
    subprocess.run(["umount", "--lazy", data], check=True)


def resize(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


@pytest.mark.root
async def test_a_full_disk(small: Path, cluster: Agent) -> None:
    started(cluster)
    written: list[str] = []
    errors: list[StatusError] = []
    async with admin(cluster) as client:
        for number in range(200):
            body = {"metadata": {"name": f"big-{number}"}, "data": {"a": "x" * 100_000}}
            try:
                await client.create(ConfigMap, body, "default")
            except StatusError as error:
                errors.append(error)
                break
            written.append(f"big-{number}")
    assert len(written) > 5
    assert errors
    assert errors[0].code >= 500
    assert "full" in str(errors[0])
    # It stops rather than promise what it cannot keep, and says what to do.
    assert cluster.process is not None
    assert cluster.process.wait(20) == 1
    last = cluster.log.splitlines()[-1]
    assert "full" in last
    assert "free space" in last
    assert "Traceback" not in cluster.log

    # So it does as long as there is no space; or it shows at least what it has.
    cluster.start(ready=False)
    until(lambda: cluster.pid is None or answers(cluster.port, "/readyz"), what=lambda: cluster.log)
    if cluster.pid is not None:
        cluster.stop()
    else:
        assert "space" in cluster.log.splitlines()[-1]
        assert str(small) in cluster.log.splitlines()[-1]
    assert "Traceback" not in cluster.log

    resize(small, "40m")
    started(cluster)
    async with admin(cluster) as client:
        kept = {one.metadata.name for one in (await client.list(ConfigMap, "default")).items}
        assert set(written) <= kept
        await client.create(ConfigMap, {"metadata": {"name": "after"}}, "default")
    cluster.stop()
    with sqlite3.connect(small / "state.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.docker
@pytest.mark.root
async def test_the_api_answers_while_the_engine_does_not(engine: None, tmp_path: Path) -> None:
    """And the node comes as soon as the engine does."""
    socket_path = tmp_path / "docker.sock"
    with Agent.lent("--docker-host", f"unix://{socket_path}") as agent:
        agent.start(ready=False)
        until(lambda: answers(agent.port, "/readyz"), what=lambda: agent.log)
        until(lambda: "waiting for the container engine" in agent.log, what=lambda: agent.log)
        assert str(socket_path) in agent.log
        socket_path.symlink_to("/var/run/docker.sock")
        agent.wait_ready()
        assert Host(agent).node_uid
