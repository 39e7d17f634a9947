"""The image in a real container: the supervisor as its first process, with a limit of memory and users of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from minik8s.faas.runtime_image import image_name
from minik8s.runtime.base import ImagePullFailed
from minik8s.runtime.docker import DockerRuntime
from tests.faas.runtime.pod import TOKEN, Pod, wait_for
from tests.images import docker_answers

pytestmark = [pytest.mark.docker, pytest.mark.skipif(not docker_answers(), reason="no Docker Engine answers")]

MAKER = [sys.executable, "-m", "minik8s.faas.runtime_image"]


def docker(*command: str) -> str:
    done = subprocess.run(["docker", *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
async def engine() -> AsyncIterator[DockerRuntime]:
    made = {image_name(): MAKER, "minik8s/broken:1": [sys.executable, "-c", "import sys; sys.exit('no pip here')"],
            "minik8s/old:1": MAKER}  # fmt: skip
    async with DockerRuntime("function-image-test", made_images=made) as runtime:
        yield runtime


async def test_a_node_makes_the_image_that_a_pod_wants(engine: DockerRuntime) -> None:
    image = await engine.image(image_name()) or await engine.pull(image_name())
    assert image_name() in image.names
    assert image.size < 120 * 2**20
    with pytest.raises(ImagePullFailed, match="cannot be made: no pip here"):
        await engine.pull("minik8s/broken:1")
    with pytest.raises(ImagePullFailed, match="changed since this agent was started: restart it"):
        await engine.pull("minik8s/old:1")


@pytest.fixture(scope="module")
def contained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pod, str]]:
    """A runtime in a container of 96 MiB, and the container's id."""
    log = tmp_path_factory.mktemp("pod") / "log"
    asyncio.run(_ensure())
    identity = docker("run", "-d", "-m", "96m", "--memory-swap", "96m", "--pids-limit", "200", "-e",
                      f"FUNCTION_TOKEN={TOKEN}", "-p", "127.0.0.1::8080", image_name())  # fmt: skip
    try:
        port = int(docker("port", identity, "8080").rpartition(":")[2])
        pid = int(docker("inspect", "--format", "{{.State.Pid}}", identity))
        made = Pod(port, pid, log)
        wait_for(lambda: _answers(made))
        yield made, identity
    finally:
        docker("rm", "-f", identity)


async def _ensure() -> None:
    async with DockerRuntime("function-image-test", made_images={image_name(): MAKER}) as engine:
        await engine.image(image_name()) or await engine.pull(image_name())


def _answers(made: Pod) -> bool:
    try:
        return made.ask("GET", "/-/ready").status == 200
    except OSError:
        return False


WHO = """
    import os, sys, ssl, sqlite3, zoneinfo, socket, ctypes, decimal, lzma, bz2, uuid, hashlib
    def main(params):
        caps = [line for line in open("/proc/self/status") if line.startswith("CapEff")]
        return [os.getuid(), os.getppid(), caps[0].split()[1], "FUNCTION_TOKEN" in os.environ,
                str(zoneinfo.ZoneInfo("Europe/Paris")), socket.getaddrinfo("localhost", 80)[0][4][0]]
"""


def test_who_code_is(contained: tuple[Pod, str]) -> None:
    pod, _ = contained
    pod.load("who-00001", WHO)
    uid, parent, capabilities, token, zone, address = pod.call("who-00001", {}).json
    assert (uid, parent, int(capabilities, 16), token, zone) == (20_000, 1, 0, False, "Europe/Paris")
    assert address in ("127.0.0.1", "::1")
    pod.load("else-00001", WHO)
    assert pod.call("else-00001", {}).json[0] == 20_001  # another function, another user


def test_memory_without_bounds_costs_only_its_own_call(contained: tuple[Pod, str]) -> None:
    pod, identity = contained
    code = """
        def main(params):
            kept = []
            while params.get("eat"):
                kept.append(bytearray(b"x" * 1_000_000))
            return "fine"
    """
    pod.load("eat-00001", code)
    idle = pod.connect()
    assert pod.call("eat-00001", {}, on=idle).status == 200
    for _ in range(2):
        reply = pod.call("eat-00001", {"eat": True})
        assert (reply.status, "perhaps for the memory" in reply.json["message"]) == (502, True)
    assert pod.call("eat-00001", {}, on=idle).body == b"fine"
    state = json.loads(docker("inspect", "--format", "{{json .State}}", identity))
    assert (state["Running"], state["Pid"]) == (True, pod.pid)


def test_code_cannot_reach_the_supervisor_nor_other_functions(contained: tuple[Pod, str]) -> None:
    pod, _ = contained
    pod.load("good-00001", "def main(params):\n    return 1\n")
    code = """
        import os, signal
        def main(params):
            failed = []
            for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
                if pid != os.getpid():
                    try:
                        os.kill(pid, 9)
                    except PermissionError:
                        failed.append(pid)
            return [1 in failed, len(failed)]
    """
    pod.load("kill-00001", code)
    supervisor, count = pod.call("kill-00001", {}).json
    assert supervisor
    assert count >= 2
    assert pod.call("good-00001", {}).json == 1


def test_the_first_process_takes_in_orphans(contained: tuple[Pod, str]) -> None:
    pod, identity = contained
    code = """
        import os
        def main(params):
            for _ in range(20):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork(): os._exit(0)
                    os.execv("/bin/sleep", ["sleep", "1000"])
            os._exit(0)
    """
    pod.load("zombie-00001", code)
    assert pod.call("zombie-00001", {}).status == 502
    states = "cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f2,3"
    wait_for(lambda: not any(word in docker("exec", identity, "sh", "-c", states) for word in ("sleep", "Z")))


def test_pip_works_in_it(contained: tuple[Pod, str], tmp_path: Path) -> None:
    _, identity = contained
    wheel = tmp_path / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("thing.py", "x = 1")
        made.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        made.writestr("thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\nRoot-Is-Purelib: true\n")
        made.writestr("thing-1.dist-info/RECORD", "")
    docker("cp", str(wheel), f"{identity}:/tmp/")
    install = ["python3", "-m", "pip", "install", "-q", "--no-index", "--find-links", "/tmp", "--target", "/tmp/target"]
    docker("exec", identity, *install, "thing")
    assert "thing.py" in docker("exec", identity, "ls", "/tmp/target")


def test_it_ends_soon_after_it_is_told_to(contained: tuple[Pod, str]) -> None:
    """Last: the container is gone then."""
    _, identity = contained
    begun = time.monotonic()
    docker("stop", "-t", "20", identity)
    assert time.monotonic() - begun < 10
    assert docker("inspect", "--format", "{{.State.ExitCode}}", identity) == "0"
