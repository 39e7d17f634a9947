"""Debian's etcd on loopback, for tests that need a real one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest


class EtcdServer:
    """An etcd on loopback that can be killed and started again on the same data and port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.peer_port = _free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it accepts connections; skips, with the reason, where there is no etcd."""
        if shutil.which("etcd") is None:
            pytest.skip("no etcd server binary (Debian: etcd-server)")
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.peer_port}"
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [
                "etcd", "--name=test", f"--data-dir={self.folder / 'data'}",
                f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=test={peer}",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        pytest.fail("etcd does not start:\n" + (self.folder / "log").read_text()[-2000:])

    @staticmethod
    def spare_port() -> int:
        return _free_ports(1)[0]

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
