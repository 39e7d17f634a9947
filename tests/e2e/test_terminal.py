"""`minik8s exec -it` and its like on a real terminal: size, keys, exit codes, and the terminal as it was afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.agent import until
from tests.e2e.space import Space, container
from tests.kubectls import NEWEST
from tests.patience import patience

CANONICAL = termios.ICANON | termios.ECHO | termios.ISIG


class Terminal:
    """A program on a terminal of its own, which the test looks at and types on."""

    def __init__(self, space: Space, *command: str, size: tuple[int, int] = (33, 99)) -> None:
        self.ours, self.theirs = pty.openpty()  # theirs stays open: what is left of it is looked at in the end
        self.resize(*size)
        self.before = termios.tcgetattr(self.theirs)
        self.said = b""
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        end = self.theirs
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=end, stdout=end, stderr=end, env=space.agent.env
        )

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.ours, 4096)
            except OSError:
                return
            with self._news:
                self.said += data
                self._news.notify_all()

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def sees(self, text: str, *, seconds: float = 20) -> None:
        """Wait for `text`; it and all before it are then done with."""
        with self._news:
            assert self._news.wait_for(lambda: text.encode() in self.said, patience(seconds)), (text, self.said)
            self.said = self.said.partition(text.encode())[2]

    def ends(self) -> int:
        """Wait for the end: the exit code, after a look whether the terminal is as it was."""
        code = self.process.wait(20)
        assert self.before[3] & CANONICAL == CANONICAL
        assert termios.tcgetattr(self.theirs) == self.before
        return code

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.theirs)
        os.close(self.ours)


def minik8s(space: Space, *words: str, **more: Any) -> Terminal:
    return Terminal(space, sys.executable, "-m", "minik8s", "-n", space.name, *words, **more)


@pytest.fixture
def shell(space: Space) -> Iterator[Terminal]:
    space.pod("p")
    with minik8s(space, "exec", "-it", "p", "--", "sh") as terminal:
        terminal.sees("# ")
        yield terminal


def test_a_shell(shell: Terminal) -> None:
    shell.type("stty size\n")
    shell.sees("33 99\r\n")
    shell.resize(50, 132)
    shell.type("""until [ "$(stty size)" != "33 99" ]; do sleep 0.05; done; stty size\n""")
    shell.sees("50 132\r\n")
    shell.type("sh -c 'echo begun $((1+1)); exec sleep 100'\n")  # it speaks once it is in the foreground
    shell.sees("begun 2\r\n")
    shell.type("\x03")  # Ctrl-C ends the sleep, not the shell
    shell.sees("^C")
    shell.sees("# ")  # an interrupted shell throws away what was typed before its prompt
    shell.type("echo still $((1+1)) here\n")
    shell.sees("still 2 here")
    shell.type("exit 5\n")
    assert shell.ends() == 5
    shell.sees("command terminated with exit code 5")


def test_the_terminal_is_as_it_was_after_a_signal(shell: Terminal, space: Space) -> None:
    shell.process.send_signal(signal.SIGTERM)  # setsid has become the program itself
    assert shell.ends() == 128 + signal.SIGTERM


def test_the_terminal_is_as_it_was_after_a_broken_connection(shell: Terminal, space: Space) -> None:
    victim = space.path("pod/p", ".status.containerStatuses[0].containerID").removeprefix("docker://")
    subprocess.run(["docker", "kill", victim], check=True, capture_output=True)
    assert shell.ends() != 0


def test_attach_and_detach(space: Space) -> None:
    space.pod("p", containers=[container("c", "sh", stdin=True, tty=True)])
    with minik8s(space, "attach", "-it", "p", size=(24, 77)) as terminal:
        terminal.type("\n")
        terminal.sees("# ")
        terminal.type("stty size; X=kept\n")
        terminal.sees("24 77\r\n")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.ends() == 128 + signal.SIGTERM
    with minik8s(space, "attach", "-it", "p") as terminal:
        terminal.type("echo $X $((3*3))\n")
        terminal.sees("kept 9")
        terminal.type("exit\n")
        assert terminal.ends() == 0
    space.until("pod p", lambda p: p["status"]["containerStatuses"][0]["restartCount"] == 1)


def test_kubectl_run_on_a_terminal(space: Space) -> None:
    image = container()["image"]
    run = ("run", "r", "-it", "--rm", "--restart=Never", f"--image={image}", "--image-pull-policy=Never", "--", "sh")
    with Terminal(space, str(NEWEST), "-n", space.name, *run) as terminal:
        terminal.type("\n")
        terminal.sees("# ")
        terminal.type("echo it $((1+1)) runs\n")
        terminal.sees("it 2 runs")
        terminal.type("exit 3\n")
        assert terminal.ends() == 3
    until(lambda: space.get("pods") == [])


def test_without_a_terminal_there_is_none(space: Space) -> None:
    space.pod("p")
    told = space.agent.minik8s(
        "-n", space.name, "exec", "-it", "p", "--", "sh", "-c", "[ -t 0 ] || cat", stdin="piped\n"
    )
    assert told.out == "piped\n"
    assert "Unable to use a TTY" in told.err
