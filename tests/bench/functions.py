"""What functions cost: calls through the gateway beside calls of the pod itself, cold starts, changes of code."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import aiohttp

from minik8s.api.kinds.environment import POOL_LABEL
from minik8s.api.kinds.function import LABEL, Function
from minik8s.api.kinds.functionrevision import FunctionRevision
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from tests.agent import free_port
from tests.bench.agent import Agent, BenchError, agent, cpu_seconds
from tests.bench.following import Followed, follow, is_ready
from tests.bench.report import Result, percentile

NAMES = ("function-warm", "function-throughput", "function-cold", "function-reload", "function-scaling")
SPACE = "default"
ECHO = "async def main(params):\n    return params\n"
SLOW = "import time\n\ndef main(params):\n    time.sleep(0.05)\n    return 'v1'\n"
CLIENTS = 32
RATE = 200  # calls a second while code changes


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    if os.geteuid() != 0:
        raise BenchError("containers and their network need root")
    port = free_port()
    options = ("--role", "all", "--gateway-listen", f"127.0.0.1:{port}", "--dashboard-listen", "off")
    async with agent(*options, host=True) as running, aiohttp.ClientSession() as http:
        async with follow(running, Node, Pod, Function, FunctionRevision) as seen:
            await seen.until(lambda: any(is_ready(node) for node in seen.list(Node)), "the node")
            bench = Bench(running, seen, http, f"http://127.0.0.1:{port}", quick=quick)
            if {"function-warm", "function-throughput"} & set(names):
                async for result in bench.warm(names):
                    yield result
            if "function-cold" in names:
                async for result in bench.cold():
                    yield result
            if "function-reload" in names:
                async for result in bench.reload():
                    yield result
            if "function-scaling" in names:
                yield await bench.scaling()


class Bench:
    def __init__(
        self, running: Agent, seen: Followed, http: aiohttp.ClientSession, gateway: str, *, quick: bool
    ) -> None:
        self._running = running
        self._seen = seen
        self._http = http
        self._gateway = gateway
        self._quick = quick

    # -- what is there

    async def function(self, name: str, code: str, **spec: Any) -> None:
        """Made, and ready to be called."""
        document = {"metadata": {"name": name, "namespace": SPACE}, "spec": {"code": {"inline": code}, **spec}}
        await self._seen.client.create(Function, document)
        await self._seen.until(lambda: self._live(name) == f"{name}-00001", f"function {name}")

    def _live(self, name: str) -> str:
        found = self._seen.get(Function, SPACE, name)
        return found.status.readyRevision if found is not None and found.status.traffic else ""

    def _pods(self, name: str) -> list[Pod]:
        return [pod for pod in self._seen.list(Pod) if pod.metadata.labels.get(LABEL) == name]

    def _pooled(self) -> bool:
        pods = [pod for pod in self._seen.list(Pod) if POOL_LABEL in pod.metadata.labels]
        return any(pod.status.phase == "Running" and not pod.deleting for pod in pods)

    async def call(self, name: str) -> tuple[int, str]:
        async with self._http.post(f"{self._gateway}/function/{SPACE}/{name}", json={"x": 1}) as answer:
            return answer.status, await answer.text()

    # -- warm

    async def warm(self, names: Sequence[str]) -> AsyncIterator[Result]:
        await self.function("echo", ECHO, concurrency=2 * CLIENTS, scale={"minReplicas": 1, "maxReplicas": 1})
        (pod,) = self._pods("echo")
        count = 2_000 if self._quick else 20_000
        through = f"{self._gateway}/function/{SPACE}/echo"
        direct = f"http://{pod.status.podIP}:8080/"
        await _load(through, 200, 1)
        if "function-warm" in names:
            alone, told = await _load(direct, count, 1), await _load(through, count, 1)
            over = [(percentile(told, share) - percentile(alone, share)) * 1000 for share in (0.5, 0.99)]
            floor = f"{percentile(alone, 0.5) * 1000:.3g} ms for the pod itself"
            yield Result("function call, gateway's part, p50", over[0], "ms", 0.5, beside=floor)
            yield Result("function call, gateway's part, p99", over[1], "ms", 2)
        if "function-throughput" in names:
            used, begun = cpu_seconds(self._running.process.pid), time.perf_counter()
            await _load(through, 2 * count, CLIENTS)
            took, used = time.perf_counter() - begun, cpu_seconds(self._running.process.pid) - used
            beside = f"{used / (2 * count) * 1e6:.0f} µs of the agent's CPU each"
            yield Result(f"function calls, {CLIENTS} clients", 2 * count / took, "/s", 8_000, more=True, beside=beside)
        await self._gone("echo")

    # -- cold

    async def cold(self) -> AsyncIterator[Result]:
        count = 3 if self._quick else 11
        small = {"resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "256Mi"}}}  # fits into no pool
        for name, spec, goal in (("pooled", {}, 0.010), ("poolless", small, 0.5)):
            await self.function(name, ECHO, scale={"minReplicas": 0, "idleSeconds": 1}, **spec)
            times = []
            for _ in range(count):
                await self._seen.until(lambda n=name: not self._pods(n), f"{name} without pods")  # type: ignore[misc]
                if name == "pooled":
                    await self._seen.until(self._pooled, "a pod in the pool")
                begun = time.perf_counter()
                status, text = await self.call(name)
                times.append(time.perf_counter() - begun)
                if status != 200:
                    raise BenchError(f"a cold call was answered {status}: {text[:500]}")
                await self._seen.until(lambda n=name: self._pods(n), f"the pod of {name}")  # type: ignore[misc]
            what = "from the pool" if name == "pooled" else "with a new pod"
            beside = f"slowest {max(times) * 1000:.0f} ms; {await self._phases(name)}"
            yield Result(f"cold start {what}, p50 of {count}", statistics.median(times) * 1000, "ms", goal * 1000,
                         beside=beside)  # fmt: skip
            await self._gone(name)

    async def _phases(self, name: str) -> str:
        """Where the time of cold calls went, as the gateway has recorded it."""
        path = f"{self._seen.client.resource(Function).base_path(SPACE)}/{name}/calls"
        items = json.loads(await self._seen.client.transport.request("GET", path))["items"]
        told = [
            (item["waitSeconds"], item["loadSeconds"], item["seconds"] - item["waitSeconds"] - item["loadSeconds"])
            for item in items if item["cold"]
        ]  # fmt: skip
        waited, loaded, called = (statistics.median(phase) * 1000 for phase in zip(*told, strict=True))
        return f"p50 of its parts: {waited:.1f} ms for a pod, {loaded:.1f} for its code, {called:.1f} for the call"

    async def _gone(self, name: str) -> None:
        await self._seen.client.delete(Function, name, SPACE)
        await self._seen.until(lambda: not self._pods(name), f"the end of {name}")

    # -- changes

    async def reload(self) -> AsyncIterator[Result]:
        """New code at 200 calls a second: how soon it answers, and how many calls fail meanwhile."""
        await self.function("changing", "async def main(params):\n    return 'v0'\n", scale={"minReplicas": 1})
        calls = Steady(lambda: self.call("changing"), RATE)
        times = []
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(calls.run())
            for number in range(1, 4 if self._quick else 11):
                code = f"async def main(params):\n    return 'v{number}'\n"
                begun = time.perf_counter()
                await self._seen.client.patch(Function, "changing", SPACE, {"spec": {"code": {"inline": code}}})
                await calls.until(f"v{number}")
                times.append(time.perf_counter() - begun)
            calls.over.set()
            await task
        yield Result(f"new code live, p50 of {len(times)}", statistics.median(times), "s", 1,
                     beside=f"slowest {max(times):.3g} s")  # fmt: skip
        yield Result(f"failed calls while code changes ({len(calls.statuses)})", calls.failed(), "", 0)
        await self._gone("changing")

    async def scaling(self) -> Result:
        """From nothing to several pods, new code there, and back to nothing, with calls all the time but the last."""
        most = 3 if self._quick else 6
        scale = {"minReplicas": 0, "maxReplicas": most, "idleSeconds": 1}
        await self.function("growing", SLOW, concurrency=1, scale=scale)
        answers: list[tuple[int, str]] = []
        over = asyncio.Event()

        async def client() -> None:
            while not over.is_set():
                answers.append(await self.call("growing"))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(2 * most):
                tasks.create_task(client())
            await self._seen.until(lambda: len(self._pods("growing")) == most, f"{most} pods")
            await self._more(answers, 10 * most)
            code = SLOW.replace("v1", "v2")
            await self._seen.client.patch(Function, "growing", SPACE, {"spec": {"code": {"inline": code}}})
            await self._seen.until(lambda: self._live("growing") == "growing-00002", "the second revision")
            await self._more(answers, 10 * most)
            await self._seen.client.patch(Function, "growing", SPACE, {"spec": {"scale": {"maxReplicas": 1}}})
            await self._seen.until(lambda: sum(not pod.deleting for pod in self._pods("growing")) == 1, "one pod")
            await self._more(answers, 10 * most)
            over.set()
        await self._seen.until(lambda: not self._pods("growing"), "no pods")
        answers.append(await self.call("growing"))
        failed = [f"{status} {text[:200]}" for status, text in answers if status != 200]
        name = f"failed calls while scaling 0 → {most} → 1 → 0 → 1 ({len(answers)})"
        return Result(name, len(failed), "", 0, beside=failed[0] if failed else "")

    @staticmethod
    async def _more(answers: list[tuple[int, str]], count: int) -> None:
        """Wait for so many more calls."""
        wanted = len(answers) + count
        async with asyncio.timeout(60):
            while len(answers) < wanted:
                await asyncio.sleep(0.01)


class Steady:
    """Calls at a steady rate, however long each takes."""

    def __init__(self, call: Callable[[], Any], rate: float) -> None:
        self._call = call
        self._rate = rate
        self._said: set[str] = set()
        self._news = asyncio.Event()
        self.statuses: list[int] = []
        self.over = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            due = time.perf_counter()
            while not self.over.is_set():
                tasks.create_task(self._one())
                due += 1 / self._rate
                await asyncio.sleep(max(due - time.perf_counter(), 0))

    async def _one(self) -> None:
        status, text = await self._call()
        self.statuses.append(status)
        if text not in self._said:
            self._said.add(text)
            self._news.set()

    async def until(self, text: str) -> None:
        async with asyncio.timeout(30):
            while text not in self._said:
                self._news.clear()
                await self._news.wait()

    def failed(self) -> int:
        return sum(status != 200 for status in self.statuses)


async def _load(url: str, count: int, clients: int) -> list[float]:
    """Latencies in seconds of `count` calls by a process of its own."""
    spec = json.dumps({"url": url, "count": count, "clients": clients})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.calls", spec, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    answer = json.loads(told)
    if answer["failed"]:
        raise BenchError(f"{len(answer['failed'])} calls of {url} failed, the first with {answer['failed'][0]}")
    latencies: list[float] = answer["latencies"]
    return latencies
