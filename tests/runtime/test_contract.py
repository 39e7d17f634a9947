"""What every runtime promises, on the fake and on Docker Engine alike."""

from __future__ import annotations

import asyncio
import time

import pytest

from minik8s.runtime.base import (
    ContainerInfo,
    CreateFailed,
    EngineConflict,
    InvalidImageName,
    NoSuchContainer,
    Runtime,
    RuntimeEvent,
    StartFailed,
)
from tests.runtime.conftest import Pod


async def container(runtime: Runtime, pod: Pod, name: str = "app") -> ContainerInfo:
    return next(info for info in await runtime.containers(pod.uid) if info.name == name)


async def ended(runtime: Runtime, container_id: str) -> None:
    """Wait by its log's end, which is the container's."""
    async with runtime.logs(container_id, follow=True) as lines:
        async for _ in lines:
            pass


async def test_a_pod_lives_and_dies(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    app = await pod.run("sleep", "600", labels={"mine": "yes"})
    seen = {info.name: info for info in await runtime.containers(pod.uid)}
    assert set(seen) == {"POD", "app"}
    assert seen["app"].state == "running"
    assert (seen["app"].pod_name, seen["app"].pod_namespace, seen["app"].attempt) == ("web-0", "default", 0)
    assert seen["app"].hash == "hash"
    assert seen["app"].labels["mine"] == "yes"
    assert abs(seen["app"].started_at - time.time()) < 30
    assert seen["POD"].is_sandbox
    assert seen["POD"].id == pod.sandbox
    await runtime.stop(app, 0)
    dead = await container(runtime, pod)
    assert (dead.state, dead.exit_code) == ("exited", 137)
    assert dead.finished_at >= dead.started_at
    await runtime.remove(app)
    await runtime.remove(pod.sandbox)
    await runtime.remove(pod.sandbox)
    assert await runtime.containers(pod.uid) == []


async def test_a_sandbox_is_made_once(runtime: Runtime, pod: Pod) -> None:
    first = (await pod.up()).sandbox
    assert await runtime.create_sandbox(pod.spec) == first
    await runtime.start_sandbox(first)
    assert [info.id for info in await runtime.containers(pod.uid)] == [first]
    await runtime.stop(first, 0)
    again = await runtime.create_sandbox(pod.spec)
    assert again != first
    assert [(info.id, info.state) for info in await runtime.containers(pod.uid)] == [(again, "created")]


async def test_a_container_can_be_made_before_its_sandbox_runs(runtime: Runtime, pod: Pod) -> None:
    pod.sandbox = await runtime.create_sandbox(pod.spec)
    app = await runtime.create_container(pod.container("sleep", "600"))
    assert {info.state for info in await runtime.containers(pod.uid)} == {"created"}
    await runtime.start_sandbox(pod.sandbox)
    await runtime.start(app)
    assert {info.state for info in await runtime.containers(pod.uid)} == {"running"}


async def test_only_the_pod_that_was_asked_for_is_listed(runtime: Runtime, pod: Pod) -> None:
    other = await Pod(runtime).up()
    await pod.up()
    assert [info.pod_uid for info in await runtime.containers(pod.uid)] == [pod.uid]
    assert {info.pod_uid for info in await runtime.containers()} == {pod.uid, other.uid}


async def test_a_container_of_the_same_attempt_is_replaced(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    first = await pod.run("sleep", "600")
    second = await pod.run("sleep", "600")
    assert first != second
    assert (await container(runtime, pod)).id == second


@pytest.mark.parametrize("code", [0, 7])
async def test_exit_code_is_told(runtime: Runtime, pod: Pod, code: int) -> None:
    await pod.up()
    await ended(runtime, await pod.run("sh", "-c", f"exit {code}"))
    info = await container(runtime, pod)
    assert (info.state, info.exit_code, info.oom_killed) == ("exited", code, False)


async def test_stop_waits_for_the_grace_of_a_program_that_ignores_it(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    app = await pod.run("sh", "-c", "trap '' TERM; echo ready; sleep 600")
    async with runtime.logs(app, follow=True) as lines:
        assert (await anext(aiter(lines))).data == b"ready\n"
    began = time.monotonic()
    await runtime.stop(app, 1)
    assert 0.9 <= time.monotonic() - began < 5
    assert (await container(runtime, pod)).exit_code == 137


async def test_unknown_ids(runtime: Runtime) -> None:
    with pytest.raises(NoSuchContainer):
        await runtime.start("feed")
    with pytest.raises(NoSuchContainer):
        await runtime.stop("feed", 0)
    with pytest.raises(NoSuchContainer):
        await runtime.exec_sync("feed", ["true"], 1)
    with pytest.raises(NoSuchContainer):
        async with runtime.logs("feed"):
            pass


async def test_an_image_that_is_not_there(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    assert await runtime.image("minik8s.test/absent:1") is None
    with pytest.raises(CreateFailed, match="No such image"):
        await pod.run("true", image="minik8s.test/absent:1")
    with pytest.raises(InvalidImageName, match="couldn't parse image name"):
        await runtime.pull("Not An Image")
    with pytest.raises(InvalidImageName, match="couldn't parse image name"):
        await runtime.image("Not:An:Image")


async def test_events_tell_a_containers_life(runtime: Runtime, pod: Pod) -> None:
    async with runtime.events() as events:
        await pod.up()
        app = await pod.run("sleep", "600")
        await runtime.stop(app, 0)
        await runtime.remove(app)
        seen: list[RuntimeEvent] = []
        async with asyncio.timeout(10):
            async for event in events:
                seen.append(event)
                if event.action == "destroy":
                    break
    assert {event.pod_uid for event in seen} == {pod.uid}
    assert [event.action for event in seen if event.container_id == pod.sandbox] == ["create", "start"]
    assert [event.action for event in seen if event.container_id == app] == ["create", "start", "die", "destroy"]


async def test_logs(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    app = await pod.run("sh", "-c", "echo one; echo two >&2; sleep 0.1; echo three")
    await ended(runtime, app)
    async with runtime.logs(app) as lines:
        got = {(line.stream, line.data) async for line in lines}
    assert got == {(1, b"one\n"), (2, b"two\n"), (1, b"three\n")}
    async with runtime.logs(app, tail=1, timestamps=True) as lines:
        (last,) = [line.data async for line in lines]
    stamp, text = last.split(b" ", 1)
    assert text == b"three\n"
    assert stamp[:4].isdigit()
    assert len(stamp) == len("2024-05-01T10:00:00.123456789Z")
    async with runtime.logs(app, since=time.time() + 60) as lines:
        assert [line async for line in lines] == []


async def test_exec(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    app = await pod.run("sleep", "600", env=(("WHO", "me"),))
    result = await runtime.exec_sync(app, ["sh", "-c", "echo $WHO; exit 3"], 10)
    assert result == (3, b"me\n")
    assert (await runtime.exec_sync(app, ["hostname"], 10)).output == b"web-0\n"
    with pytest.raises(TimeoutError, match="timed out after"):
        await runtime.exec_sync(app, ["sleep", "60"], 0.2)


async def test_exec_with_input(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    app = await pod.run("sleep", "600")
    async with runtime.exec(app, ["cat"], stdin=True, tty=False) as streams:
        await streams.write(b"over")
        assert await streams.read() == (1, b"over")
        await streams.close_stdin()
        assert await streams.read() is None
        assert await streams.exit_code() == 0


async def test_attach(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    app = await pod.run("cat", stdin=True)
    async with runtime.attach(app, stdin=True, tty=False) as streams:
        await streams.write(b"hello\n")
        assert await streams.read() == (1, b"hello\n")
        await runtime.stop(app, 0)
        assert await streams.read() is None


async def test_nobody_listens(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    with pytest.raises(ConnectionRefusedError):
        async with runtime.dial(pod.sandbox, 9):
            pass


async def test_stats(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    app = await pod.run("sleep", "600")
    stats = await runtime.stats(app)
    assert stats is not None
    assert 0 < stats.memory_bytes < 64 << 20
    assert 0 <= stats.cpu_seconds < 10
    assert (stats.processes, stats.threads) == (1, 1)
    assert stats.memory_usage >= stats.memory_bytes
    assert [link.name for link in runtime.links(stats)] in (["eth0"], [])  # nobody has wired this pod's network
    await runtime.stop(app, 0)
    assert await runtime.stats(app) is None


async def test_images_in_use_stay(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    app = await pod.run("sleep", "600")
    image = await runtime.image((await container(runtime, pod)).image_id)
    assert image is not None
    assert image.id in {each.id for each in await runtime.images()}
    assert await runtime.remove_image(image.id) == 0
    assert await runtime.image(image.id) == image
    await runtime.remove(app)


async def test_a_start_that_fails_leaves_its_reason(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    if hasattr(runtime, "fail_next"):
        runtime.fail_next("start", StartFailed('exec: "nope": executable file not found in $PATH'))
    with pytest.raises(StartFailed, match="executable file not found"):
        await pod.run("nope")
    info = await container(runtime, pod)
    assert (info.state, info.exit_code) == ("exited", 127)
    assert "executable file not found" in info.error


async def test_the_inventory_has_what_there_is_and_who_uses_it(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    app = await pod.run("sleep", "600", labels={"mine": "yes"})
    found = await runtime.inventory()
    seen = {container.id: container for container in found.containers}
    assert {pod.sandbox, app} <= set(seen)
    assert (seen[app].state, seen[app].labels["mine"], seen[app].size) == ("running", "yes", None)
    assert seen[app].status.startswith("Up")
    assert seen[app].command.startswith("sleep 600")
    assert abs(seen[app].created - time.time()) < 30
    assert seen[app].name in next(image for image in found.images if image.id == seen[app].image_id).used_by
    assert {"none", "host"} <= {network.name for network in found.networks}
    measured = await runtime.inventory(sizes=True)
    assert next(container for container in measured.containers if container.id == app).size is not None


async def test_only_what_is_not_in_use_is_discarded(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    app = await pod.run("sleep", "600")
    image = (await container(runtime, pod)).image_id
    host = next(network.id for network in (await runtime.inventory()).networks if network.name == "host")
    for kind, id in (("containers", app), ("images", image), ("networks", host)):
        with pytest.raises(EngineConflict):
            await runtime.discard(kind, id)  # type: ignore[arg-type]
    for kind in ("containers", "images", "volumes", "networks"):
        with pytest.raises(NoSuchContainer):
            await runtime.discard(kind, "feed")  # type: ignore[arg-type]
    await runtime.stop(app, 0)
    await runtime.discard("containers", app)
    assert [info.name for info in await runtime.containers(pod.uid)] == ["POD"]


async def test_a_restarted_container_is_the_same_one(runtime: Runtime, pod: Pod) -> None:
    await pod.up()
    app = await pod.run("sleep", "600")
    began = (await container(runtime, pod)).started_at
    await runtime.restart(app, 0)
    info = await container(runtime, pod)
    assert (info.id, info.state) == (app, "running")
    assert info.started_at > began
    with pytest.raises(NoSuchContainer):
        await runtime.restart("feed", 0)
