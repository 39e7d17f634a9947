"""`minik8s logs --component`: what an agent keeps, chosen by component, level and age; followed; from the journal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from minik8s.cli import own_log
from minik8s.log.file import NAME, BoundedFile

NOW = datetime.now(UTC)


def line(component: str, level: str, event: str, *, ago: float = 0) -> str:
    stamp = (NOW - timedelta(seconds=ago)).isoformat().replace("+00:00", "Z")
    return json.dumps({"component": component, "level": level, "event": event, "timestamp": stamp, "key": "a/b"})


LINES = (
    line("kubelet", "info", "old", ago=7200), line("kubelet", "info", "begun", ago=60), line("dns", "warning", "slow"),
    "a fall's last words", line("kubelet", "error", "broken"),
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = BoundedFile(tmp_path / "log" / NAME)
    for each in LINES:
        file.write(each)
    return tmp_path


def show(data: Path, component: str, capsys: Any, **more: Any) -> list[str]:
    own_log.show(component, data, **{"level": "debug", "follow": False, **more})
    text = capsys.readouterr()
    return [*text.out.splitlines(), *text.err.splitlines()]


def test_lines_are_chosen(data: Path, capsys: Any) -> None:
    assert [each.split("]")[1].split()[0] for each in show(data, "kubelet", capsys)] == ["old", "begun", "broken"]
    assert "key=a/b" in show(data, "dns", capsys)[0]
    assert len(show(data, "all", capsys)) == 5
    assert len(show(data, "kubelet", capsys, since=3600)) == 2
    assert len(show(data, "kubelet", capsys, level="warning")) == 1
    assert "broken" in show(data, "kubelet", capsys, tail=1)[0]
    assert show(data, "kubelet", capsys, tail=0) == []
    assert len(show(data, "kubelet", capsys, tail=-1)) == 3


def test_a_component_that_says_nothing_is_told(data: Path, capsys: Any) -> None:
    (told,) = show(data, "kubelt", capsys)
    assert 'did you mean "kubelet"' in told
    assert "dns, kubelet" in told


def run(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "minik8s", "logs", *words], capture_output=True, text=True, **more)


def test_mistakes_are_told_in_a_line(tmp_path: Path) -> None:
    done = run("--component", "kubelet", "--data-dir", str(tmp_path))
    assert (done.returncode, "no agent has kept a log in" in done.stderr) == (1, True)
    done = run("web-0", "--component", "kubelet")
    assert (done.returncode, "leave the pod out" in done.stderr) == (1, True)


def test_a_log_is_followed(data: Path) -> None:
    command = [sys.executable, "-m", "minik8s", "logs", "--component", "dns", "-f", "--data-dir", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "slow" in process.stdout.readline()
        file = BoundedFile(data / "log" / NAME)
        file.write(line("kubelet", "info", "other"))
        file.write(line("dns", "info", "quick"))
        assert "quick" in process.stdout.readline()
        process.terminate()


def test_systemds_journal_is_read_and_followed_without_a_gap(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "journalctl"
    program.write_text(
        f"#!/bin/sh\ncase \"$*\" in\n*--after-cursor\\ s=7*) echo '{LINES[4]}';;\n"
        f"*--show-cursor*) echo '{LINES[1]}'; echo '-- cursor: s=7';;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("minik8s.roles.process.has_unit", lambda data_dir: True)
    shown = show(tmp_path, "kubelet", capsys, follow=True)
    assert [each.split("]")[1].split()[0] for each in shown] == ["begun", "broken"]
