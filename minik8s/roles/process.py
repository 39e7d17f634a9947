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

from minik8s.config import Config
from minik8s.roles.lock import running_pid

LOG_FILE = "agent.log"
UNIT_FILE = Path("/etc/systemd/system/minik8s.service")
POLL = 0.05  # seconds between looks at a process that is starting or stopping

UNIT = """[Unit]
Description=minik8s agent
Documentation=man:minik8s
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


def install_unit(data_dir: Path) -> None:
    """Make the agent a service of systemd, started at boot."""
    UNIT_FILE.write_text(UNIT.format(command=" ".join(command(data_dir))))
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "enable", "minik8s"], check=True, capture_output=True)


def remove_unit() -> None:
    if UNIT_FILE.exists():
        subprocess.run(["systemctl", "disable", "minik8s"], check=False, capture_output=True)
        UNIT_FILE.unlink()
        subprocess.run(["systemctl", "daemon-reload"], check=False)


def start(config: Config, *, patience: float, waiting: Callable[[], None] = lambda: None) -> int:
    """Start the agent in the background and wait until it is ready; returns its pid.

    `waiting` is called now and then. Raises ProcessError with the last lines of the log if it ends or takes too long.
    """
    if has_systemd() and UNIT_FILE.exists():
        subprocess.run(["systemctl", "start", "minik8s"], check=True)
        child = None
    else:
        with config.path(LOG_FILE).open("ab") as log:
            child = subprocess.Popen(
                command(config.data_dir), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        pid = running_pid(config.data_dir)
        if pid and is_ready(config):
            return pid
        if child is not None and child.poll() is not None:
            raise ProcessError(f"the agent ended with exit code {child.returncode}:\n{last_lines(config)}")
        waiting()
        time.sleep(POLL)
    raise ProcessError(f"the agent is not ready after {patience:.0f} s; its log says:\n{last_lines(config)}")


def stop(data_dir: Path, *, patience: float) -> int | None:
    """SIGTERM the agent and wait until it has let go of its folder; its pid, None if there was none."""
    pid = running_pid(data_dir)
    if pid is None:
        return None
    if has_systemd() and UNIT_FILE.exists():
        subprocess.run(["systemctl", "stop", "minik8s"], check=False)
    else:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while running_pid(data_dir) == pid:
        if time.monotonic() > deadline:
            raise ProcessError(f"the agent (pid {pid}) does not stop; see {data_dir / LOG_FILE}, then 'kill -9 {pid}'")
        time.sleep(POLL)
    return pid


def is_ready(config: Config) -> bool:
    """Do the parts that this agent hosts answer: the API server /readyz, the kubelet /healthz?

    A kubelet that answers has registered its node. Simulated nodes have no kubelet to ask.
    """
    ports = [(config.listen_address[1], "/readyz")] * config.hosts_master
    ports += [(config.kubelet_port, "/healthz")] * (config.hosts_node and config.runtime != "fake")
    return all(_answers(port, path) for port, path in ports)


def last_lines(config: Config, count: int = 15) -> str:
    try:
        return "\n".join(config.path(LOG_FILE).read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return "(see 'journalctl -u minik8s')"


def _answers(port: int, path: str) -> bool:
    # Only whether it answers matters here, and only on this machine: nothing is sent, nothing is believed.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = HTTPSConnection("127.0.0.1", port, timeout=1, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
