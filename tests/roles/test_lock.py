"""One agent per data folder, told by its pid, whatever way it ends; and looking disturbs nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minik8s.roles.lock import LOCK_FILE, AlreadyRunning, agent_lock, running_pid

HOLDER = """
import sys, pathlib
from minik8s.roles.lock import agent_lock
with agent_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_agent_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with agent_lock(folder):
        with pytest.raises(AlreadyRunning, match=rf"\(pid {os.getpid()}\) already runs on {folder}") as refused:
            with agent_lock(folder):
                pytest.fail("two at once")
        assert refused.value.pid == os.getpid()
        assert "minik8s stop" in str(refused.value)
        assert running_pid(folder) == os.getpid()
    assert running_pid(folder) is None
    with agent_lock(folder):
        pass


def test_the_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert running_pid(tmp_path) == other.pid
        with pytest.raises(AlreadyRunning, match=f"pid {other.pid}"), agent_lock(tmp_path):
            pass
        other.kill()
    assert running_pid(tmp_path) is None
    assert (tmp_path / LOCK_FILE).read_text().strip() == str(other.pid), "the file stays, the lock does not"
    with agent_lock(tmp_path):
        assert running_pid(tmp_path) == os.getpid()


def test_a_folder_that_nobody_has_used(tmp_path: Path) -> None:
    assert running_pid(tmp_path) is None
    assert running_pid(tmp_path / "absent") is None
    (tmp_path / "file").touch()
    assert running_pid(tmp_path / "file") is None
    (tmp_path / LOCK_FILE).write_text("12345678901 and more nonsense")
    assert running_pid(tmp_path) is None


def test_looking_keeps_no_agent_from_starting(tmp_path: Path) -> None:
    with agent_lock(tmp_path):
        pass
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            running_pid(tmp_path)

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(200):
            with agent_lock(tmp_path):
                pass
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()
