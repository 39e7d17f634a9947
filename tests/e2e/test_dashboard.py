"""The dashboard on real containers, in a real Chromium: logs, a shell, a node's engine, calls of functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.e2e.space import Space
from tests.images import BUSYBOX
from tests.web.browsing import CHROMIUM, chromium

TALK = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done"


pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")


@contextmanager
def opened(space: Space) -> Iterator[tuple[Any, str]]:
    """A page that is logged in, and its address. Errors of scripts and violations of the policy fail the test."""
    url, token = space.agent.minik8s("dashboard", "--data-dir", str(space.agent.data)).out.split()
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(30_000)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.expose_function("violated", lambda what: faults.append(f"policy: {what}"))
        page.add_init_script("addEventListener('securitypolicyviolation', (e) => violated(e.violatedDirective))")
        assert page.request.post(f"{url}session", data={"credentials": token}).ok
        yield page, url
    assert not faults


def test_logs_are_followed_and_a_shell_answers(space: Space) -> None:
    space.k("run", "talker", f"--image={BUSYBOX}", "--", "sh", "-c", TALK)
    space.k("wait", "--for=condition=Ready", "pod/talker", "--timeout=40s")
    with opened(space) as (page, url):
        page.goto(f"{url}#/pods/{space.name}/talker/logs")
        page.wait_for_selector("pre:has-text('line 0')")
        seen = page.inner_text("pre").count("line")
        page.wait_for_selector(f"pre:has-text('line {seen + 10}')")
        page.goto(f"{url}#/pods/{space.name}/talker/terminal")
        page.wait_for_selector("text=Connected")
        page.keyboard.type("echo $((6*7)) $(hostname)\n")
        page.wait_for_selector(".xterm-rows:has-text('42 talker')")
        page.keyboard.type("exit\n")
        page.wait_for_selector("text=The shell has ended.")
        page.goto(f"{url}#/pods/{space.name}/gone/logs")
        page.wait_for_selector("text=There is no Pod gone")


def test_the_engine_of_a_node_shows_a_pods_container_and_its_log(space: Space) -> None:
    space.k("run", "talker", f"--image={BUSYBOX}", "--", "sh", "-c", TALK)
    space.k("wait", "--for=condition=Ready", "pod/talker", "--timeout=40s")
    address = space.k("get", "pod", "talker", "-o", "jsonpath={.status.podIP}").out
    with opened(space) as (page, url):
        page.goto(f"{url}#/engine")
        row = f".row:has-text('{space.name}/talker'):has-text('running')"
        page.wait_for_selector(f"{row}:has-text('{address}'):has-text('{BUSYBOX}')")
        page.click("text=Sizes")
        page.wait_for_selector(f"{row}:has-text(' B')")
        page.click(f"{row} a >> nth=0")
        page.wait_for_selector(".screen:has-text('line 5')")
        page.goto(f"{url}#/engine")
        page.click(".tabs a:has-text('Images')")
        page.fill(".filter", BUSYBOX)
        page.wait_for_selector(f".row:has-text('{BUSYBOX}')")


def test_calls_of_functions_are_told_and_who_called_whom(space: Space) -> None:
    first = "from serverless import Invoke\n\n\ndef main(params):\n    return Invoke('second', params)\n"
    for name, code, more in (("first", first, {"invokes": ["second"]}), ("second", "def main(p): return p\n", {})):
        meta = {"name": name}
        space.apply({"apiVersion": "faas.minik8s.io/v1", "kind": "Function", "metadata": meta,
                     "spec": {"code": {"inline": code}, **more}})  # fmt: skip
    for name in ("first", "second"):
        space.wait("condition=Ready", f"function.faas.minik8s.io/{name}", seconds=60)
    url = f"http://127.0.0.1:{space.agent.gateway_port}/function/{space.name}/first"
    for _ in range(3):
        asked = Request(url, b'{"x": 1}', {"content-type": "application/json"})
        with urlopen(asked, timeout=30) as answer:
            assert json.load(answer) == {"x": 1}
    with opened(space) as (page, url):
        page.goto(f"{url}#/functions/{space.name}/second/calls")
        page.wait_for_selector(".row:has-text('200'):has-text('first') >> nth=2")
        page.wait_for_selector(".drawing text:text-is('3')")
        page.click(".drawing [data-state=first]")
        page.click(".tabs a:has-text('Overview')")
        page.wait_for_selector("[aria-label=Replicas] .row:has-text('Running')")
