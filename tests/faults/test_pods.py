"""Pods in trouble: an engine that is cut off or hangs, containers that others remove, kill or add, failing programs."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.pod import Pod
from minik8s.client.base import Client
from tests.agent import Agent, run
from tests.faults.api import TURN, admin, events, gone, is_ready, pod, ready, sh, state, until, waits
from tests.faults.engine_proxy import EngineProxy
from tests.faults.host import Container, Host
from tests.images import BUSYBOX
from tests.patience import patience

pytestmark = [pytest.mark.faults, pytest.mark.docker, pytest.mark.root]
MANY = 100


@pytest.fixture(scope="module")
def proxy() -> Iterator[EngineProxy]:
    with tempfile.TemporaryDirectory(prefix="minik8s-test-") as folder, EngineProxy(Path(folder) / "d.sock") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def agent(engine: None, proxy: EngineProxy) -> Iterator[Agent]:
    with Agent.lent("--docker-host", f"unix://{proxy.path}") as agent:
        yield agent.start()


@pytest.fixture
async def client(agent: Agent, proxy: EngineProxy) -> AsyncIterator[Client]:
    """A cluster without pods, before and after."""
    proxy.mend()
    async with admin(agent) as client:
        yield client
        proxy.mend()
        for one in (await client.list(Pod, "default")).items:
            await client.delete(Pod, one.metadata.name, "default", grace=0)
        await gone(client, seconds=60)


async def change(host: Host, test: Callable[[], bool], *, seconds: float = 20) -> float:
    """Seconds until what is on the host is so."""
    began = time.monotonic()
    while not await asyncio.to_thread(test):
        assert time.monotonic() - began < patience(seconds), host.containers()
        await asyncio.sleep(TURN)
    return time.monotonic() - began


async def told(client: Client, name: str, line: str) -> None:
    """Wait for an event of the pod that begins so; events come a little later than the status."""
    async with asyncio.timeout(patience(5)):
        while not any(event.startswith(line) for event in await events(client, name)):
            await asyncio.sleep(TURN)


# -- the engine


async def test_events_that_are_cut_and_missed(client: Client, host: Host, proxy: EngineProxy) -> None:
    await client.create(Pod, pod("seen"), "default")
    await ready(client, "seen")
    assert proxy.cut_events() == 1
    host.docker("kill", host.container("seen").id)  # while nobody listens, or just again
    await until(client, "seen", lambda pod: is_ready(pod) and state(pod).restartCount == 1)
    proxy.refuse()
    host.docker("kill", host.container("seen").id)
    await asyncio.sleep(1)
    proxy.mend()
    # The second crash in a row waits for ten seconds.
    await until(client, "seen", lambda pod: waits(pod) == "CrashLoopBackOff" or state(pod).restartCount == 2)
    await until(client, "seen", lambda pod: is_ready(pod) and state(pod).restartCount == 2)


async def test_an_engine_that_hangs_and_comes_back(client: Client, host: Host, proxy: EngineProxy) -> None:
    await client.create(Pod, pod("before"), "default")
    await ready(client, "before")
    pid = host.container("before").pid
    proxy.hang()
    await client.create(Pod, pod("during"), "default")
    for number in range(20):  # the API does not wait for it
        await asyncio.wait_for(client.create(ConfigMap, {"metadata": {"name": f"hang-{number}"}}, "default"), 5)
        await asyncio.sleep(0.1)
    assert not is_ready(await client.get(Pod, "during", "default"))
    proxy.mend()
    await ready(client, "during")
    assert (await client.get(Pod, "before", "default")).status.containerStatuses[0].restartCount == 0
    assert host.container("before").pid == pid
    assert not host.doubles()


# -- others meddle


async def test_a_container_that_is_removed_is_made_again(client: Client, host: Host) -> None:
    await client.create(Pod, pod("robbed"), "default")
    before = await ready(client, "robbed")
    old = host.container("robbed")
    host.docker("rm", "-f", old.id)
    after = await until(client, "robbed", lambda pod: is_ready(pod) and state(pod).restartCount == 1)
    new = host.container("robbed")
    assert new.id != old.id
    assert state(after).containerID == f"docker://{new.id}"
    assert after.status.podIP == before.status.podIP


async def test_a_sandbox_that_is_removed_is_made_again(client: Client, host: Host) -> None:
    await client.create(Pod, pod("homeless"), "default")
    before = await ready(client, "homeless")
    old = host.container("homeless", "POD")
    host.docker("rm", "-f", old.id)
    await change(host, lambda: any(c.state == "running" and c.id != old.id for c in _of(host, "homeless", "POD")))
    after = await until(client, "homeless", lambda pod: is_ready(pod) and state(pod).restartCount == 1)
    assert after.status.podIP == before.status.podIP
    assert len(host.links()) == 1
    await asyncio.to_thread(run, ["ping", "-c1", "-W2", after.status.podIP])


def _of(host: Host, pod: str, container: str) -> list[Container]:
    return [one for one in host.containers(pod) if one.container == container]


async def test_strays_go_and_strangers_stay(client: Client, host: Host) -> None:
    await client.create(Pod, pod("own"), "default")
    own = await ready(client, "own")

    def stray(uid: str, name: str, node: str) -> str:
        labels = {
            "io.minik8s.managed": node,
            "io.kubernetes.pod.uid": uid,
            "io.kubernetes.pod.name": "own",
            "io.kubernetes.pod.namespace": "default",
            "io.kubernetes.container.name": name,
            "io.kubernetes.container.restartCount": "0",
        }
        flags = [part for pair in labels.items() for part in ("--label", "=".join(pair))]
        full = f"k8s_{name}_own_default_{uid}_0"
        # Not `run`: it may be gone before it is started.
        return host.docker("create", "--name", full, "--network=none", *flags, BUSYBOX, "sleep", "1000").strip()

    unknown = stray(str(uuid.uuid4()), "app", host.node_uid)
    surplus = stray(own.metadata.uid, "ghost", host.node_uid)
    stranger = stray(str(uuid.uuid4()), "app", "another-agent")
    try:
        kept = {c.id for c in host.containers("own")} - {unknown, surplus}
        await change(host, lambda: {c.id for c in host.containers("own")} == kept)
        assert stranger in host.docker("ps", "-aq", "--no-trunc").split()
        assert state(await client.get(Pod, "own", "default")).restartCount == 0
    finally:
        host.docker("rm", "-f", stranger)


async def test_a_program_that_is_killed_is_started_again_at_once(client: Client, host: Host) -> None:
    await client.create(Pod, pod("victim"), "default")
    await ready(client, "victim")
    host.docker("kill", host.container("victim").id)
    began = time.monotonic()
    after = await until(client, "victim", lambda pod: state(pod).restartCount == 1 and state(pod).state.running)
    took = time.monotonic() - began
    print(f"started again after {took:.2f} s")
    assert took < patience(1.0)
    assert state(after).lastState.terminated.exitCode == 137
    assert len(_of(host, "victim", "app")) == 2  # the dead one is kept for its log


# -- programs that fail


async def test_an_image_that_does_not_exist_until_it_does(client: Client, host: Host) -> None:
    image = f"localhost:1/none-{uuid.uuid4().hex[:8]}:1"
    await client.create(Pod, pod("none", {"image": image, "command": ["sleep", "1000"]}), "default")
    await until(client, "none", lambda pod: waits(pod) == "ErrImagePull")
    found = await until(client, "none", lambda pod: waits(pod) == "ImagePullBackOff")
    assert found.status.phase == "Pending"
    assert f'Back-off pulling image "{image}"' in state(found).state.waiting.message
    for line in (
        f'Normal Pulling Pulling image "{image}"',
        f'Warning Failed Failed to pull image "{image}": ',
        "Warning Failed Error: ErrImagePull",
        f'Normal BackOff Back-off pulling image "{image}"',
        "Warning Failed Error: ImagePullBackOff",
    ):
        await told(client, "none", line)
    host.docker("tag", BUSYBOX, image)
    try:
        await ready(client, "none", seconds=45)
        await client.delete(Pod, "none", "default", grace=0)
        await gone(client, "none")
    finally:
        host.docker("rmi", image)


async def test_a_program_that_ignores_sigterm_is_killed_after_its_grace(client: Client, host: Host) -> None:
    deaf = sh("trap '' TERM; while true; do sleep 1; done")
    await client.create(Pod, pod("deaf", deaf, terminationGracePeriodSeconds=3), "default")
    await ready(client, "deaf")
    began = time.monotonic()
    await client.delete(Pod, "deaf", "default")
    await gone(client, "deaf")
    took = time.monotonic() - began
    print(f"gone after {took:.2f} s")
    assert 2.9 < took < 3 + patience(2)


async def test_out_of_memory(client: Client) -> None:
    hog = sh("sleep 0.5; x=a; while true; do x=$x$x$x$x; done", resources={"limits": {"memory": "12Mi"}})
    await client.create(Pod, pod("hog", hog), "default")
    found = await until(client, "hog", lambda pod: state(pod) is not None and state(pod).restartCount >= 1)
    assert state(found).lastState.terminated.reason == "OOMKilled"
    assert state(found).lastState.terminated.exitCode == 137


async def test_a_program_that_keeps_failing(client: Client) -> None:
    await client.create(Pod, pod("crash", sh("echo boom > /dev/termination-log; exit 3")), "default")
    found = await until(client, "crash", lambda pod: waits(pod) == "CrashLoopBackOff")
    assert state(found).restartCount == 1
    assert "back-off 10s restarting failed container=app" in state(found).state.waiting.message
    ended = state(found).lastState.terminated
    assert (ended.exitCode, ended.reason, ended.message.strip()) == (3, "Error", "boom")
    await told(client, "crash", "Warning BackOff Back-off restarting failed container app")
    began = time.monotonic()
    await until(client, "crash", lambda pod: state(pod).restartCount == 2)
    assert time.monotonic() - began < 10 + patience(2)


# -- many


@pytest.mark.timeout(400)
async def test_a_hundred_pods_at_once(client: Client, host: Host) -> None:
    names = [f"many-{number}" for number in range(MANY)]
    began = time.monotonic()
    await asyncio.gather(*(client.create(Pod, pod(name), "default") for name in names))
    while not all(is_ready(one) for one in (await client.list(Pod, "default")).items):
        assert time.monotonic() - began < patience(60)
        await asyncio.sleep(0.2)
    came = time.monotonic() - began
    pods = (await client.list(Pod, "default")).items
    assert len({one.status.podIP for one in pods}) == MANY
    assert all(one.restartCount == 0 for pod in pods for one in pod.status.containerStatuses)
    assert not host.leftovers({one.metadata.uid for one in pods})
    began = time.monotonic()
    await asyncio.gather(*(client.delete(Pod, name, "default", grace=0) for name in names))
    await gone(client, seconds=patience(60))
    await change(host, lambda: not host.leftovers(set()), seconds=60)
    print(f"{MANY} pods: ready after {came:.1f} s, nothing left after {time.monotonic() - began:.1f} s")
