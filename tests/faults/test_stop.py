"""SIGTERM and SIGINT: the agent goes at once and cleanly, its pods stay, and the next start takes them up again."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time

import pytest

from minik8s.api.kinds.pod import Pod
from tests.agent import Agent
from tests.faults.api import admin, events, is_ready, pod, ready, sh, state, until
from tests.faults.host import Host
from tests.patience import patience

pytestmark = [pytest.mark.faults, pytest.mark.docker, pytest.mark.root]
STOP = 2.0  # seconds, on a machine that is not overloaded


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_pods_outlive_the_agent(agent: Agent, host: Host, number: signal.Signals) -> None:
    name = f"stay-{number.name.lower()}"
    async with admin(agent) as client:
        # What could hold it up: a pod that is being deleted, one that cannot start, a watch, a followed log, a shell.
        await client.create(Pod, pod(name, sh("while echo tick; do sleep 0.2; done")), "default")
        deaf = sh("trap '' TERM; while true; do sleep 1; done")
        await client.create(Pod, pod(f"deaf-{number.name.lower()}", deaf, terminationGracePeriodSeconds=20), "default")
        before = await ready(client, name)
        await ready(client, f"deaf-{number.name.lower()}")
        await client.create(Pod, pod(f"none-{number.name.lower()}", {"image": "localhost:1/none:1"}), "default")
        await client.delete(Pod, f"deaf-{number.name.lower()}", "default")
        pid = host.container(name).pid
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        followers = [
            agent.popen("get", "pods", "-w", **quiet),
            agent.popen("logs", "-f", name, **quiet),
            agent.popen("exec", "-i", name, "--", "cat", stdin=subprocess.PIPE, **quiet),
        ]
        await asyncio.sleep(1)
    try:
        began = time.monotonic()
        assert agent.process is not None
        agent.process.send_signal(number)
        code = await asyncio.to_thread(agent.process.wait, 30)
        took = time.monotonic() - began
        assert code == 0, agent.log[-2000:]
        assert took < patience(STOP)
        assert not (trace := agent.log.partition("Traceback")[2]), trace[:3000]
        assert host.container(name).pid == pid
        for follower in followers:  # none is left hanging
            await asyncio.to_thread(follower.wait, 20)
    finally:
        for follower in followers:
            follower.kill()
            follower.wait()
    agent.start(ready=False)  # from this thread: the agent ends with the one that started it
    await asyncio.to_thread(agent.wait_ready)
    async with admin(agent) as client:
        after = await ready(client, name)
        assert after.metadata.uid == before.metadata.uid
        assert after.status.podIP == before.status.podIP
        assert state(after).restartCount == 0
        assert host.container(name).pid == pid
        assert not host.doubles()
        # What happens now is seen again.
        host.docker("kill", host.container(name).id)
        back = await until(client, name, lambda pod: is_ready(pod) and state(pod).restartCount == 1)
        assert back.status.podIP == before.status.podIP
        assert any("Started" in line for line in await events(client, name))
        for one in (await client.list(Pod, "default")).items:
            await client.delete(Pod, one.metadata.name, "default", grace=0)
