"""The dashboard on real containers: a log as it grows, and a shell in a terminal, in a real Chromium."""

from __future__ import annotations

import shutil

import pytest

from tests.e2e.space import Space
from tests.images import BUSYBOX

CHROMIUM = shutil.which("chromium") or ""
TALK = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done"


@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")
def test_logs_are_followed_and_a_shell_answers(space: Space) -> None:
    from playwright.sync_api import sync_playwright

    space.k("run", "talker", f"--image={BUSYBOX}", "--", "sh", "-c", TALK)
    space.k("wait", "--for=condition=Ready", "pod/talker", "--timeout=40s")
    url, token = space.agent.minik8s("dashboard", "--data-dir", str(space.agent.data)).out.split()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(30_000)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.expose_function("violated", lambda what: faults.append(f"policy: {what}"))
        page.add_init_script("addEventListener('securitypolicyviolation', (e) => violated(e.violatedDirective))")
        assert page.request.post(f"{url}session", data={"credentials": token}).ok
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
        browser.close()
    assert not faults
