"""Streams as people use them: real kubectl, from the last that speaks SPDY only to one that speaks WebSocket."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.kubelet.streaming.cluster import Cluster

pytestmark = [pytest.mark.docker, pytest.mark.kubectl]
FOREVER = ("sleep", "1000")


async def test_exec_gives_output_and_exit_code(docker: Cluster, kubectl: Path) -> None:
    await docker.pod("web", *FOREVER)
    ended = await docker.kubectl(kubectl, "exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (ended.code, ended.out) == (3, b"out\n")
    assert ended.err.splitlines()[0] == "err"
    assert "exit code 3" in ended.err
    ended = await docker.kubectl(kubectl, "exec", "web", "--", "hostname")
    assert (ended.code, ended.out) == (0, b"web\n")


async def test_exec_sends_stdin_and_its_end(docker: Cluster, kubectl: Path) -> None:
    await docker.pod("web", *FOREVER)
    data = os.urandom(3_000_000)
    ended = await docker.kubectl(kubectl, "exec", "-i", "web", "--", "cat", stdin=data)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == data
    ended = await docker.kubectl(kubectl, "exec", "-i", "web", "--", "wc", "-c", stdin=b"")
    assert ended.out == b"0\n"


async def test_errors_are_in_words(docker: Cluster, kubectl: Path) -> None:
    await docker.pod("two", *FOREVER, containers=("one", "other"))
    ended = await docker.kubectl(kubectl, "logs", "two", "-c", "third")
    assert "container third is not valid for pod two" in ended.err
    ended = await docker.kubectl(kubectl, "logs", "two", "-c", "one", "--previous")
    assert 'previous terminated container "one" in pod "two" not found' in ended.err
    ended = await docker.kubectl(kubectl, "exec", "two", "-c", "one", "--", "no-such-program")
    assert ended.code != 0
    assert "no-such-program" in ended.err + ended.out.decode()


async def test_copies_arrive_whole_both_ways(docker: Cluster, kubectl: Path, tmp_path: Path) -> None:
    await docker.pod("web", *FOREVER)
    data = os.urandom(20_000_000)
    (tmp_path / "there").write_bytes(data)
    ended = await docker.kubectl(kubectl, "cp", f"{tmp_path}/there", "web:/tmp/there")
    assert (ended.code, ended.err) == (0, "")
    ended = await docker.kubectl(kubectl, "cp", "web:/tmp/there", f"{tmp_path}/back")
    assert ended.code == 0, ended.err
    assert (tmp_path / "back").read_bytes() == data


async def test_logs_follow_from_the_last_lines_on(docker: Cluster, kubectl: Path) -> None:
    fifo = "mkfifo /tmp/f; for i in 1 2 3 4 5; do echo line $i; done; while read x; do echo $x; done <>/tmp/f"
    container = await docker.pod("web", "sh", "-c", fifo)
    following = await docker.start(kubectl, "logs", "-f", "--tail=2", "web")
    assert following.stdout is not None
    assert [await following.stdout.readline() for _ in range(2)] == [b"line 4\n", b"line 5\n"]
    await docker.runtime.exec_sync(container, ["sh", "-c", "echo later > /tmp/f"], 10)
    assert await following.stdout.readline() == b"later\n"
    await docker.runtime.stop(container, 0)
    assert await following.wait() == 0
    ended = await docker.kubectl(kubectl, "logs", "web", "--limit-bytes=8", "--timestamps=false")
    assert ended.out == b"line 1\nl"
    ended = await docker.kubectl(kubectl, "logs", "web", "--tail=1", "--timestamps")
    assert ended.out.split(b" ", 1)[1] == b"later\n"
    assert ended.out.startswith(b"20")


async def test_logs_of_the_attempt_before(docker: Cluster, kubectl: Path) -> None:
    first = await docker.pod("web", "sh", "-c", "echo the first")
    await docker.until_exited(first)
    await docker.restart("web", "sh", "-c", "echo the second; sleep 1000")
    ended = await docker.kubectl(kubectl, "logs", "web", "--previous")
    assert (ended.out, ended.err) == (b"the first\n", "")
    following = await docker.start(kubectl, "logs", "web", "-f")
    assert following.stdout is not None
    assert await following.stdout.readline() == b"the second\n"
    following.kill()
    await following.wait()


async def test_a_cancelled_follow_frees_everything(docker: Cluster, kubectl: Path) -> None:
    await docker.pod("web", *FOREVER)
    before = docker.connections()
    following = await docker.start(kubectl, "logs", "-f", "web")
    await docker.until(lambda: docker.connections() > before)
    following.kill()
    await following.wait()
    await docker.until(lambda: docker.connections() == before)


async def test_fifty_at_once(docker: Cluster, kubectl: Path) -> None:
    await docker.pod("web", *FOREVER)
    before = docker.connections()
    runs = (docker.kubectl(kubectl, "exec", "-i", "web", "--", "cat", stdin=b"%d" % n) for n in range(50))
    assert [ended.out for ended in await asyncio.gather(*runs)] == [b"%d" % n for n in range(50)]
    await docker.until(lambda: docker.connections() == before)


async def test_port_forward_carries_bytes_and_half_closes(docker: Cluster, kubectl: Path) -> None:
    await docker.pod("web", "sh", "-c", "nc -ll -p 8080 -e wc -c")
    forwarding = await docker.start(kubectl, "port-forward", "web", ":8080")
    assert forwarding.stdout is not None
    line = (await forwarding.stdout.readline()).decode()
    port = int(line.split(":")[1].split(" ")[0])
    for size in (0, 1, 1_000_000):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(size))
        writer.write_eof()
        assert await reader.read() == b"%d\n" % size
        writer.close()
    forwarding.terminate()
    await forwarding.wait()


async def test_port_forward_to_a_closed_port_says_so(docker: Cluster, kubectl: Path) -> None:
    await docker.pod("web", *FOREVER)
    forwarding = await docker.start(kubectl, "port-forward", "web", ":81")
    assert forwarding.stdout is not None
    assert forwarding.stderr is not None
    port = int((await forwarding.stdout.readline()).decode().split(":")[1].split(" ")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    said = (await forwarding.stderr.readline()).decode()
    assert "81 in the pod: connection refused" in said
    if forwarding.returncode is None:
        forwarding.terminate()
    await forwarding.wait()


async def test_attach_speaks_with_the_first_process(docker: Cluster, kubectl: Path) -> None:
    await docker.pod("web", "sh", "-c", "read x; echo got $x; sleep 1000", stdin=True)
    attached = await docker.start(kubectl, "attach", "-i", "web", stdin=asyncio.subprocess.PIPE)
    assert attached.stdin is not None
    assert attached.stdout is not None
    attached.stdin.write(b"this\n")
    assert await attached.stdout.readline() == b"got this\n"
    attached.kill()
    await attached.wait()


async def test_a_terminal_is_one_and_has_its_size(docker: Cluster, kubectl: Path) -> None:
    await docker.pod("web", *FOREVER)
    async with terminal(docker, kubectl, "exec", "-it", "web", "--", "sh") as (screen, process):
        await screen.type(b"", until=b"# ")
        for columns, rows in ((100, 40), (132, 50)):  # a size is on its way while the shell runs already
            screen.resize(columns, rows)
            wait = f"while [ \"$(stty size)\" != '{rows} {columns}' ]; do sleep 0.05; done; tty;"
            await screen.type(f"{wait} echo now $(({columns}+1))\n".encode(), until=f"now {columns + 1}\r\n".encode())
        assert b"/dev/pts/" in screen.seen
        await screen.type(b"exit 7\n")
        assert await process.wait() == 7


async def test_attach_with_a_terminal(docker: Cluster, kubectl: Path) -> None:
    await docker.pod("web", "sh", tty=True, stdin=True)
    async with terminal(docker, kubectl, "attach", "-it", "web") as (screen, process):
        await screen.type(b"echo $((6*7))\n", until=b"42\r\n")
        await screen.type(b"exit\n")
        await process.wait()


class Screen:
    """The master's end of a pseudo-terminal."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.seen = b""
        self.news = asyncio.Event()
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            self.seen += os.read(self.fd, 65536)
        except OSError:  # the other end is closed
            asyncio.get_running_loop().remove_reader(self.fd)
        self.news.set()

    def resize(self, columns: int, rows: int) -> None:
        termios.tcsetwinsize(self.fd, (rows, columns))

    async def type(self, text: bytes, *, until: bytes = b"") -> None:
        os.write(self.fd, text)
        async with asyncio.timeout(30):
            while until not in self.seen:
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def terminal(
    cluster: Cluster, kubectl: Path, *args: str
) -> AsyncIterator[tuple[Screen, asyncio.subprocess.Process]]:
    ours, theirs = pty.openpty()
    screen = Screen(ours)
    screen.resize(80, 24)
    ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
    controlling = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # noqa: E731 - so that a new size is signalled
    process = await cluster.start(kubectl, *args, **ends, preexec_fn=controlling)
    os.close(theirs)
    try:
        yield screen, process
    except TimeoutError:
        raise AssertionError(f"the terminal shows {screen.seen!r}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
