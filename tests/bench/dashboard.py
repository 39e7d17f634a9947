"""The dashboard in a real Chromium: how soon pods are seen, and whether thousands stay scrollable."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from typing import Any

from minik8s.api.kinds.deployment import Deployment
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from tests.agent import free_port
from tests.bench.agent import Agent, BenchError, agent
from tests.bench.following import Followed, follow, is_ready
from tests.bench.report import Result

NAMES = ("dashboard",)
SOME, MANY = 1000, 5000  # pods
NODES = 60
PATIENCE = 60.0  # seconds for the page to show what it should
# From the browser's start of loading the page: what is painted first, and the first pod on the screen.
PAINTED = "performance.getEntriesByType('paint').find((e) => e.name === 'first-contentful-paint')?.startTime"
ROWS = """new Promise((done) => {
  const look = () => requestAnimationFrame(document.querySelector('.row') ? () => done(performance.now()) : look);
  look();
})"""
ALL = """(count) => new Promise((done) => {
  const listed = () => document.querySelector('.count')?.textContent === String(count);
  const look = () => listed() ? done(performance.now()) : requestAnimationFrame(look);
  look();
})"""
# The longest that the screen stood still while the whole table was scrolled through, 200 steps one a frame.
SCROLLED = """new Promise((done) => {
  const rows = document.querySelector('.rows');
  const step = (rows.scrollHeight - rows.clientHeight) / 200;
  let last = performance.now(), longest = 0, n = 0;
  const frame = (now) => {
    longest = Math.max(longest, now - last);
    last = now;
    if (n++ === 200) return done(longest);
    rows.scrollTop = n * step;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
})"""


async def measure(names: Sequence[str], *, quick: bool) -> AsyncIterator[Result]:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise BenchError("the dashboard is measured in Debian's chromium: apt-get install chromium")
    from playwright.async_api import async_playwright

    some, many = (SOME // 10, MANY // 10) if quick else (SOME, MANY)
    address = f"127.0.0.1:{free_port()}"
    options = ("--runtime", "fake", "--replicas", str(NODES), "--store", "memory", "--dashboard-listen", address)
    async with (
        agent(*options) as running,
        follow(running, Node, Pod) as seen,
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
    ):
        await seen.until(lambda: sum(map(is_ready, seen.list(Node))) == NODES, f"{NODES} nodes")
        page = await _logged_in(browser, f"http://{address}/", running)
        await _pods(seen, some)
        # The first look at a dashboard is slower: its code is read by the server then.
        for _ in range(2):
            await page.goto("about:blank")
            await page.goto(f"http://{address}/#/pods")
            shown = await _asked(page, ROWS)
        painted = await _asked(page, PAINTED)
        yield Result(f"dashboard: first paint, {some} pods", painted / 1000, "s", 1)
        yield Result(f"dashboard: first pods on the screen of {some}", shown / 1000, "s", 1)
        await _pods(seen, many)
        await page.goto("about:blank")
        await page.goto(f"http://{address}/#/pods")
        yield Result(f"dashboard: all of {many} pods listed", await _asked(page, ALL, many) / 1000, "s")
        yield Result(f"dashboard: longest standstill, {many} pods scrolled", await _asked(page, SCROLLED), "ms", 200)


async def _asked(page: Any, script: str, *args: Any) -> float:
    try:
        async with asyncio.timeout(PATIENCE):
            answer: float = await page.evaluate(script, *args)
            return answer
    except TimeoutError:
        shown = " ".join((await page.inner_text("body"))[:300].split())
        raise BenchError(f"the page did not get there in {PATIENCE:.0f} s: {shown}") from None


async def _logged_in(browser: Any, url: str, running: Agent) -> Any:
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    await context.request.post(f"{url}session", data={"credentials": running.token})
    page = await context.new_page()
    page.set_default_timeout(60_000)
    return page


async def _pods(seen: Followed, count: int) -> None:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
    spec = {"replicas": count, "selector": {"matchLabels": labels}, "template": template}
    if not seen.list(Pod):
        await seen.client.create(Deployment, {"metadata": {"name": "web"}, "spec": spec}, "default")
    else:
        await seen.client.patch(Deployment, "web", "default", {"spec": {"replicas": count}})

    def running() -> bool:
        pods = seen.list(Pod)
        return len(pods) == count and all(pod.status.phase == "Running" for pod in pods)

    await seen.until(running, f"{count} pods")
