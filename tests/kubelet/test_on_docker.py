"""The kubelet on a real Docker Engine, with an API in memory: the life of pods as people see it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.pod import Pod
from minik8s.client.base import Client
from minik8s.kubelet.mounts import unmount_below
from minik8s.runtime.base import SandboxSpec
from minik8s.runtime.docker import DockerRuntime
from tests.images import make_images

from .node import Node, api_server, eventually, is_ready, node, restarts, stopwatch, unique, waiting

pytestmark = [pytest.mark.docker, pytest.mark.root]
FOREVER = {"name": "app", "command": ["sleep", "100000"]}


def sh(script: str, name: str = "app", **more: object) -> dict[str, object]:
    return {"name": name, "command": ["sh", "-c", script], **more}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with api_server() as client:
        yield client


@pytest.fixture
async def runtime() -> AsyncIterator[DockerRuntime]:
    make_images("busybox")
    async with DockerRuntime(f"test-{unique()}") as runtime:
        yield runtime
        for info in await runtime.containers():
            await runtime.remove(info.id)


@pytest.fixture
def data(tmp_path: Path):
    yield tmp_path
    unmount_below(tmp_path)


@pytest.fixture
async def one(client: Client, runtime: DockerRuntime, data: Path) -> AsyncIterator[Node]:
    async with node(client, runtime, data) as one:
        yield one


async def docker(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec("docker", *arguments, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


async def run_in(one: Node, pod: Pod, *command: str) -> str:
    info = (await one.seen(pod))["app"]
    return (await one.runtime.exec_sync(info.id, command, 10)).output.decode()


async def test_a_pod_with_two_containers_lives_and_goes_without_a_trace(one: Node, data: Path):
    await one.create("two", FOREVER, {**FOREVER, "name": "other"})
    pod = await one.ready("two")
    assert sorted(await one.seen(pod)) == ["POD", "app", "other"]
    assert (data / "pods" / pod.metadata.uid).exists()
    await one.delete("two")
    assert await one.runtime.containers(pod.metadata.uid) == []
    assert not (data / "pods" / pod.metadata.uid).exists()
    words = {line.split()[1] for line in await one.events("two")}
    assert {"Pulled", "Created", "Started", "Killing"} <= words


async def test_init_containers_sidecar_and_a_shared_volume(one: Node):
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    await one.create(
        "order",
        sh("cat /v/log; sleep 100000", **mount),
        init=(
            sh("echo sidecar >> /v/log; sleep 100000", "side", restartPolicy="Always", **mount),
            sh("echo first >> /v/log", "first", **mount),
        ),
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    pod = await one.ready("order")
    assert await run_in(one, pod, "cat", "/v/log") == "sidecar\nfirst\n"
    first = pod.status.initContainerStatuses[1]
    assert first.ready
    assert first.state.terminated is not None
    assert first.state.terminated.reason == "Completed"


async def test_crash_loop_with_its_words(one: Node):
    await one.create("crash", sh("exit 3"))
    pod = await one.until("crash", lambda pod: waiting(pod, "app") == "CrashLoopBackOff")
    assert restarts(pod, "app") == 1
    last = pod.status.containerStatuses[0].lastState.terminated
    assert last is not None
    assert (last.exitCode, last.reason) == (3, "Error")
    assert pod.status.phase == "Running"


async def test_termination_messages_and_job_pods(one: Node):
    await one.create("done", sh("echo -n bye > /dev/termination-log"), restartPolicy="Never")
    pod = await one.until("done", lambda pod: pod.status.phase == "Succeeded")
    ended = pod.status.containerStatuses[0].state.terminated
    assert ended is not None
    assert (ended.reason, ended.message) == ("Completed", "bye")
    await one.create(
        "failed", sh("echo oops; exit 1", terminationMessagePolicy="FallbackToLogsOnError"), restartPolicy="Never"
    )
    pod = await one.until("failed", lambda pod: pod.status.phase == "Failed")
    ended = pod.status.containerStatuses[0].state.terminated
    assert ended is not None
    assert ended.message == "oops\n"

    async def released() -> bool:  # its sandbox is given back, its container stays for logs
        return list(await one.seen(pod)) == ["app"]

    await eventually(released)


async def test_out_of_memory_is_told_as_such(one: Node):
    # The engine asks the kernel to be told of this a moment after the start.
    hog = sh("sleep 1; x=a; while true; do x=$x$x$x$x; done", resources={"limits": {"memory": "12Mi"}})
    await one.create("hog", hog, restartPolicy="Never")
    pod = await one.until("hog", lambda pod: pod.status.phase == "Failed")
    ended = pod.status.containerStatuses[0].state.terminated
    assert ended is not None
    assert (ended.reason, ended.exitCode) == ("OOMKilled", 137)


async def test_a_program_that_does_not_exist(one: Node):
    await one.create("nope", {"name": "app", "command": ["/no/such/program"]}, restartPolicy="Never")
    pod = await one.until("nope", lambda pod: pod.status.phase == "Failed")
    ended = pod.status.containerStatuses[0].state.terminated
    assert ended is not None
    assert ended.reason == "ContainerCannotRun"
    assert "no such file" in ended.message


async def test_images_that_cannot_be_had(one: Node):
    await one.create("never", {**FOREVER, "image": "no/such:1", "imagePullPolicy": "Never"})
    await one.create("pull", {**FOREVER, "image": "localhost:1/no/such:1"})
    await one.until("never", lambda pod: waiting(pod, "app") == "ErrImageNeverPull")
    await one.until("pull", lambda pod: waiting(pod, "app") == "ErrImagePull")
    pod = await one.until("pull", lambda pod: waiting(pod, "app") == "ImagePullBackOff")
    assert pod.status.phase == "Pending"
    words = {line.split()[1] for line in await one.events("pull")}
    assert {"Pulling", "Failed", "BackOff"} <= words
    await one.delete("pull")


async def test_a_container_that_ignores_sigterm_is_killed_after_its_grace(one: Node):
    # Ready only once the trap is set: until its program runs, the engine's own process would obey the signal.
    armed = {"exec": {"command": ["test", "-e", "/tmp/armed"]}, "periodSeconds": 1}
    deaf = "trap '' TERM; touch /tmp/armed; sleep 100000 & while true; do wait; done"
    await one.create("deaf", sh(deaf, readinessProbe=armed))
    await one.ready("deaf")
    clock = stopwatch()
    await one.delete("deaf")
    assert 0.9 < clock() < 20  # its grace is 1 s; other work on the machine may slow the engine


async def test_a_longer_grace_is_cut_short_by_a_second_delete(one: Node):
    await one.create("slow", sh("trap '' TERM; while true; do sleep 1; done"), terminationGracePeriodSeconds=60)
    await one.ready("slow")
    clock = stopwatch()
    await one.client.delete(Pod, "slow", "default")
    await one.until("slow", lambda pod: pod.deleting)
    await asyncio.sleep(0.5)  # into the grace period
    await one.delete("slow", grace=1)
    assert clock() < 30  # of 60


async def test_hooks(one: Node, tmp_path: Path):
    hook = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo post >> /out/log"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre >> /out/log"]}},
    }
    await one.create(
        "hooks",
        {**FOREVER, "lifecycle": hook, "volumeMounts": [{"name": "v", "mountPath": "/out"}]},
        volumes=[{"name": "v", "hostPath": {"path": str(tmp_path / "out"), "type": "DirectoryOrCreate"}}],
    )
    await one.ready("hooks")
    assert (tmp_path / "out" / "log").read_text() == "post\n"
    await one.delete("hooks")
    assert (tmp_path / "out" / "log").read_text() == "post\npre\n"


async def test_probes_of_a_program(one: Node):
    probe = {"exec": {"command": ["test", "-e", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 1}
    await one.create("probed", {**FOREVER, "readinessProbe": probe})
    pod = await one.until("probed", lambda pod: pod.status.phase == "Running")
    assert not pod.status.containerStatuses[0].ready
    await run_in(one, pod, "touch", "/tmp/ok")
    await one.ready("probed")
    await run_in(one, pod, "rm", "/tmp/ok")
    await one.until("probed", lambda pod: not pod.status.containerStatuses[0].ready)
    assert any("Readiness probe failed" in line for line in await one.events("probed"))


async def test_a_liveness_probe_restarts(one: Node):
    probe = {"exec": {"command": ["test", "!", "-e", "/tmp/bad"]}, "periodSeconds": 1, "failureThreshold": 1}
    await one.create("live", sh("sleep 100000", livenessProbe=probe))
    pod = await one.ready("live")
    await run_in(one, pod, "touch", "/tmp/bad")
    await one.until("live", lambda pod: restarts(pod, "app") == 1)
    assert any("failed liveness probe, will be restarted" in line for line in await one.events("live"))


async def test_configuration_is_mounted_and_updated_in_place(one: Node):
    await one.client.create(ConfigMap, {"metadata": {"name": "c"}, "data": {"key": "one"}}, "default")
    await one.create(
        "conf",
        {
            **FOREVER,
            "env": [{"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "key"}}}],
            "volumeMounts": [
                {"name": "v", "mountPath": "/conf"},
                {"name": "v", "mountPath": "/single", "subPath": "key"},
                {"name": "d", "mountPath": "/down"},
            ],
        },
        metadata={"labels": {"a": "b"}},
        volumes=[
            {"name": "v", "configMap": {"name": "c"}},
            {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        ],
    )
    pod = await one.ready("conf")
    script = "cat /conf/key /single; echo $KEY; cat /down/l; grep conf /etc/hosts; cat /etc/hostname"
    text = await run_in(one, pod, "sh", "-c", script)
    assert text == f'oneoneone\na="b"{pod.status.podIP}\tconf\nconf\n'
    await one.client.patch(ConfigMap, "c", "default", {"data": {"key": "two"}})

    async def updated() -> bool:
        return await run_in(one, pod, "cat", "/conf/key") == "two"

    await eventually(updated)
    assert await run_in(one, pod, "cat", "/single") == "one"


async def test_a_missing_configuration_is_told_and_waited_for(one: Node):
    volumes = [{"name": "v", "configMap": {"name": "late"}}]
    await one.create("waits", {**FOREVER, "volumeMounts": [{"name": "v", "mountPath": "/conf"}]}, volumes=volumes)
    await one.create("env", {**FOREVER, "envFrom": [{"configMapRef": {"name": "late"}}]})
    await one.until("env", lambda pod: waiting(pod, "app") == "CreateContainerConfigError")

    async def told() -> bool:
        return any('configmap "late" not found' in line for line in await one.events("waits"))

    await eventually(told)
    await one.client.create(ConfigMap, {"metadata": {"name": "late"}, "data": {"key": "v"}}, "default")
    await one.ready("waits", 5)
    await one.ready("env", 5)


async def test_memory_volumes_and_group_ownership(one: Node, data: Path):
    await one.create(
        "mem",
        {**FOREVER, "volumeMounts": [{"name": "m", "mountPath": "/m"}, {"name": "g", "mountPath": "/g"}]},
        volumes=[{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, {"name": "g", "emptyDir": {}}],
        securityContext={"fsGroup": 4242},
    )
    pod = await one.ready("mem")
    assert "tmpfs" in await run_in(one, pod, "grep", " /m ", "/proc/mounts")
    assert (await run_in(one, pod, "stat", "-c", "%g %A", "/g")).startswith("4242 drwxrws")
    assert (await run_in(one, pod, "dd", "if=/dev/zero", "of=/m/x", "bs=1M", "count=2")).find("No space") >= 0
    await one.delete("mem")
    assert str(data) not in await asyncio.to_thread(Path("/proc/self/mountinfo").read_text)


async def test_a_container_removed_behind_its_back_is_made_again(one: Node):
    await one.create("back", FOREVER)
    pod = await one.ready("back")
    info = (await one.seen(pod))["app"]
    clock = stopwatch()
    await docker("rm", "-f", info.id)
    pod = await one.until("back", lambda pod: restarts(pod, "app") == 1 and pod.status.containerStatuses[0].ready)
    assert clock() < 20
    assert (await one.seen(pod))["app"].id != info.id


async def test_a_killed_sandbox_is_replaced_with_the_same_address(one: Node):
    await one.create("sand", FOREVER)
    pod = await one.ready("sand")
    before, address = await one.seen(pod), pod.status.podIP
    await docker("kill", before["POD"].id)
    pod = await one.until("sand", lambda pod: restarts(pod, "app") == 1 and pod.status.containerStatuses[0].ready)
    assert pod.status.podIP == address
    assert (await one.seen(pod))["POD"].attempt == 1


async def test_strays_are_removed(one: Node):
    stray = await one.runtime.create_sandbox(SandboxSpec("no-such-uid", "stray", "default", "stray"))
    await one.runtime.start_sandbox(stray)

    async def removed() -> bool:
        return not await one.runtime.containers("no-such-uid")

    await eventually(removed)


async def test_an_agents_restart_leaves_containers_alone(client: Client, runtime: DockerRuntime, data: Path):
    async with node(client, runtime, data) as first:
        await first.create(
            "stay", FOREVER, sh("sleep 100000", "probed", readinessProbe={"exec": {"command": ["true"]}})
        )
        pod = await first.ready("stay")
        before = await first.seen(pod)
    async with node(client, runtime, data) as second:
        unready = []
        second._pods.on_change(lambda old, new: unready.append(new) if new and not is_ready(new) else None)
        await second.kubelet.pleg.relist()
        await second.create("marker", FOREVER)  # when this one runs, the other has been looked at
        await second.ready("marker")
        after = await second.seen(pod)
        assert {n: (i.id, i.pid, i.attempt) for n, i in after.items()} == {
            n: (i.id, i.pid, i.attempt) for n, i in before.items()
        }
        for info in after.values():
            os.kill(info.pid, 0)
        assert [pod for pod in unready if pod.metadata.name == "stay"] == []
        await second.delete("stay")


async def test_many_pods_at_once(one: Node):
    clock = stopwatch()
    for number in range(12):
        await one.create(f"m{number}", FOREVER)
    for number in range(12):
        await one.ready(f"m{number}")
    up = clock()
    for number in range(12):
        await one.client.delete(Pod, f"m{number}", "default", grace=1)
    for number in range(12):
        await one.gone(f"m{number}")
    print(f"12 pods ready after {up:.2f} s, gone {clock() - up:.2f} s later")
    assert await one.runtime.containers() == []
