"""A real Chromium that looks at the dashboard, and holds it to its own rules."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.web.served import Served

CHROMIUM = shutil.which("chromium") or ""
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 800}
XSS = "<img src=x onerror=alert(1)>"


@contextmanager
def chromium() -> Iterator[Any]:
    """Chromium itself. As long as it is open no test of a coroutine can run in this thread: Playwright has its loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, site: Served, token: str, *, size: Any = DESK) -> Iterator[Any]:
    """A page that is logged in, in a context of its own; else as `watched`."""
    context = browser.new_context(viewport=size)
    with watched(context) as page:
        page.goto(site.url)
        page.fill("#credentials", token)
        page.click("text=Log in")
        page.wait_for_selector(".frame")
        yield page
    context.close()


@contextmanager
def watched(context: Any) -> Iterator[Any]:
    """A new page, of which errors of scripts, violations of the policy and dialogs fail the test."""
    context.set_default_timeout(30_000)
    faults: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.expose_function("violated", lambda what: faults.append(f"policy: {what}"))
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => violated(e.violatedDirective + e.blockedURI))"
    )
    yield page
    page.close()
    assert not faults


def go(page: Any, *parts: str) -> None:
    page.evaluate("(hash) => { location.hash = hash }", "/".join(("#", *parts)))
