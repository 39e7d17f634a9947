"""The fake's own ways: programs in a few words, failures on demand, many containers."""

from __future__ import annotations

import asyncio
import time

import pytest

from minik8s.runtime.base import (
    ContainerSpec,
    CreateFailed,
    EngineUnavailable,
    ExecResult,
    ImagePullFailed,
    RuntimeEvent,
    SandboxSpec,
)
from minik8s.runtime.fake import FakeRuntime
from minik8s.runtime.fake_program import Program, program
from tests.runtime.conftest import Pod


@pytest.mark.parametrize(
    ("words", "image", "what"),
    [
        ([], "fake/exit:3", Program(0, 3)),
        ([], "nginx:1", Program(None)),
        (["sleep", "5"], "", Program(5.0)),
        (["false"], "", Program(0, 1)),
        (["sh", "-c", "sleep 2; exit 4"], "", Program(2.0, 4)),
        (["sh", "-c", "exit 4; sleep 9"], "", Program(0, 4)),
        (["/bin/sh", "-c", "echo hi $A && sleep 1"], "", Program(1.0, 0, ((1, b"hi 1\n"),))),
        (["nginx", "-g", "daemon off;"], "", Program(None)),
        (["sh", "-c", "trap '' TERM; sleep 9"], "", Program(9.0, ignores_term=True)),
    ],
)
def test_programs(words: list[str], image: str, what: Program) -> None:
    assert program(words, {"A": "1"}, "h", image) == what


async def test_moved_by_hand(fake: FakeRuntime) -> None:
    pod = await Pod(fake).up()
    app, other = await pod.run("server"), await pod.run("server", name="other")
    fake.exit(app, 9)
    fake.oom_kill(other)
    seen = {info.id: info for info in await fake.containers(pod.uid)}
    assert (seen[app].state, seen[app].exit_code) == ("exited", 9)
    assert (seen[other].exit_code, seen[other].oom_killed) == (137, True)


async def test_fails_on_demand(fake: FakeRuntime) -> None:
    pod = await Pod(fake).up()
    fake.fail_next("create_container", CreateFailed("no room"))
    with pytest.raises(CreateFailed, match="no room"):
        await pod.run("server")
    await pod.run("server")


async def test_probes_are_answered(fake: FakeRuntime) -> None:
    app = await (await Pod(fake).up()).run("server")
    assert (await fake.exec_sync(app, ["check"], 1)).exit_code == 0
    fake.answer_exec(app, ExecResult(1, b"sick"))
    assert await fake.exec_sync(app, ["check"], 1) == (1, b"sick")
    fake.answer_exec(app, None)
    assert (await fake.exec_sync(app, ["check"], 1)).exit_code == 0


async def test_the_engine_stops(fake: FakeRuntime) -> None:
    async with fake.events() as events:
        fake.stop_engine()
        with pytest.raises(EngineUnavailable):
            await fake.containers()
        fake.start_engine()
        assert await anext(events) == RuntimeEvent("", "", "relist")


async def test_pulls() -> None:
    async with FakeRuntime(images=()) as fake:
        assert await fake.image("web:1") is None
        image = await fake.pull("web:1")
        assert await fake.image("web:1") == image
        with pytest.raises(ImagePullFailed, match="manifest unknown"):
            await fake.pull("fake/missing:1")
    async with FakeRuntime() as willing:
        assert await willing.image("anything:7") is not None
        assert await willing.image("fake/missing:7") is None


async def test_dial(fake: FakeRuntime) -> None:
    pod = await Pod(fake).up()
    fake.listen(pod.sandbox, 80, bytes.upper)
    async with fake.dial(pod.sandbox, 80) as port:
        await port.write(b"hi")
        assert await port.read() == b"HI"
        await port.close_write()
        assert await port.read() == b""


async def test_thirty_thousand_pods_are_cheap() -> None:
    async with FakeRuntime() as fake:
        image = await fake.image("web:1")
        assert image is not None
        began = time.process_time()
        for number in range(30_000):
            sandbox = SandboxSpec(f"u{number}", f"p{number}", "default", hostname=f"p{number}")
            made = await fake.create_sandbox(sandbox)
            await fake.start_sandbox(made)
            spec = ContainerSpec(
                f"u{number}", f"p{number}", "default", "app", 0, "h", image.id, sandbox, made
            )  # fmt: skip
            await fake.start(await fake.create_container(spec))
        assert time.process_time() - began < 20  # 2 s on a quiet machine
        assert len(await fake.containers("u29999")) == 2
        assert len(asyncio.all_tasks()) == 1
