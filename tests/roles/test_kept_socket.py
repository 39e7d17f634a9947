"""A socket that listens on while agents come and go: real processes, killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from minik8s.roles.kept_socket import KeptSocket, end_holder
from tests.agent import until

AGENT = """
import sys, time
from pathlib import Path
from minik8s.roles.kept_socket import KeptSocket
kept = KeptSocket(Path(sys.argv[1]))
sock = kept.open("127.0.0.1", int(sys.argv[2]))
sock.setblocking(True)
print(sock.getsockname()[1], flush=True)
while True:
    client, _ = sock.accept()
    client.sendall(sys.argv[3].encode())
    client.close()
"""


def agent(record: Path, port: int, says: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(record), str(port), says], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def said(client: socket.socket) -> str:
    with client:
        client.settimeout(10)
        return client.recv(100).decode()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only it may take descriptors out of other processes")
def test_who_connects_while_no_agent_is_there_is_served_by_the_next(tmp_path: Path) -> None:
    record = tmp_path / "gateway.json"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first, port = agent(record, port, "first")
    try:
        assert said(socket.create_connection(("127.0.0.1", port))) == "first"
        first.send_signal(signal.SIGKILL)
        first.wait()
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        second, again = agent(record, port, "second")
        try:
            assert again == port
            assert [said(client) for client in waiting] == ["second"] * 20
        finally:
            second.kill()
            second.wait()
    finally:
        first.kill()
        end_holder(record)
    until(lambda: _refused(port), seconds=5)
    assert not record.exists()


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_record_of_another_process_or_address_is_not_believed(tmp_path: Path) -> None:
    record = tmp_path / "gateway.json"
    record.write_text(f'{{"pid": {os.getpid()}, "started": "1", "fd": 1, "host": "127.0.0.1", "port": 0}}')
    kept = KeptSocket(record)
    with kept.open("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
    other = KeptSocket(record)
    with other.open("127.0.0.2", 0) as sock:
        assert sock.getsockname()[0] == "127.0.0.2"
    assert _refused(port)  # nobody listens there any more
    for each in (kept, other):
        each.close()
    end_holder(record)
    with pytest.raises(OSError, match="Cannot assign"):
        KeptSocket(record).open("192.0.2.1", 0)
