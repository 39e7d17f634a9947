"""An agent's life on a machine, as people run it: prepare, start, look, make tokens, stop, resume, take away."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from minik8s.cli import cli
from minik8s.config import Config, save
from minik8s.roles import process
from minik8s.roles.lock import agent_lock, running_pid
from minik8s.roles.reset import MARKS
from tests.agent import free_port, until


class Said(NamedTuple):
    code: int
    out: str
    err: str


# Whatever a test forgets to say: no reset here may look at the host's network or containers.
HARMLESS = {"MINIK8S_DATA_DIR": None, "MINIK8S_RUNTIME": "fake"}


def run(*args: str, **env: str) -> Said:
    done = CliRunner().invoke(cli, list(args), env={**HARMLESS, **env}, prog_name="minik8s")
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


def fails(*args: str, **env: str) -> str:
    """The one line that a mistake is answered with."""
    said = run(*args, **env)
    assert said.code == 1, said
    assert "Traceback" not in said.err
    (line,) = said.err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def fine(*args: str) -> str:
    said = run(*args)
    assert said.code == 0, said
    return said.out


class Place(NamedTuple):
    data: Path
    port: int

    @property
    def here(self) -> tuple[str, str]:
        return ("--data-dir", str(self.data))

    @property
    def options(self) -> tuple[str, ...]:
        return (
            *self.here, "--runtime", "fake", "--listen", f"127.0.0.1:{self.port}", "--node-ip", "127.0.0.1",
            "--node-name", "n1",
        )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "data", free_port())
    yield made
    pid = running_pid(made.data)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        until(lambda: running_pid(made.data) is None, what="the agent does not die")


def test_init_only_prepares_when_told_so(place: Place) -> None:
    assert fine("init", "--no-start", *place.options) == f"prepared {place.data}\n"
    assert running_pid(place.data) is None
    kubeconfig = place.data / "admin.kubeconfig"
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600
    ca = (place.data / "pki" / "ca.crt").read_bytes()
    assert fine("init", "--no-start", *place.here) == f"kept {place.data}\n"
    assert (place.data / "pki" / "ca.crt").read_bytes() == ca
    assert json.loads((place.data / "config.yaml").read_text())["runtime"] == "fake", "settings are remembered"


@pytest.mark.timeout(180)
def test_a_whole_life(place: Place) -> None:
    said = fine("init", *place.options)
    pid = running_pid(place.data)
    assert pid is not None
    assert f"prepared {place.data}" in said
    assert f"(pid {pid}) and answers at https://127.0.0.1:{place.port}" in said
    assert f"minik8s join 127.0.0.1:{place.port} --token " in said

    status = json.loads(fine("status", "-o", "json", *place.here))
    assert (status["pid"], status["ready"], status["role"], status["node"]) == (pid, True, "all", "n1")
    assert 10 < status["residentMegabytes"] < 200
    assert f"pid {pid}, ready, " in fine("status", *place.here)

    assert fine("start", *place.here) == f"the agent runs already (pid {pid})\n"
    second = fails("run", *place.here)
    assert f"(pid {pid}) already runs on {place.data}" in second

    token = fine("token", "create", "--description", "for a test", "--ttl", "30m", *place.here).strip()
    id, _, ca_hash = token.split(".")
    assert len(ca_hash) == 64
    listed = fine("token", "list", *place.here)
    assert listed.splitlines()[0].split() == ["TOKEN", "TTL", "EXPIRES", "DESCRIPTION"]
    row = next(line for line in listed.splitlines() if line.startswith(id))
    assert row.endswith("for a test")
    assert token.split(".")[1] not in listed, "secrets are not shown"
    assert fine("token", "delete", token, *place.here) == f'token "{id}" deleted\n'
    assert "there is no token" in fails("token", "delete", id, *place.here)
    line = fine("token", "create", "--print-join-command", *place.here)
    assert line.startswith(f"minik8s join 127.0.0.1:{place.port} --token ")

    assert fine("stop", *place.here) == f"stopped the agent (pid {pid})\n"
    assert fine("stop", *place.here) == f"no agent runs on {place.data}\n"
    down = run("status", *place.here)
    assert (down.code, down.err) == (1, "")
    assert "start one with 'minik8s start'" in down.out

    fine("start", *place.here)
    resumed = running_pid(place.data)
    assert resumed not in (None, pid)
    assert len(fine("token", "list", *place.here).splitlines()) == 3, "what was stored is still there"

    listed = fine("reset", "--dry-run", *place.here)
    assert listed == f"would remove folder {place.data}\n"
    assert running_pid(place.data) == resumed
    assert fine("reset", "--yes", *place.here).endswith("removed\n")
    assert not place.data.exists()
    again = run("reset", "--yes", *place.here)
    assert (again.code, again.out) == (0, "there is nothing to remove\n")
    assert f"there is no data folder {place.data}" in again.err


@pytest.mark.timeout(120)
def test_a_simulated_worker_joins_and_is_started(place: Place, tmp_path: Path) -> None:
    fine("init", "--role", "master", *place.options)
    token = fine("token", "create", *place.here).strip()
    worker = Place(tmp_path / "worker", 0)
    options = (*worker.here, "--runtime", "fake", "--node-name", "w1", "--node-ip", "127.0.0.1")
    try:
        said = fine("join", f"127.0.0.1:{place.port}", "--token", token, *options)
        assert f"node w1 has joined https://127.0.0.1:{place.port}" in said
        assert json.loads(fine("status", "-o", "json", *worker.here))["role"] == "worker"
        assert token.split(".")[1] not in (worker.data / "config.yaml").read_text(), "a token is used once"
        fine("stop", *worker.here)
        fine("start", *worker.here)
    finally:
        run("reset", "--yes", *worker.here)
    assert not worker.data.exists()


@pytest.mark.timeout(120)
def test_a_worker_leaves_and_comes_back(place: Place, tmp_path: Path) -> None:
    fine("init", "--role", "master", *place.options)
    join = ("join", f"127.0.0.1:{place.port}", "--token", fine("token", "create", *place.here).strip())
    kubeconfig = ("--kubeconfig", str(place.data / "admin.kubeconfig"))
    worker = Place(tmp_path / "worker", 0)
    options = (*worker.here, "--runtime", "fake", "--node-name", "w1", "--node-ip", "127.0.0.1")

    def registered() -> bool:
        nodes = fine("get", "nodes", *kubeconfig)
        return "w1" in nodes and "NotReady" not in nodes and "Unknown" not in nodes

    try:
        fine(*join, *options)
        assert json.loads((worker.data / "config.yaml").read_text())["nodeName"] == "w1"
        until(registered)
        assert "is the master, without which" in fails("leave", "--yes", *place.here)
        assert "nothing was done" in fails("leave", *worker.here)
        other = (*options[:1], str(tmp_path / "other"), *options[2:])
        assert "a living node is already called" in fails(*join, *other)

        said = fine("leave", "--drain", "--yes", *worker.here)
        assert "node/w1 drained" in said
        assert "node w1 deleted" in said
        assert not worker.data.exists()
        assert fine("get", "nodes", "-o", "name", *kubeconfig) == ""

        fine(*join, *options)
        until(registered)
        fine("delete", "node", "w1", *kubeconfig)
        fine(*join, *options)  # with the key that it still has, and its agent running
        until(registered)
        fine("stop", *place.here)
        left = run("leave", "--yes", *worker.here)
        assert left.code == 0
        assert "kubectl delete node w1" in left.err, "a master that is away keeps nobody from leaving"
        assert not worker.data.exists()
    finally:
        run("reset", "--yes", *worker.here)
    assert "has joined a cluster" in fails("leave", "--yes", *worker.here)


def test_mistakes_are_one_line_and_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ("--data-dir", str(tmp_path / "d"))
    assert "not a port" in fails("start", *data, "--listen", "x:y")
    assert "MINIK8S_REPLICAS: '' is not a whole number" in fails("start", *data, MINIK8S_REPLICAS="")
    assert "cannot read" in fails("run", "--config", str(tmp_path / "none"))
    assert "minik8s join" in fails("init", *data, "--role", "worker", "--join", "m")
    assert "token is not complete" in fails("join", "127.0.0.1", *data, "--token", "x", "--runtime", "fake")
    assert "give it a --token" in fails("join", "127.0.0.1", *data, "--runtime", "fake")
    token = f"abcdef.0123456789abcdef.{'0' * 64}"
    port = free_port()
    said = fails("join", f"127.0.0.1:{port}", *data, "--token", token, "--runtime", "fake")
    assert f"no master answers at https://127.0.0.1:{port}" in said
    assert "not a master's data folder" in fails("token", "list", "--data-dir", str(tmp_path / "empty"))
    assert "write a number and a unit" in fails("token", "create", "--ttl", "soon", *data)
    assert 'unknown command "strat", did you mean "start"?' in fails("strat")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in fails("init", "--data-dir", str(tmp_path / "e"), MINIK8S_RUNTIME="docker")
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in fails("init", "--data-dir", str(tmp_path / "file" / "d"), "--runtime", "fake")


@pytest.mark.timeout(60)
def test_an_agent_that_cannot_start_says_why(place: Place) -> None:
    (place.data / "pki").mkdir(parents=True)
    (place.data / "state.db").write_text("this is not a database")
    line = fails("start", *place.options)
    assert "the agent does not start" in line
    assert "state.db" in line
    assert str(place.data / "log" / process.START_LOG) in line


def test_a_lost_ca_is_told(place: Place) -> None:
    fine("init", "--no-start", *place.options)
    (place.data / "pki" / "ca.key").unlink()
    assert "from a backup" in fails("init", "--no-start", *place.here)


def test_reset_asks_and_takes_no_strangers_folder(place: Place, tmp_path: Path) -> None:
    fine("init", "--no-start", *place.options)
    assert "give --yes" in fails("reset", *place.here)
    assert place.data.exists()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("years of work")
    save(Config(data_dir=theirs, runtime="fake"))
    for more in ("--yes", "--dry-run"):
        assert "is not a data folder of minik8s" in fails("reset", more, "--data-dir", str(theirs))
    assert (theirs / "thesis.tex").exists()


@pytest.mark.parametrize("mark", MARKS)
def test_reset_takes_what_bears_a_mark(tmp_path: Path, mark: str) -> None:
    data = tmp_path / "data"
    (data / mark).parent.mkdir(parents=True)
    (data / mark).touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (data / "link").symlink_to(outside)
    save(Config(data_dir=data, runtime="fake"))
    fine("reset", "--yes", "--data-dir", str(data))
    assert not data.exists()
    assert (outside / "kept").exists()


def test_systemd_is_asked_only_for_its_own_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = tmp_path / "minik8s.service"
    monkeypatch.setattr(process, "UNIT_FILE", unit)
    monkeypatch.setattr(process, "has_systemd", lambda: True)
    monkeypatch.setattr(process, "_systemctl", lambda *words: None)
    assert not process.has_unit(tmp_path / "a")
    process.install_unit(tmp_path / "a")
    assert process.has_unit(tmp_path / "a")
    assert not process.has_unit(tmp_path / "b")
    assert f"--data-dir {tmp_path / 'a'}" in unit.read_text()


def test_the_last_words_of_an_agent(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path)
    assert process.last_words(config) == "see 'journalctl -u minik8s'"
    log = tmp_path / "log" / process.START_LOG
    log.parent.mkdir()
    log.write_text("")
    assert process.last_words(config).startswith("it said nothing (see 'minik8s logs --component all")
    log.write_text('{"event": "x"}\nerror: the port is taken\n{"event": "y"}\n')
    assert process.last_words(config).startswith("the port is taken (see ")
    assert str(log) in process.last_words(config)


def test_a_process_that_does_not_stop_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.kill", lambda pid, number: None)
    with agent_lock(tmp_path), pytest.raises(process.ProcessError, match=f"kill -9 {os.getpid()}"):
        process.stop(tmp_path, patience=0.1)
