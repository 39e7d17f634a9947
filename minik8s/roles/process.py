"""The agent as a process of this machine: started detached or by systemd, found by its lock, stopped by a signal."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import BinaryIO

from minik8s.config import LOG_FOLDER, Config
from minik8s.roles.lock import running_pid

START_LOG = "start.log"  # what the agent said before it kept its own log, and when it fell
UNIT_FILE = Path("/etc/systemd/system/minik8s.service")
POLL = 0.05  # seconds between looks at a process that is starting or stopping

UNIT = """[Unit]
Description=minik8s agent
After=network-online.target docker.service
Wants=network-online.target

[Service]
ExecStart={command}
KillMode=process
Restart=on-failure
RestartSec=2
LimitNOFILE=1048576
Delegate=yes

[Install]
WantedBy=multi-user.target
"""


class ProcessError(Exception):
    """The agent could not be started or stopped; the message says why and what to do."""


def command(data_dir: Path) -> list[str]:
    """The command line that runs the agent of a data folder."""
    return [sys.executable, "-m", "minik8s", "run", "--data-dir", str(data_dir)]


def has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def has_unit(data_dir: Path) -> bool:
    """Does systemd run the agent of this very data folder?"""
    return has_systemd() and UNIT_FILE.exists() and _unit(data_dir) == UNIT_FILE.read_text()


def _unit(data_dir: Path) -> str:
    return UNIT.format(command=" ".join(map(_quoted, command(data_dir))))


def _quoted(word: str) -> str:
    """One word of a systemd command line, meant literally (systemd.service(5), COMMAND LINES)."""
    for special, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(special, escaped)
    return f'"{word}"' if any(c in word for c in " \t;'\"\\") else word


def install_unit(data_dir: Path) -> None:
    """Make the agent a service of systemd, started at boot."""
    UNIT_FILE.write_text(_unit(data_dir))
    _systemctl("daemon-reload")
    _systemctl("enable", "minik8s")


def _systemctl(*words: str) -> None:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProcessError(f"systemctl {' '.join(words)}: {done.stderr.strip() or f'exit code {done.returncode}'}")


def remove_unit() -> None:
    if UNIT_FILE.exists():
        subprocess.run(["systemctl", "disable", "minik8s"], check=False, capture_output=True)
        UNIT_FILE.unlink()
        subprocess.run(["systemctl", "daemon-reload"], check=False)


def start(config: Config, *, patience: float, waiting: Callable[[], None] = lambda: None) -> int:
    """Start the agent in the background and wait until it is ready; returns its pid.

    `waiting` is called now and then. Raises ProcessError with the last fault in the log if it ends or takes too long.
    """
    if has_unit(config.data_dir):
        _systemctl("start", "minik8s")
        child = None
    else:
        with _start_log(config.data_dir) as log:
            child = subprocess.Popen(
                command(config.data_dir), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        pid = running_pid(config.data_dir)
        if pid and is_ready(config):
            return pid
        if child is not None and child.poll() is not None:
            raise ProcessError(f"the agent does not start: {last_words(config)}")
        waiting()
        time.sleep(POLL)
    raise ProcessError(f"the agent is not ready after {patience:.0f} s: {last_words(config)}")


def stop(data_dir: Path, *, patience: float) -> int | None:
    """SIGTERM the agent and wait until it has let go of its folder; its pid, None if there was none."""
    pid = running_pid(data_dir)
    if pid is None:
        return None
    if has_unit(data_dir):
        _systemctl("stop", "minik8s")
    else:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while running_pid(data_dir) == pid:
        if time.monotonic() > deadline:
            raise ProcessError(f"the agent (pid {pid}) does not stop; see '{_reading(data_dir)}', then 'kill -9 {pid}'")
        time.sleep(POLL)
    return pid


def is_ready(config: Config) -> bool:
    """Do the parts that this agent hosts answer: the API server /readyz, the kubelet /healthz?

    A kubelet that answers has registered its node. Simulated nodes have no kubelet to ask.
    """
    host, port = config.listen_address
    places = [("127.0.0.1" if host in ("", "0.0.0.0") else host, port, "/readyz")] * config.hosts_master
    places += [("127.0.0.1", config.kubelet_port, "/healthz")] * (config.hosts_node and config.runtime != "fake")
    return all(_answers(*place) for place in places)


def _start_log(data_dir: Path) -> BinaryIO:
    file = data_dir / LOG_FOLDER / START_LOG
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


def _reading(data_dir: Path) -> str:
    """The command that shows the agent's log."""
    return f"minik8s logs --component all --data-dir {data_dir}"


def last_words(config: Config) -> str:
    """The last fault that the agent told when it ended, and where the rest is."""
    file = config.path(LOG_FOLDER, START_LOG)
    try:
        lines = [line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "see 'journalctl -u minik8s'"
    faults = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"{(faults or lines or ['it said nothing'])[-1]} (see '{_reading(config.data_dir)}' and {file})"


def _answers(host: str, port: int, path: str) -> bool:
    # Only whether it answers matters here, and only on this machine: nothing is sent, nothing is believed.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = HTTPSConnection(host, port, timeout=1, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
